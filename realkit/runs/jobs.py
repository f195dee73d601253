"""The values that a run passes around: planned cells, tools, jobs, results of jobs, and the
contract of a stage."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from realkit.models import provenance
from realkit.models.lock import ModelLock
from realkit.runs.store import Row
from realkit.sweeps.cell import Cell
from realkit.sweeps.ids import Ids, cell_id
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    from PIL.Image import Image

FileKey = tuple[str, str]  # the stage that wrote a file, and its artifact id


@dataclass(frozen=True)
class Stored:
    """An artifact's file as it was read, or why it could not be, and the hash that its row has: of
    a picture's pixels, of the file of latents; None in rows of before folder format 2."""

    found: bytes | OSError
    hash: str | None = None

    def read(self) -> bytes:
        """The file's contents. Raises what reading it raised."""
        if isinstance(self.found, OSError):
            raise self.found
        return self.found


Files = Mapping[FileKey, Stored]

# What each stage makes, and what it makes it from: (stage that wrote the file, field of Ids).
ARTIFACTS = {"denoise": "begun", "refine": "latents", "decode": "decoded", "upscale": "image"}
SOURCES = {
    "refine": ("denoise", "begun"),
    "decode": ("denoise", "latents"),
    "upscale": ("decode", "decoded"),
    "score": ("upscale", "image"),
    "embed": ("upscale", "image"),
}


@dataclass(frozen=True)
class Tool:
    """What a stage loads for a job: the value that jobs are grouped by.

    `model` is the model that an upscaler redraws with, "" for any other tool. `dtype` is the
    number format where the sweep sets one.
    """

    kind: Literal["model", "vae", "upscaler", "scorer", "encoder"]
    name: str
    model: str = ""
    dtype: str | None = None

    def __str__(self) -> str:
        """A label for people. It is never parsed: names may hold any word."""
        by = f" by {self.model}" if self.model else ""
        number_format = f" in {self.dtype}" if self.dtype else ""
        return f"{self.name}{by}{number_format}"


@dataclass(frozen=True)
class Planned:
    """A cell with its ids, and the number and size of its denoising batch."""

    cell: Cell
    ids: Ids
    batch: int
    batch_size: int = 1

    @property
    def id(self) -> str:
        """The name of the cell."""
        return cell_id(vars(self.cell), self.ids.image)

    def artifact(self, stage: str) -> str:
        """The id of the file that a stage makes for this cell. One leg alone leaves latents."""
        return getattr(self.ids, ARTIFACTS[stage]) or self.ids.latents

    def source(self, stage: str) -> FileKey:
        """The file that a stage reads for this cell; only the first leg reads none."""
        writer, name = SOURCES[stage]
        return writer, getattr(self.ids, name)

    def parent(self, stage: str) -> str | None:
        """The id of that file's artifact; None for the first leg."""
        return self.source(stage)[1] if stage in SOURCES else None


@dataclass(frozen=True)
class Job:
    """One batch of one stage: `artifacts[i]` is the id of what it makes for the cell
    `planned[i]`.

    `weight` counts the steps of the progress bar. `facts` are fields of an artifact's row, whether
    it succeeds or fails.
    """

    tool: Tool
    artifacts: tuple[str, ...]
    planned: tuple[Planned, ...]
    weight: int = 1
    facts: Mapping[str, Row] = field(default_factory=dict)

    def row(self, artifact: str, item: Planned, stage: str) -> Row:
        """What the row of an artifact holds in any case."""
        return {"id": artifact, "parent": item.parent(stage), **self.facts.get(artifact, {})}

    def apart(self) -> list[Job]:
        """A job for each artifact."""
        parts = []
        for artifact, item in zip(self.artifacts, self.planned, strict=True):
            parts.append(replace(self, artifacts=(artifact,), planned=(item,), weight=1))
        return parts


def jobs_of_one(artifacts: Iterable[tuple[str, Tool, Planned]]) -> list[Job]:
    """A job for each artifact id, (id, tool, cell) in; the jobs of one tool together, tools in the
    order of their first use."""
    jobs: dict[str, Job] = {}
    for artifact, tool, item in artifacts:
        jobs.setdefault(artifact, Job(tool, (artifact,), (item,)))
    return by_tool(jobs.values())


def batched(artifacts: Iterable[tuple[str, Tool, Planned, Row]]) -> list[Job]:
    """Jobs of many artifacts, (id, tool, cell, facts) in: a batch is the denoising batch, its
    pictures of one upscaler and size."""
    batches: dict[Any, dict[str, tuple[Planned, Row]]] = {}
    for artifact, tool, item, facts in artifacts:
        cell = item.cell
        batch = tool, item.batch, cell.upscaler, cell.pixels, cell.strength
        batches.setdefault(batch, {}).setdefault(artifact, (item, facts))
    jobs = []
    for (tool, *_), members in batches.items():
        items = tuple(item for item, _ in members.values())
        rows = {artifact: row for artifact, (_, row) in members.items()}
        jobs.append(Job(tool, tuple(members), items, len(items), rows))
    return by_tool(jobs)


def by_tool(jobs: Iterable[Job]) -> list[Job]:
    """The jobs of one tool together, tools in the order of their first use."""
    jobs = list(jobs)
    places: dict[Tool, int] = {}
    for job in jobs:
        places.setdefault(job.tool, len(places))
    return sorted(jobs, key=lambda job: places[job.tool])


@dataclass(frozen=True)
class Kit:
    """All that a worker needs to do the jobs of a run: the locks of each name, and where (device,
    rung) tools are placed."""

    models: dict[str, ModelLock]
    upscalers: dict[str, dict[str, Lock]]  # of each tool
    scorers: dict[str, dict[str, Lock]]  # of each part
    where: dict[str, Any]
    encoders: dict[str, Lock | None] = field(default_factory=dict)  # the same


def sha256(file: bytes) -> str:
    """The hash that an artifact carries in its row: of its file, as hexadecimal digits."""
    return hashlib.sha256(file).hexdigest()


@dataclass(frozen=True)
class Output:
    """A row and the contents of its file, if it has one: bytes, or a picture that `encoded` turns
    into bytes with `record` inside."""

    row: Row
    file: bytes | Image | None = None
    record: dict[str, Any] | None = None

    def encoded(self, run: str) -> Output:
        """The same with its picture as PNG bytes, and the hash of its contents in its row: of a
        picture's pixels, since its record names the run; of the file of latents."""
        if self.file is None or not self.row.keys().isdisjoint(("sha256", "pixels")):
            return self
        if isinstance(self.file, bytes):
            return Output(self.row | {"sha256": sha256(self.file)}, self.file)
        pixels, png = provenance.pixel_hash(self.file), io.BytesIO()
        record = {**(self.record or {}), "run": run, "pixels": pixels}
        provenance.save(provenance.annotate(self.file, record), png)
        return Output(self.row | {"pixels": pixels}, png.getvalue())


class Damaged(OSError):
    """A file of an earlier stage that cannot be decoded, or that is not the one that was written.
    The run removes it, so that the next run makes it again."""

    def __init__(self, stage: str, artifact: str) -> None:
        super().__init__(
            f"{artifact} of the stage {stage} was damaged and is removed: run again to make it anew"
        )
        self.artifact = (stage, artifact)

    def __reduce__(self) -> Any:
        return type(self), self.artifact


class Stage(Protocol):
    """One step of a cell's way, the same in this process and in a worker.

    A batch of a `separable` stage that fails is done again, each artifact alone, so that only what
    is at fault fails. Of a batch that was done before, only what is missing is filed.
    """

    name: str
    separable: bool

    def jobs(self, planned: list[Planned]) -> list[Job]:
        """All work of the stage for these cells, done or not."""

    def locks(self, tool: Tool) -> list[Lock]:
        """The references that loading a tool reads."""

    def load(self, tool: Tool) -> Any:
        """Load a tool. Raises what its libraries raise."""

    def work(self, tool: Any, job: Job, files: Files) -> list[Output]:
        """Do a job with a loaded tool: one row an artifact. Raises Damaged for a bad file."""
