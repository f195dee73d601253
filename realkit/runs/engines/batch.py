"""One batch, wherever it is done: its result, what an engine is, and the row of a failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from realkit.base.errors import one_line
from realkit.models import ladder
from realkit.models.ladder import Placed
from realkit.scorers.score import uses_prompt

if TYPE_CHECKING:
    from realkit.runs.jobs import Files, Job, Kit, Made, Stage
    from realkit.runs.stopping import Stop

PARENTS = {
    "denoise": None,
    "refine": "begun",
    "decode": "latents",
    "upscale": "decoded",
    "score": "image",
}  # the id that a stage works from


@dataclass(frozen=True)
class Result:
    """What became of one batch: rows with their files, the run (machine) that made them, and the
    files of earlier stages found damaged."""

    job: Job
    made: list[Made]
    run: str
    seconds: float
    damaged: tuple[tuple[str, str], ...] = ()
    trouble: Exception | None = None  # why the tool could not be loaded


class Engine(Protocol):
    """`environments` holds what is recorded of each machine, by the name of its run; more may come
    while it works."""

    environments: dict[str, dict[str, Any]]

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        """Make ready. `versions` are those that a folder's results were made with. Raises
        RequestError where there is nothing to work on."""

    def batch_limit(self, pixels: int) -> int:
        """Images of so many pixels that a denoising batch may hold on every machine."""

    def equip(self, kit: Kit) -> None:
        """Take what the run's jobs are done with."""

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
        """Do the jobs of a stage, those of one tool one after another; none is begun once `stop`
        says so."""

    def close(self) -> None: ...


def attempt(
    stage: Stage,
    tool: Any,
    trouble: Exception | None,
    job: Job,
    files: Callable[[], Files],
    run: str,
) -> Result:
    """Do a job with a loaded tool, or with the `trouble` that loading it gave. A failure is a row
    an artifact."""
    began = time.monotonic()
    damaged: tuple[tuple[str, str], ...] = ()
    made, error = (
        ([], trouble)
        if trouble
        else _tried(lambda: ladder.climbing(tool, partial(stage.work, tool, job, files())))
    )
    if error is not None:
        from realkit.runs.jobs import Damaged

        damaged = (error.artifact,) if isinstance(error, Damaged) else ()
        rung = {"rung": tool.rung} if isinstance(tool, Placed) else {}
        made = [failed(stage.name, job, artifact, error, rung) for artifact in job.makes]
        error.__traceback__ = None  # its frames hold the batch's memory
    return Result(job, made, run, time.monotonic() - began, damaged, trouble)


def load_tool(stage: Stage, name: str) -> tuple[Any, Exception | None]:
    """A stage's tool, or why it cannot be had."""
    return _tried(lambda: stage.load(name))


def failed(
    stage: str, job: Job, artifact: str, error: Exception, more: Mapping[str, Any] | None = None
) -> Made:
    """The row of an artifact that could not be made."""
    from realkit.runs.jobs import Made

    item, parent = job.planned[0], PARENTS[stage]
    row = {
        "id": artifact,
        "parent": parent and getattr(item.ids, parent),
        "status": "failed",
        "error_type": type(error).__name__,
        "error": one_line(error),
        **(more or {}),
    }
    scored = (
        {"scorer": job.tool, "prompt": item.cell.prompt if uses_prompt(job.tool) else None}
        if stage == "score"
        else {}
    )
    return Made(row | scored)


def encoded(stage: str, job: Job, made: Made, run: str) -> Made:
    """What was made as it is filed; what a picture cannot be encoded for is its row."""
    whole, error = _tried(lambda: made.encoded(run))
    return whole if error is None else failed(stage, job, str(made.row["id"]), error)


def _tried(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except (
        Exception
    ) as error:  # whatever a model, an upscaler or a scorer raises becomes the cell's row
        return None, error
