"""What an executed notebook left in its folder: its table, and whether it finished its work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from realkit.apps.notebooks.entries import BEGAN, Entry
from realkit.base.errors import RequestError, one_line
from realkit.runs import locks
from realkit.runs.folder import Run, read
from realkit.runs.store import Store
from realkit.sweeps.ids import cell_id, ids, of_cell
from realkit.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd


def size_before(entry: Entry, folder: Path) -> tuple[int, int]:
    """How many cells and rows an entry's results held when it was first executed with its present
    parameters and code; noted in a file then."""
    store = Store(folder)
    try:
        note = json.loads((folder / BEGAN).read_text(encoding="utf-8"))
        if note["id"] == entry.id:
            return int(note["cells"]), int(note["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        cells, rows = len(store.cells.read()), len(store.rows.read())
    except RequestError:  # damaged: the notebook and its record will say so
        return 0, 0
    store.write_text(BEGAN, json.dumps({"id": entry.id, "cells": cells, "rows": rows}))
    return cells, rows


def judged(folder: Path, cells_before: int = 0, rows_before: int = 0) -> tuple[str, str]:
    """Status and reason of an entry whose notebook ran to its end, by the rows it left. Cells that
    other parameters left unfinished before do not count."""
    try:
        table = table_of(folder)
        if cells_before:
            table = _asked_table(folder, cells_before, rows_before)
            if table.empty:
                return "ok", ""
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
    unfinished = table[table["status"] != "ok"]
    if unfinished.empty:
        return "ok", ""
    reason = f"{len(unfinished)} of {cells} cells failed"
    errors = list(unfinished["error"].dropna()) if "error" in table else []
    return "failed", f"{reason}, the first: {str(errors[0])[:300]}" if errors else reason


def table_of(folder: Path) -> pd.DataFrame | None:
    """An entry's table: of its results folder, else the table.csv it left; None where there is
    neither. Raises RequestError for a damaged one."""
    import pandas as pd

    if (folder / "cells.jsonl").exists():
        return read(folder).table()
    if not (folder / "table.csv").exists():
        return None
    try:
        return pd.read_csv(folder / "table.csv")
    except (OSError, ValueError) as error:
        raise RequestError(f"its table.csv cannot be read: {one_line(error)}") from error


def _asked_table(folder: Path, cells_before: int, rows_before: int) -> pd.DataFrame:
    """The table of the cells that the present parameters asked for, with their scorers: cells of
    the folder's last sweep, cells added since, and cells worked on since."""
    store = Store(folder)
    wanted: set[str] = set()
    scorers: set[str] = set()
    if (folder / "sweep.yaml").is_file():
        sweep, lock = Sweep.from_yaml(folder / "sweep.yaml"), locks.read_locks(folder)
        for cell in sweep.cells({name: model.spec for name, model in lock.models.items()}):
            model = lock.models[cell.model]
            wanted.add(cell_id(cell, ids(cell, model, of_cell(cell, lock.upscalers, model))))
        scorers |= set(sweep.scorers)
    touched: set[str] = set()
    for row in store.rows.read()[rows_before:]:
        if row["stage"] == "score":
            scorers.add(row["scorer"])
        touched.add(row["parent"] if row["stage"] == "score" else row["id"])
    for number, line in enumerate(store.cells.read()):
        if number >= cells_before or not touched.isdisjoint(filter(None, line["ids"].values())):
            wanted.add(line["id"])
    return Run(folder, frozenset(wanted), tuple(sorted(scorers))).table()


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
