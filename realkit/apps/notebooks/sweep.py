"""The entries of a sweep of notebooks, executed one after the other; then one table and one page of
all.

An entry's status follows from how its process ended and from the rows that the notebook left. A
saved notebook says `completed` even of a cell in which its kernel was killed.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from realkit.apps.notebooks.entries import ENTRIES, LOG, MADE, RECORD, Entry, read_entries
from realkit.apps.notebooks.execution import QUIET, execute
from realkit.apps.notebooks.outcome import merge, readable
from realkit.apps.notebooks.page import page
from realkit.base.files import Lines, write_atomically
from realkit.base.spreadsheets import to_csv
from realkit.runs.stopping import Stop
from realkit.runs.store import Store

if TYPE_CHECKING:
    import pandas as pd

BAR = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt}, {elapsed} gone, {remaining} left{postfix}"


def sweep_notebooks(
    file: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    budget: str | float | None = None,
    until: str | datetime.datetime | None = None,
) -> pd.DataFrame:
    """Execute the entries of a sweep file that `out` does not hold finished; the table of all
    entries, `entry` its first column.

    An entry whose process or kernel dies is executed once more; an entry in which a cell raises has
    failed. Either way the next one follows. `attrs["entries"]` holds the record of each: status
    ("ok", "failed", "stopped", or "pending": not begun), reason, seconds, attempts.
    `attrs["stopped"]` says why the sweep ended early. `out` receives table.csv, table.parquet,
    index.html and, below entries/, each executed notebook with its log and results; `image` is
    relative to `out`.

    `budget`, `until`, SIGTERM and Ctrl-C stop it as they stop `run`: the running notebook is
    interrupted, and its current batch is finished and written. Raises RequestError for a wrong
    request, before anything is started.
    """
    entries, stop, end = read_entries(file), Stop(budget, until), Stop(budget, until)
    store = Store(out)
    ledger = Lines(store.folder / "entries.jsonl", RECORD)
    with store.writing("index.html"), stop.listening():
        ledger.append([])  # the folder is known by it
        _execute_pending(entries, store, ledger, stop, end)
        last = {record["id"]: record for record in ledger.read()}
        pending = {"status": "pending", "reason": "not begun"}
        records = {entry.name: last.get(entry.id, pending) for entry in entries}
        tables = {}
        for entry in entries:
            table = readable(store.folder / ENTRIES / entry.folder)
            if table is not None and "image" in table:
                table["image"] = f"{ENTRIES}/{entry.folder}/" + table["image"].astype("string")
            tables[entry.name] = table
        merged = merge(tables)
        csv, parquet = store.folder / "table.csv", store.folder / "table.parquet"
        write_atomically(csv, lambda file: file.write(to_csv(merged).encode()))
        write_atomically(parquet, lambda file: merged.to_parquet(file, index=False))
        store.write_text("index.html", page(store.folder, entries, records, tables))
    merged.attrs |= {"folder": str(store.folder), "entries": records, "stopped": stop.reason}
    return merged


def _execute_pending(
    entries: list[Entry], store: Store, ledger: Lines, stop: Stop, end: Stop
) -> None:
    """Execute the entries that are not finished, and append a record of each."""
    # The last record of a folder counts: other parameters may have used the folder since.
    last = {record.get("folder"): record for record in ledger.read()}
    finished = {record["id"] for record in last.values() if record["status"] == "ok"}
    homes = {entry.name: store.folder / ENTRIES / entry.folder for entry in entries}
    pending = []
    for entry in entries:
        if entry.id not in finished or not (homes[entry.name] / MADE).exists():
            pending.append(entry)
    terminal = sys.stderr.isatty()
    with tqdm(
        total=len(pending),
        desc="notebooks",
        disable=not pending,
        mininterval=0.5 if terminal else 8,
        dynamic_ncols=terminal,
        bar_format=BAR,
    ) as bar:
        for entry in pending:
            if stop.due(QUIET):
                break
            bar.set_postfix_str(entry.name, refresh=terminal)
            record = execute(entry, homes[entry.name], stop, end)
            ledger.append([record])
            bar.update()
            if record["status"] != "ok":
                reason, log = record["reason"], homes[entry.name] / LOG
                text = f"{entry.name} {record['status']}: {reason}; log: {log}"
                bar.write(text, file=sys.stderr)
