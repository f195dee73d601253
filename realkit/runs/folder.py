"""A results folder as people read it: its table and its failures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.runs.asked import Asked
from realkit.runs.store import Store
from realkit.runs.table import build

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A results folder: after a run, the cells that its sweep asked for; read later, all cells."""

    def __init__(
        self,
        folder: str | Path,
        asked: Asked | None = None,
        stopped: str = "",
        not_embedded: int = 0,
    ) -> None:
        self.not_embedded = not_embedded  # embeddings that pictures of the run lack
        self.stopped = stopped  # why the run ended before its work did; "": it did not
        self.folder = Path(folder)
        self.store = Store(folder)
        self._asked = asked  # None: what all runs were asked for

    def table(self) -> pd.DataFrame:
        """One line a cell: settings, seconds and memory a stage, scores, status. Its `attrs` keep
        the folder and the number of cells, from which figures know what was filtered away."""
        frame = build(self.store, self._asked)
        frame.attrs |= {"folder": str(self.folder), "cells": len(frame)}
        return frame

    @property
    def failed(self) -> int:
        """The number of cells with a failed stage."""
        return int((self.table()["status"] == "failed").sum())

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def read(folder: str | Path) -> Run:
    """A results folder, read without torch. Raises RequestError where it is not one."""
    if not (Path(folder) / "cells.jsonl").is_file():
        raise RequestError(f"{str(folder)!r} is no results folder: it has no cells.jsonl")
    return Run(folder)
