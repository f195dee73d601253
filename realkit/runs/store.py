"""A results folder on disk: append-only lines, files that are whole or absent, and one writer at a
time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from realkit.base.errors import RequestError, one_line
from realkit.base.files import Lines, WriteError, write_atomically
from realkit.runs import records
from realkit.runs.records import CELL, LOOK, ROW, RUN, VOTE

Row = dict[str, Any]
LOCK, VOTING = ".lock", ".votes.lock"
# Files by which a results folder is known, and those that every run writes anew.
OURS = (
    "cells.jsonl",
    "rows.jsonl",
    "runs.jsonl",
    "votes.jsonl",
    "entries.jsonl",
    "sweep.lock.json",
)
SWEEP = "sweep.yaml"
TABLES = ("table.csv", "table.parquet")
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, https://www.w3.org/TR/png/#11IEND


class Cells(Lines):
    """Lines of which the first of each id counts."""

    def read(self) -> list[dict[str, Any]]:
        records: dict[str, dict[str, Any]] = {}
        for record in super().read():
            records.setdefault(record["id"], record)
        return list(records.values())


class Store:
    """The files of one results folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.cells = Cells(self.folder / "cells.jsonl", CELL)
        self.rows = Lines(self.folder / "rows.jsonl", ROW)
        self.runs = Lines(self.folder / "runs.jsonl", RUN)
        self.looks = Lines(self.folder / "decisions.jsonl", LOOK)
        self.votes = Lines(self.folder / "votes.jsonl", VOTE)
        self._held: tuple[int, int] | None = None  # the lock file's inode, while this holds it

    def path(self, stage: str, artifact: str) -> Path:
        """The path of a stage's file."""
        if stage in ("denoise", "refine"):
            return self.folder / "latents" / f"{artifact}.safetensors"
        if stage == "embed":
            return self.folder / "embeddings" / f"{artifact}.safetensors"
        return self.folder / "images" / f"{artifact}.png"

    def has_file(self, stage: str, artifact: str) -> bool:
        """Whether a stage's file exists and is as long as its header says: a copy may be cut
        short."""
        path = self.path(stage, artifact)
        try:
            return _ends_as_png(path) if path.suffix == ".png" else _is_safetensors(path)
        except OSError:
            return False

    def pictures(self) -> set[str]:
        """The ids of the pictures whose files are there, and whole."""
        names = {path.stem for path in (self.folder / "images").glob("*.png")}
        return {name for name in names if self.has_file("upscale", name)}

    def last_rows(self) -> dict[str, Row]:
        """The last row of each artifact id, which is the one that counts. Raises RequestError for
        an id of two kinds of artifacts."""
        try:
            return records.last_rows(self.rows.read())
        except ValueError as error:
            raise RequestError(f"{self.folder}: {error}. Restore the file") from None

    def ok_rows(self) -> dict[str, Row]:
        """The last rows without those that failed."""
        return {name: row for name, row in self.last_rows().items() if row["status"] == "ok"}

    def batches(self) -> dict[str, int]:
        """The batch of each latents id that was planned."""
        return {cell["ids"]["latents"]: cell["batch"] for cell in self.cells.read()}

    def machines(self) -> list[dict[str, Any]]:
        """The records of runs with their machines, in the order they began."""
        return [run for run in self.runs.read() if "versions" in run]

    def asked(self) -> list[dict[str, Any]]:
        """What each run was asked for, in the order they began; none before folder format 2."""
        return [run for run in self.runs.read() if "asked" in run]

    def add_runs(self, runs: Iterable[dict[str, Any]]) -> None:
        """Append the records that say more of a run than the folder does: its machine, or what it
        was asked for."""
        told: dict[str, list[Any]] = {}
        for run in self.runs.read():
            told.setdefault(run["run"], [None]).append(run.get("asked"))
        new = [run for run in runs if run.get("asked") not in told.get(run["run"], ())]
        if new:
            self.runs.append(new)

    def add_votes(self, votes: Iterable[dict[str, Any]]) -> int:
        """Append the votes that the folder does not have yet; their number. Raises RequestError for
        what is no vote, before any is written."""
        votes = list(votes)
        if not votes:
            return 0
        try:
            self.votes.lines_of(votes)
        except ValueError as error:
            raise RequestError(f"A vote is damaged: {one_line(error, 200)}") from None
        try:
            with FileLock(self.folder / VOTING, timeout=10):
                keys = {vote_key(vote) for vote in self.votes.read()}
                new = {vote_key(vote): vote for vote in votes if vote_key(vote) not in keys}
                if new:
                    self.votes.append(new.values())
        except (OSError, Timeout) as error:
            raise RequestError(
                f"Votes in {str(self.folder)!r} cannot be written ({one_line(error, 120)}): try"
                " again, or make room"
            ) from error
        return len(new)

    def merge_votes(self, paths: Iterable[Path]) -> int:
        """Add the votes that voters saved in files; their number. Raises RequestError, before any
        is written, where a file cannot be read or holds anything else."""
        votes: list[dict[str, Any]] = []
        for path in paths:
            if not path.is_file():
                raise RequestError(f"No file of votes at {str(path)!r}")
            votes += Lines(path, VOTE).read()
        return self.add_votes(votes)

    def put(self, path: Path, data: bytes) -> None:
        """Write one of the folder's files whole. Raises WriteError, also where a folder held for
        writing was moved away: nothing is written in its place."""
        if self._held is not None and _inode(self.folder / LOCK) != self._held:
            reason = "the results folder was moved or removed while it was written to"
            raise WriteError(path, OSError(errno.ENOENT, reason))
        write_atomically(path, lambda file: file.write(data))

    def add_cells(self, new: Iterable[dict[str, Any]]) -> None:
        """Add cells that were planned together, all or none: the rest of a plan cut short would get
        other batches."""
        self.put(self.cells.path, self.cells.lines_of((*self.cells.read(), *new)))

    def write_text(self, name: str, text: str) -> None:
        self.put(self.folder / name, text.encode())

    @contextmanager
    def writing(self, page: str = SWEEP) -> Iterator[None]:
        """Hold the folder for one writer, who writes `page`, if any, and TABLES anew. Raises
        RequestError where it cannot be written, where another run holds it, and where it is no
        results folder and has such a file."""
        self._check_own(page)
        # The system's lock: it is released whenever the process ends, however it ends.
        lock = FileLock(self.folder / LOCK, timeout=0)
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
            for part in (*self.folder.glob(".part-*"), *self.folder.glob("*/.part-*")):
                part.unlink(missing_ok=True)
            self._held = _inode(self.folder / LOCK)
            yield
        finally:
            self._held = None
            lock.release()

    def _check_own(self, page: str) -> None:
        """Raise RequestError for a folder of someone else's, where a file would be replaced."""
        if any((self.folder / name).exists() for name in OURS):
            return
        for name in (page, *TABLES):
            if name and (self.folder / name).exists():
                raise RequestError(
                    f"{str(self.folder)!r} is no results folder, and its {name!r} would be"
                    " replaced: give another folder"
                )


def vote_key(vote: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a vote from others: nobody votes twice on a pair at one moment."""
    return vote["voter"], vote["at"], vote["a"], vote["b"]


def _ends_as_png(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-len(PNG_END), os.SEEK_END)
        return file.read() == PNG_END


def _is_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # compares the header with the file's length
            return True
    except SafetensorError:
        return False


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
