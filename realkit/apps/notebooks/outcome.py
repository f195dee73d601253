"""What an executed notebook left in its folder: its table, and whether it finished its work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from realkit.apps.notebooks.entries import BEGAN, Entry
from realkit.base.errors import RequestError, one_line
from realkit.base.files import json_value
from realkit.base.spreadsheets import read_csv
from realkit.runs import asked
from realkit.runs.folder import Run, read
from realkit.runs.store import Store

if TYPE_CHECKING:
    import pandas as pd


def asked_before(entry: Entry, folder: Path) -> int:
    """How many records of what was asked an entry's results held when it was first executed with
    its present parameters and code; noted in a file then."""
    store = Store(folder)
    try:
        note = json_value((folder / BEGAN).read_text(encoding="utf-8"))
        if note["id"] == entry.id:
            return int(note["asked"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        count = sum(record["run"] != asked.EARLIER for record in store.asked())
    except RequestError:  # damaged: the notebook and its record will say so
        return 0
    store.write_text(BEGAN, json.dumps({"id": entry.id, "asked": count}))
    return count


def judged(folder: Path, before: int = 0) -> tuple[str, str]:
    """Status and reason of an entry whose notebook ran to its end, by what its runs were asked for
    and left. What the first `before` records ask, under other parameters, does not count."""
    try:
        table = _table_since(folder, before)
    except RequestError as error:
        return "failed", str(error)
    if table is None or ("status" not in table and not (folder / "cells.jsonl").exists()):
        return "ok", ""
    statuses = list(table["status"])
    cells, failed, pending = len(table), statuses.count("failed"), statuses.count("pending")
    if not cells:
        return "failed", "it left a table without cells"
    if pending:
        also = f", {failed} failed" if failed else ""
        return "stopped", f"{pending} of {cells} cells are pending{also}"
    unfinished = table[~table["status"].isin(["ok", "skipped"])]
    if unfinished.empty:
        return "ok", ""
    reason = f"{len(unfinished)} of {cells} cells failed"
    errors = list(unfinished["error"].dropna()) if "error" in table else []
    return "failed", f"{reason}, the first: {str(errors[0])[:300]}" if errors else reason


def table_of(folder: Path) -> pd.DataFrame | None:
    """An entry's table: of its results folder, else the table.csv it left; None where there is
    neither. Raises RequestError for a damaged one."""

    if (folder / "cells.jsonl").exists():
        return read(folder).table()
    if not (folder / "table.csv").exists():
        return None
    try:
        return read_csv(folder / "table.csv")
    except (OSError, ValueError) as error:
        raise RequestError(f"its table.csv cannot be read: {one_line(error)}") from error


def _table_since(folder: Path, before: int) -> pd.DataFrame | None:
    """The table of the cells that runs since the first `before` records were asked for; of a folder
    without records, its whole table; None where there was neither run nor table."""
    store = Store(folder)
    records = [record for record in store.asked() if record["run"] != asked.EARLIER]
    if not records and not before:
        return table_of(folder)
    return Run(folder, asked.united(records[before:], store)).table() if records[before:] else None


def readable(folder: Path) -> pd.DataFrame | None:
    """An entry's table without attributes; None where it is missing, empty or damaged."""
    try:
        table = table_of(folder)
    except RequestError:
        return None
    if table is None or table.empty:
        return None
    table.attrs = {}
    return table


def merge(tables: Mapping[str, pd.DataFrame | None]) -> pd.DataFrame:
    """One table of many, the entry's name before each line. Columns that some tables lack are empty
    there; columns of mixed kinds, or of numbers past 64 bits, become text."""
    import pandas as pd

    columns, parts = ["entry"], []
    for name, table in tables.items():
        if table is not None:
            columns.extend(table.columns)
            # A column without values has no kind that another table's could be mixed with.
            parts.append(table.dropna(axis="columns", how="all").assign(entry=name))
    merged = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    merged = merged.reindex(columns=list(dict.fromkeys(columns)))
    for column in merged.select_dtypes("object"):
        values = merged[column].dropna()
        kinds = {str if isinstance(value, str) else type(value) for value in values}
        large = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
        if len(kinds) > 1 or large:
            merged[column] = merged[column].map(str, na_action="ignore").astype("string")
    return merged
