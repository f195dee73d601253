"""A results folder: append-only lines that heal when torn, files that are whole or absent, and one
writer at a time."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from realkit.base.errors import RequestError
from realkit.base.files import Lines, WriteError, write_atomically


class Cells(Lines):
    """Lines of which the first of each id counts."""

    def read(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for record in super().read():
            found.setdefault(record["id"], record)
        return list(found.values())


LOCK = ".lock"
PNG_END = (  # the last chunk of every PNG, https://www.w3.org/TR/png/#11IEND
    b"\0\0\0\0IEND\xaeB`\x82"
)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Store:
    """The files of one results folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.cells = Cells(self.folder / "cells.jsonl", "id", "cell", "ids", "batch")
        self.rows = Lines(self.folder / "rows.jsonl", "id", "stage", "status")
        self.runs = Lines(self.folder / "runs.jsonl", "run", "versions")
        self._held: tuple[int, int] | None = None  # which file the lock is, while this holds it

    def path(self, stage: str, artifact: str) -> Path:
        """Where a stage's file artifact lies."""
        kind, suffix = (
            ("latents", "safetensors") if stage in ("denoise", "refine") else ("images", "png")
        )
        return self.folder / kind / f"{artifact}.{suffix}"

    def has(self, stage: str, artifact: str) -> bool:
        """Whether a stage's file artifact is there, and as long as it says itself that it is: one
        cut short elsewhere is not."""
        path = self.path(stage, artifact)
        try:
            with path.open("rb") as file:
                if path.suffix == ".png":
                    file.seek(-len(PNG_END), os.SEEK_END)
                    return file.read() == PNG_END
                header = file.read(int.from_bytes(file.read(8), "little"))
                ends = [
                    0,
                    *(
                        tensor["data_offsets"][1]
                        for name, tensor in json.loads(header).items()
                        if name != "__metadata__"
                    ),
                ]
                return 8 + len(header) + max(ends) == path.stat().st_size
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            MemoryError,
        ):
            return False

    def last_rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each artifact id: the one that counts."""
        return {row["id"]: row for row in self.rows.read()}

    def put(self, path: Path, data: bytes) -> None:
        """Write one of its files whole. Raises WriteError, also where a folder held for writing was
        moved away meanwhile: none is begun in its place."""
        if self._held is not None and _identity(self.folder / LOCK) != self._held:
            raise WriteError(
                path,
                OSError(
                    errno.ENOENT, "the results folder was moved or removed while it was written to"
                ),
            )
        write_atomically(path, lambda file: file.write(data))

    def add_cells(self, new: Iterable[dict[str, Any]]) -> None:
        """Keep cells that were planned together, all or none: a part of a plan would be completed
        by other batches."""
        text = "".join(
            json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
            for record in [*self.cells.read(), *new]
        )
        self.put(self.cells.path, text.encode())

    def write_text(self, name: str, text: str) -> None:
        self.put(self.folder / name, text.encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for one writer. Raises RequestError when it cannot be written or another
        run holds it."""
        lock = FileLock(
            self.folder / LOCK, timeout=0
        )  # the system's: whatever ends the process that holds it frees it
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise RequestError(
                f"Another run is writing to {str(self.folder)!r}: wait for it, or give another"
                " folder"
            ) from None
        except OSError as error:
            raise RequestError(
                f"Results folder {str(self.folder)!r} cannot be written: {error.strerror}"
            ) from error
        try:
            for stray in (*self.folder.glob(".part-*"), *self.folder.glob("*/.part-*")):
                stray.unlink(missing_ok=True)
            self._held = _identity(self.folder / LOCK)
            yield
        finally:
            self._held = None
            lock.release()
