"""One batch, wherever it is done: its result, the row of a failure, and the contract of an
engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from realkit.base.errors import one_line
from realkit.models import ladder
from realkit.models.ladder import Placed
from realkit.runs.jobs import Damaged, Files, Job, Kit, Output, Stage, Tool
from realkit.runs.stopping import Stop


@dataclass(frozen=True)
class Result:
    """The outcome of one batch: rows with their files, the run (machine) that made them, and the
    files of earlier stages found damaged."""

    job: Job
    outputs: list[Output]
    run: str
    seconds: float
    damaged: tuple[tuple[str, str], ...] = ()
    trouble: Exception | None = None  # why the tool could not be loaded


class Engine(Protocol):
    """Does the jobs of a run. `environments` holds the facts of each machine by the name of its
    run; machines may join during the work."""

    environments: dict[str, dict[str, Any]]

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        """Get ready. `versions` are the library versions that the folder's results were made with.
        Raises RequestError where there is no machine to work on."""

    def batch_limit(self, pixels: int) -> int:
        """How many images of so many pixels a denoising batch may hold on every machine."""

    def equip(self, kit: Kit) -> None:
        """Take what the run's jobs need."""

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
        """Do the jobs of a stage, the jobs of one tool in sequence; start no job once `stop` is
        due."""

    def close(self) -> None: ...


def attempt(
    stage: Stage, tool: Any, trouble: Exception | None, job: Job, files: Files, run: str
) -> Result:
    """Do a job with a loaded tool; `trouble` is the error of a tool that could not be loaded. A
    failure is a row for each artifact."""
    start = time.monotonic()
    outputs: list[Output] = []
    error = trouble
    if error is None:
        work = partial(stage.work, tool, job, files)
        outputs, error = _tried(lambda: ladder.climbing(tool, work))
        if error is not None and stage.separable and len(job.artifacts) > 1:
            error.__traceback__ = None  # its frames hold the batch's memory
            return _apart(stage, tool, job, files, run)
    damaged: tuple[tuple[str, str], ...] = ()
    if error is not None:
        rung = {"rung": tool.rung} if isinstance(tool, Placed) else {}
        outputs = failures(stage.name, job, error, rung)
        if isinstance(error, Damaged):
            damaged = (error.artifact,)
        error.__traceback__ = None  # its frames hold the batch's memory
    return Result(job, outputs, run, time.monotonic() - start, damaged, trouble)


def _apart(stage: Stage, tool: Any, job: Job, files: Files, run: str) -> Result:
    """Do a job's artifacts one by one."""
    start = time.monotonic()
    outputs: list[Output] = []
    damaged: list[tuple[str, str]] = []
    for part in job.apart():
        result = attempt(stage, tool, None, part, files, run)
        outputs += result.outputs
        damaged += result.damaged
    return Result(job, outputs, run, time.monotonic() - start, tuple(damaged))


def load_tool(stage: Stage, tool: Tool) -> tuple[Any, Exception | None]:
    """A loaded tool, or the error of loading it."""
    return _tried(lambda: stage.load(tool))


def failures(
    stage: str, job: Job, error: Exception, more: Mapping[str, Any] | None = None
) -> list[Output]:
    """The rows of a job that could not be done, one an artifact; `more` are fields of each."""
    message = {"error_type": type(error).__name__, "error": one_line(error)}
    outputs = []
    for artifact, item in zip(job.artifacts, job.planned, strict=True):
        row = job.row(artifact, item, stage) | {"status": "failed"}
        outputs.append(Output(row | message | dict(more or {})))
    return outputs


def encoded(stage: str, job: Job, output: Output, run: str) -> Output:
    """A result as it is filed. A picture that cannot be encoded becomes a failure."""
    filed, error = _tried(lambda: output.encoded(run))
    if error is None:
        return filed
    number = job.artifacts.index(str(output.row["id"]))
    return failures(stage, job, error)[number]


def _tried(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # what a model, an upscaler or a scorer raises becomes a row
        return None, error
