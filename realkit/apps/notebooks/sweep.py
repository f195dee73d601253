"""The entries of a sweep of notebooks, one after the other, each executed in a child process; then
one table and one page of all.

What counts is how the child ended and the rows that the notebook left. A saved notebook says
`completed` of a cell in which its kernel was killed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from realkit.apps.notebooks.child import DEAD, ERROR, OK, SAID, STOPPED, kill
from realkit.apps.notebooks.entries import BEGAN, ENTRIES, LOG, MADE, OUT, Entry, read_entries
from realkit.base import credentials
from realkit.base.errors import RequestError, one_line
from realkit.base.files import Lines, write_atomically
from realkit.runs.stopping import Stop
from realkit.runs.store import Store

if TYPE_CHECKING:
    import pandas as pd

TICK = 0.2  # seconds between two looks at a child
QUIET = 4.0  # seconds that the work on hand is thought to take, where no rows tell
LAST = 10.0  # seconds for a child to end itself


def sweep_notebooks(
    file: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    budget: str | float | None = None,
    until: str | datetime.datetime | None = None,
) -> pd.DataFrame:
    """Execute the entries of a sweep file that `out` does not hold finished, and return the table
    of all, `entry` its first column.

    An entry whose process or kernel dies is begun once more; one in which a cell raises has failed.
    Either way the next goes on. `attrs["entries"]` holds what became of each: status ("ok",
    "failed", "stopped", or "pending": not begun), reason, seconds, attempts. `attrs["stopped"]`
    says why it ended early. In `out` lie table.csv, table.parquet, index.html and, below entries/,
    each executed notebook with its log and results; `image` is relative to `out`.

    `budget`, `until`, SIGTERM and Ctrl-C stop it as they do `run`: the notebook in work is
    interrupted, what its batch in work makes is written. Raises RequestError, before anything is
    started, where the request is wrong.
    """
    from realkit.apps.notebooks import page

    entries, stop, end = read_entries(file), Stop(budget, until), Stop(budget, until)
    store = Store(out)
    ledger = Lines(store.folder / "entries.jsonl", "id", "name", "status")
    with store.writing(), stop.listening():
        _work(entries, store, ledger, stop, end)
        last = {record["id"]: record for record in ledger.read()}
        records = {
            entry.name: last.get(entry.id, {"status": "pending", "reason": "not begun"})
            for entry in entries
        }
        tables = {entry.name: _readable(store.folder / ENTRIES / entry.folder) for entry in entries}
        for entry in entries:
            if (table := tables[entry.name]) is not None and "image" in table:
                table["image"] = f"{ENTRIES}/{entry.folder}/" + table["image"].astype("string")
        merged = merge(tables)
        write_atomically(store.folder / "table.csv", lambda file: merged.to_csv(file, index=False))
        write_atomically(
            store.folder / "table.parquet", lambda file: merged.to_parquet(file, index=False)
        )
        store.write_text("index.html", page.page(store.folder, entries, records, tables))
    merged.attrs |= {"folder": str(store.folder), "entries": records, "stopped": stop.reason}
    return merged


def _work(entries: list[Entry], store: Store, ledger: Lines, stop: Stop, end: Stop) -> None:
    """Execute what is not finished, and append a record of each."""
    from tqdm import tqdm

    last = {
        record.get("folder"): record for record in ledger.read()
    }  # of a folder: what was made with other parameters since is no longer this
    finished = {record["id"] for record in last.values() if record["status"] == "ok"}
    pending = [
        entry
        for entry in entries
        if entry.id not in finished or not (store.folder / ENTRIES / entry.folder / MADE).exists()
    ]
    terminal = sys.stderr.isatty()
    with tqdm(
        total=len(pending),
        desc="notebooks",
        disable=not pending,
        mininterval=0.5 if terminal else 8,
        dynamic_ncols=terminal,
        bar_format=(
            "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt}, {elapsed} gone, {remaining}"
            " left{postfix}"
        ),
    ) as bar:
        for entry in pending:
            if stop.due(QUIET):
                break
            bar.set_postfix_str(entry.name, refresh=terminal)
            record = _executed(entry, store.folder / ENTRIES / entry.folder, stop, end)
            ledger.append([record])
            bar.update()
            if record["status"] != "ok":
                bar.write(
                    f"{entry.name} {record['status']}: {record['reason']}; log:"
                    f" {store.folder / ENTRIES / entry.folder / LOG}",
                    file=sys.stderr,
                )


def _executed(entry: Entry, folder: Path, stop: Stop, end: Stop) -> dict[str, Any]:
    """The record of an entry, executed now; once more where its process or kernel died."""
    began, attempts, code = time.monotonic(), 0, DEAD
    held = _held(entry, folder)
    while attempts < 2 and (code == DEAD or _killed_by(code)) and not stop.reason:
        attempts += 1
        code = _attempt(entry, folder, stop, end)
    if code == OK:
        status, reason = judged(folder, *held)
    elif code == STOPPED or (stop.reason and code != ERROR):
        status, reason = "stopped", stop.reason
    else:
        status, reason = (
            "failed",
            _died(code, folder) + (f" ({attempts} attempts)" if attempts > 1 else ""),
        )
    return {
        "id": entry.id,
        "name": entry.name,
        "folder": entry.folder,
        "status": status,
        "reason": credentials.scrub(reason),
        "seconds": round(time.monotonic() - began, 2),
        "attempts": attempts,
        "code": code,
        "at": round(time.time(), 3),
        "notebook": entry.notebook.name,
        "parameters": entry.parameters,
    }


def _held(entry: Entry, folder: Path) -> tuple[int, int]:
    """How many cells and rows an entry's results held when it was first begun as it is now: those
    of other parameters."""
    store = Store(folder)
    try:
        kept = json.loads((folder / BEGAN).read_text(encoding="utf-8"))
        if kept["id"] == entry.id:
            return int(kept["cells"]), int(kept["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        cells, rows = len(store.cells.read()), len(store.rows.read())
    except RequestError:  # damaged: the notebook and its record will say so
        return 0, 0
    store.write_text(BEGAN, json.dumps({"id": entry.id, "cells": cells, "rows": rows}))
    return cells, rows


def _attempt(entry: Entry, folder: Path, stop: Stop, end: Stop) -> int:
    """Execute an entry's notebook once: its process's exit code, STOPPED where it had to be ended.
    Leaves neither process nor kernel behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="realkit-", ignore_cleanup_errors=True) as runtime,
        (folder / LOG).open("ab") as log,
    ):
        job, kernel, home = (
            Path(runtime) / "job.json",
            Path(runtime) / "kernel",
            str(folder.resolve()),
        )
        parameters = {**entry.parameters, OUT: home}
        job.write_text(
            json.dumps(
                {
                    "notebook": str(entry.notebook),
                    "made": str(Path(home) / MADE),
                    "parameters": parameters,
                    "kernel": str(kernel),
                }
            )
        )
        log.write(
            f"--- {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {entry.name}\n".encode(
                errors="replace"
            )
        )
        log.flush()
        child = subprocess.Popen(
            [sys.executable, "-m", "realkit.apps.notebooks.child", str(job)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env=os.environ
            | {
                "JUPYTER_RUNTIME_DIR": runtime,
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8:backslashreplace",
            },
        )
        assert child.stdin is not None
        try:
            return _awaited(child, child.stdin, folder / "rows.jsonl", stop, end)
        finally:
            child.stdin.close()  # it ends at once, if it has not
            try:
                child.wait(LAST)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            kill(kernel)


def _awaited(
    child: subprocess.Popen[bytes], line: IO[bytes], rows: Path, stop: Stop, end: Stop
) -> int:
    """The child's exit code. It is told to stop when `stop` is due, in time for the longest wait
    between two batches of rows so far; STOPPED where it has not by the end."""
    told, longest, seen, size = False, 0.0, 0.0, _size(rows)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(TICK)
        now, before = time.monotonic(), size
        if (size := _size(rows)) != before:
            longest, seen = max(longest, now - seen if seen else 0.0), now
        if not told and stop.due(max(longest, QUIET)):
            told = True
            with contextlib.suppress(OSError):  # it has ended meanwhile
                line.write(b"s")
        if told and end.due(0.0):
            return STOPPED


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _killed_by(code: int) -> str:
    """The signal that ended a process, by its exit code, also as a shell writes it; "" where none
    did."""
    number = -code if code < 0 else code - 128
    return (
        signal.Signals(number).name if number in {known.value for known in signal.Signals} else ""
    )


def _died(code: int, folder: Path) -> str:
    """Why an entry that its cells did not finish failed: what its child said last, or what became
    of the child."""
    if name := _killed_by(code):
        return f"its process was ended by {name}" + (
            ", as the system does for want of memory" if name == "SIGKILL" else ""
        )
    with (folder / LOG).open("rb") as log:
        log.seek(max(0, _size(folder / LOG) - 65_536))
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    if code in (ERROR, DEAD):
        return next(
            (line.removeprefix(SAID) for line in reversed(lines) if line.startswith(SAID)), ""
        )[:400]
    return f"its process ended with exit code {code}: {lines[-1].strip()[:400]}"


def table_of(folder: Path) -> pd.DataFrame | None:
    """The table of an entry: of its results folder, else the table.csv it left; None where there is
    neither. Raises RequestError for a damaged one."""
    import pandas as pd

    from realkit.runs.folder import read

    if (folder / "cells.jsonl").exists():
        return read(folder).table()
    if not (folder / "table.csv").exists():
        return None
    try:
        return pd.read_csv(folder / "table.csv")
    except (OSError, ValueError) as error:
        raise RequestError(f"its table.csv cannot be read: {one_line(error)}") from error


def judged(folder: Path, cells_before: int = 0, rows_before: int = 0) -> tuple[str, str]:
    """Status and reason of an entry whose notebook went through, by the rows it left. What other
    parameters had left unfinished before does not count."""
    try:
        table = table_of(folder)
        if cells_before and len(table := _asked(folder, cells_before, rows_before)) == 0:
            return "ok", ""
    except RequestError as error:
        return "failed", str(error)
    if table is None or ("status" not in table and not (folder / "cells.jsonl").exists()):
        return "ok", ""
    counts = table["status"].value_counts()
    failed, pending, cells = int(counts.get("failed", 0)), int(counts.get("pending", 0)), len(table)
    if not cells:
        return "failed", "it left a table without cells"
    if pending:
        return "stopped", f"{pending} of {cells} cells are pending" + (
            f", {failed} failed" if failed else ""
        )
    if wrong := cells - int(counts.get("ok", 0)):
        errors = (
            list(table.loc[table["status"] != "ok", "error"].dropna()) if "error" in table else []
        )
        return "failed", f"{wrong} of {cells} cells failed" + (
            f", the first: {str(errors[0])[:300]}" if errors else ""
        )
    return "ok", ""


def _asked(folder: Path, cells_before: int, rows_before: int) -> pd.DataFrame:
    """The table of the cells that were added since, worked on since, or asked for by the last run
    in a results folder; of those runs' scorers."""
    from realkit.runs import locks
    from realkit.runs.folder import Run
    from realkit.sweeps.ids import cell_id, ids, of_cell
    from realkit.sweeps.sweep import Sweep

    store, wanted, scorers = Store(folder), set[str](), set[str]()
    if (folder / "sweep.yaml").is_file():
        sweep, known = Sweep.from_yaml(folder / "sweep.yaml"), locks.read_locks(folder)
        for cell in sweep.cells({name: lock.spec for name, lock in known.models.items()}):
            lock = known.models[cell.model]
            wanted.add(cell_id(cell, ids(cell, lock, of_cell(cell, known.upscalers, lock))))
        scorers |= set(sweep.scorers)
    since = store.rows.read()[rows_before:]
    scorers |= {row["scorer"] for row in since if row["stage"] == "score"}
    worked = {row["parent"] if row["stage"] == "score" else row["id"] for row in since}
    cells = {
        line["id"]
        for number, line in enumerate(store.cells.read())
        if number >= cells_before
        or line["id"] in wanted
        or not worked.isdisjoint(name for name in line["ids"].values() if name)
    }
    return Run(folder, frozenset(cells), tuple(sorted(scorers))).table()


def _readable(folder: Path) -> pd.DataFrame | None:
    """An entry's table, without attributes; None where it has none that can be read, which its
    record then says."""
    try:
        table = table_of(folder)
    except RequestError:
        return None
    if table is not None:
        table.attrs = {}
    return table if table is not None and len(table) else None


def merge(tables: Mapping[str, pd.DataFrame | None]) -> pd.DataFrame:
    """One dataframe of many, the entry's name before each line. Columns that some lack are empty
    there; those of mixed kinds, or of numbers past 64 bits, become text."""
    import pandas as pd

    named = {name: table for name, table in tables.items() if table is not None}
    columns = list(
        dict.fromkeys(["entry", *(column for table in named.values() for column in table.columns)])
    )
    parts = [
        table.dropna(axis="columns", how="all").assign(entry=name) for name, table in named.items()
    ]  # what is empty tells no kind
    merged = (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()).reindex(
        columns=columns
    )
    for column in merged.select_dtypes("object"):
        known = merged[column].dropna()
        if len({str if isinstance(value, str) else type(value) for value in known}) > 1 or any(
            isinstance(value, int) and abs(value) >= 2**63 for value in known
        ):
            merged[column] = merged[column].map(str, na_action="ignore").astype("string")
    return merged
