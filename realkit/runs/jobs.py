"""The values that a run passes around: planned cells, jobs, what a stage made, and what a stage
is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realkit.models import provenance
from realkit.sweeps.cell import Cell
from realkit.sweeps.ids import Ids

if TYPE_CHECKING:
    from PIL.Image import Image

    from realkit.models.lock import ModelLock
    from realkit.weights.lock import Lock

    UpscalerLocks = dict[str, dict[str, Lock]]

Row = dict[str, Any]
Files = Mapping[tuple[str, str], bytes]  # (stage, artifact) → what that stage filed


@dataclass(frozen=True)
class Planned:
    """A cell with its ids and the denoising batch it belongs to."""

    cell: Cell
    ids: Ids
    batch: int


@dataclass(frozen=True)
class Job:
    """One batch of one stage: the artifact ids it makes, the cells they belong to, how heavy it
    is."""

    tool: str
    makes: tuple[str, ...]
    planned: tuple[Planned, ...]
    weight: int = 1


@dataclass(frozen=True)
class Kit:
    """All that any worker must be told to do a job of a run: what names mean, and where (device,
    rung) tools are asked to stand."""

    locks: dict[str, ModelLock]
    tools: UpscalerLocks
    scoring: dict[str, Lock | None]  # scorers, with the lock of those whose weights lie in a folder
    where: dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A row and the contents of its file, if it has one: bytes, or a picture that `encoded` turns
    into them with `record` inside."""

    row: Row
    file: bytes | Image | None = None
    record: dict[str, Any] | None = None

    def encoded(self, run: str) -> Made:
        """The same as bytes; the run that made it goes into a picture's record, the hash of its
        pixels into both record and row."""
        if self.file is None or isinstance(self.file, bytes):
            return self
        pixels, whole = provenance.pixel_hash(self.file), io.BytesIO()
        provenance.save(
            provenance.annotate(self.file, {**(self.record or {}), "run": run, "pixels": pixels}),
            whole,
        )
        return Made(self.row | {"pixels": pixels}, whole.getvalue())


class Damaged(OSError):
    """A file of an earlier stage that cannot be read: it is to be removed, so that the next run
    makes it again."""

    def __init__(self, stage: str, artifact: str) -> None:
        super().__init__(
            f"{artifact} of the stage {stage} was damaged and is removed: run again to make it anew"
        )
        self.artifact = (stage, artifact)

    def __reduce__(self) -> Any:
        return type(self), self.artifact


@dataclass(frozen=True)
class Stage:
    """`jobs(planned)` lists all work of the stage, done or not; `reads(job)` the files it needs;
    `load(tool)` its tool; `work(tool, job, files)` one row an artifact.

    `locks(tool)` are the references that loading a tool reads.
    """

    name: str
    jobs: Callable[[list[Planned]], list[Job]]
    reads: Callable[[Job], tuple[tuple[str, str], ...]]
    locks: Callable[[str], list[Lock]]
    load: Callable[[str], Any]
    work: Callable[[Any, Job, Files], list[Made]]
