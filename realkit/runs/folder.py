"""A results folder as people read it: its table and its failures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realkit.base.door import door
from realkit.base.errors import RequestError, shown
from realkit.runs.asked import Asked
from realkit.runs.prune import Pruned, prune_latents
from realkit.runs.several import Several
from realkit.runs.store import Store
from realkit.runs.table import build

if TYPE_CHECKING:
    import pandas as pd


@door
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

    def prune_latents(self, dry_run: bool = False) -> Pruned:
        """Delete the latents whose pictures are made; as prune.prune_latents says."""
        return prune_latents(self.store, dry_run)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


class Runs(Run):
    """Several results folders, read as one; `folder` is the nearest folder that holds them all."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.several = Several(folders)
        super().__init__(self.several.folder)
        self.store = self.several

    def table(self) -> pd.DataFrame:
        """One line a cell, in the order of the folders; `folder` is the one that it comes from."""
        frame = super().table()
        frame.insert(0, "folder", [self.several.home(cell) for cell in frame["cell"]])
        return frame


def read(folder: str | Path | Sequence[str | Path]) -> Run:
    """A results folder, or several as one, read without torch.

    Of a cell that several folders have the first picture counts, and of each of its scores the
    first that was made: as where folders are merged. Raises RequestError for what is no results
    folder, and where a name means different files in two folders.
    """
    several = isinstance(folder, (list, tuple))
    folders: Sequence[str | Path] = folder if several else [folder]  # type: ignore[assignment,list-item]
    if not folders:
        raise RequestError("read([]): expected a results folder, or several")
    for path in folders:
        if not isinstance(path, (str, os.PathLike)):
            raise RequestError(f"{shown(path)} is no path: expected a results folder, or several")
        if not (Path(path) / "cells.jsonl").is_file():
            raise RequestError(f"{str(path)!r} is no results folder: it has no cells.jsonl")
    return Runs(folders) if several else Run(folders[0])
