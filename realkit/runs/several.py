"""Several results folders read as one, by the rules by which folders are merged; nothing is
written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from realkit.base.errors import RequestError
from realkit.runs import asked
from realkit.runs.combine import new_cells, new_looks, united_locks, versions_of
from realkit.runs.environment import version_changes
from realkit.runs.records import CELL
from realkit.runs.store import Cells, Row, Store, vote_key


class Known(Cells):
    """Records that are already read, in place of a file of them."""

    def __init__(self) -> None:
        super().__init__(Path(), CELL)
        self.records: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        return list(self.records)

    def append(self, records: Iterable[dict[str, Any]]) -> NoReturn:
        _refuse()


class Several(Store):
    """The union of results folders. Of a cell, a row and a picture that two of them have, the first
    that was made counts. Paths are below `folder`, the nearest that holds them all."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        stores = [Store(Path(folder).resolve()) for folder in folders]
        united_locks(stores, "read it by itself")
        super().__init__(os.path.commonpath([store.folder for store in stores]))
        cells, rows, runs, looks, votes = Known(), Known(), Known(), Known(), Known()
        self.cells, self.rows, self.runs, self.looks, self.votes = cells, rows, runs, looks, votes
        self._homes: dict[str, str] = {}  # of each cell
        self._pictures: dict[str, Path] = {}
        for name, store in zip(folders, stores, strict=True):
            self._add_paths(str(name), store)
            rows.records += _new_rows(store, self)
            cells.records += new_cells(store, self)
            looks.records += new_looks(store, self)
            runs.records += store.runs.read()
            if not store.asked():
                runs.records += asked.recorded(store)
            keys = {vote_key(vote) for vote in votes.records}
            votes.records += [vote for vote in store.votes.read() if vote_key(vote) not in keys]
        _warn_of_versions(stores)

    def home(self, cell: str) -> str:
        """The folder of a cell: the first that has its picture, else the first that planned it."""
        return self._homes[cell]

    def pictures(self) -> set[str]:
        return set(self._pictures)

    def path(self, stage: str, artifact: str) -> Path:
        return self._pictures.get(artifact) or super().path(stage, artifact)

    def put(self, path: Path, data: bytes) -> NoReturn:
        _refuse()

    @contextmanager
    def writing(self, page: str = "") -> Iterator[None]:
        _refuse()
        yield

    def _add_paths(self, name: str, store: Store) -> None:
        pictures = store.pictures()
        for record in store.cells.read():
            image = record["ids"]["image"]
            self._homes.setdefault(record["id"], name)
            if image in pictures and image not in self._pictures:
                self._homes[record["id"]] = name
        for image in pictures:
            self._pictures.setdefault(image, store.path("upscale", image))


def _new_rows(source: Store, store: Store) -> list[Row]:
    """The rows of a folder that another lacks, or that failed there and are ok here."""
    before = store.last_rows()
    new = []
    for name, row in source.last_rows().items():
        if name not in before or (row["status"] == "ok" and before[name]["status"] != "ok"):
            new.append(row)
    return new


def _warn_of_versions(stores: Sequence[Store]) -> None:
    """Warn where the first folder and another were made with different library versions."""
    first, *others = stores
    for store in others:
        changes = version_changes(versions_of([first]), versions_of([store]))
        if changes:
            warnings.warn(
                f"{str(store.folder)!r} was made with other versions than {str(first.folder)!r}"
                f" ({changes}): a difference between their pictures may come from that",
                RuntimeWarning,
                stacklevel=5,
            )


def _refuse() -> NoReturn:
    raise RequestError("Several folders are read together, nothing is written: take one of them")
