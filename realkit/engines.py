"""Who does a run's work. An engine is a way from batches to results: this process, or Ray's workers on the GPUs of one machine or of many."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from realkit import hub, loading, machine, measure, pipelines, placement, scorers, tokens
from realkit.errors import RequestError
from realkit.layout import canonical
from realkit.lookup import shown

if TYPE_CHECKING:
    import torch

    from realkit.stages import Files, Job, Kit, Made, Stage
    from realkit.stopping import Stop

PIECE = 16 * 2**20  # bytes read ahead at a time
PARENTS = {"denoise": None, "refine": "begun", "decode": "latents", "upscale": "decoded", "score": "image"}  # the id that a stage works from


@dataclass(frozen=True)
class Result:
    """What became of one batch: rows with their files, the run (machine) that made them, and the files of earlier stages found damaged."""

    job: Job
    made: list[Made]
    run: str
    seconds: float
    damaged: tuple[tuple[str, str], ...] = ()
    trouble: Exception | None = None  # why the tool could not be loaded


class Engine(Protocol):
    """`environments` holds what is recorded of each machine, by the name of its run; more may come while it works."""

    environments: dict[str, dict[str, Any]]

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        """Make ready. `versions` are those that a folder's results were made with. Raises RequestError where there is nothing to work on."""

    def batch_limit(self, pixels: int) -> int:
        """Images of so many pixels that a denoising batch may hold on every machine."""

    def equip(self, kit: Kit) -> None:
        """Take what the run's jobs are done with."""

    def work(self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop) -> Iterator[Result]:
        """Do the jobs of a stage, those of one tool one after another; none is begun once `stop` says so."""

    def close(self) -> None: ...


def chosen(engine: object) -> Engine:
    """The engine that "process", "ray", "ray:ADDRESS" or an instance names. Raises RequestError."""
    if engine == "process":
        return Here()
    if isinstance(engine, str) and (engine == "ray" or engine.startswith("ray:")):
        from realkit.cluster import Ray

        return Ray(engine.partition(":")[2] or None)
    if all(callable(getattr(engine, name, None)) for name in ("start", "equip", "work", "close")):
        return engine  # type: ignore[return-value]
    raise RequestError(f"engine {shown(engine)}: expected 'process', 'ray', 'ray:ADDRESS' or a realkit.cluster.Ray(…)")


# --- one batch, wherever it is done -----------------------------------------------------------------------------------


def attempt(stage: Stage, tool: Any, trouble: Exception | None, job: Job, files: Callable[[], Files], run: str) -> Result:
    """Do a job with a loaded tool, or with the `trouble` that loading it gave. A failure is a row an artifact."""
    began = time.monotonic()
    damaged: tuple[tuple[str, str], ...] = ()
    made, error = ([], trouble) if trouble else _tried(lambda: pipelines.climbing(tool, partial(stage.work, tool, job, files())))
    if error is not None:
        from realkit.stages import Damaged

        damaged = (error.artifact,) if isinstance(error, Damaged) else ()
        rung = {"rung": tool.rung} if isinstance(tool, pipelines.Placed) else {}
        made = [failed(stage.name, job, artifact, error, rung) for artifact in job.makes]
        error.__traceback__ = None  # its frames hold the batch's memory
    return Result(job, made, run, time.monotonic() - began, damaged, trouble)


def loaded(stage: Stage, name: str) -> tuple[Any, Exception | None]:
    """A stage's tool, or why it cannot be had."""
    return _tried(lambda: stage.load(name))


def failed(stage: str, job: Job, artifact: str, error: Exception, more: Mapping[str, Any] | None = None) -> Made:
    """The row of an artifact that could not be made."""
    from realkit.stages import Made

    item, parent = job.planned[0], PARENTS[stage]
    said = tokens.scrub(" ".join(str(error).split()))[:500]
    row = {
        "id": artifact,
        "parent": parent and getattr(item.ids, parent),
        "status": "failed",
        "error_type": type(error).__name__,
        "error": said,
        **(more or {}),
    }
    scored = {"scorer": job.tool, "prompt": item.cell.prompt if scorers.uses_prompt(job.tool) else None} if stage == "score" else {}
    return Made(row | scored)


def said(error: BaseException) -> str:
    """An error's message in one line of at most 500 characters, without secrets."""
    return tokens.scrub(" ".join(str(error).split()))[:500]


def encoded(stage: str, job: Job, made: Made, run: str) -> Made:
    """What was made as it is filed; what a picture cannot be encoded for is its row."""
    whole, error = _tried(lambda: made.encoded(run))
    return whole if error is None else failed(stage, job, str(made.row["id"]), error)


def _tried(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # whatever a model, an upscaler or a scorer raises becomes the cell's row
        return None, error


# --- this process -----------------------------------------------------------------------------------------------------


@dataclass
class Here:
    """The work in this process, one tool at a time. While one works, the files of the next are fetched and read, so that they lie in the system's memory."""

    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    _run: str = ""
    _load_s: float = 0.0  # the longest that loading a tool took so far

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        self._on: torch.device = loading.device_for(where["device"])
        loading.checked_rung(where["rung"], self._on)
        self._run, self.environments = run, {run: measure.environment(self._on)}

    def batch_limit(self, pixels: int) -> int:
        return placement.batch_limit(self._on, pixels)

    def equip(self, kit: Kit) -> None:
        from realkit.stages import stages

        self._stages = {stage.name: stage for stage in stages(kit)}

    def stage(self, name: str) -> Stage:
        return self._stages[name]

    def work(self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop) -> Iterator[Result]:
        at, longest = self._stages[stage], 0.0
        turns = [(name, list(turn)) for name, turn in itertools.groupby(jobs, lambda job: job.tool)]
        following = [name for name, _ in turns[1:]] + [""]
        ahead = Ahead()
        for (name, turn), after in zip(turns, following, strict=True):
            while not stop.due(longest + self._load_s) and not ahead.done(wait=0.5):
                pass
            if stop.reason:
                break
            began = time.monotonic()
            tool, trouble = loaded(at, name)
            self._load_s = max(self._load_s, time.monotonic() - began)
            ahead = Ahead(at.locks(after)) if after else Ahead()
            for job in turn:
                if stop.due(longest):
                    break
                result = attempt(at, tool, trouble, job, partial(read, job), self._run)
                longest = max(longest, result.seconds)
                yield result
            del tool
            placement.release()
        ahead.done()

    def close(self) -> None:
        self._stages = {}
        placement.release()


class Ahead:
    """Fetches what locks mean and reads the files once, in a thread: from the network or a slow disk while the GPU is busy. Finds nothing out: errors come when it is loaded."""

    def __init__(self, locks: list[hub.Lock] | None = None) -> None:
        self._locks, self._enough = locks or [], threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        if self._locks:
            self._thread.start()

    def done(self, wait: float = 0.0) -> bool:
        """Read no further; whether it has ended, within `wait` seconds. A fetch in work goes on: it is to be waited for, so that nothing is fetched twice."""
        self._enough.set()
        if self._thread.is_alive():
            self._thread.join(wait)
        return not self._thread.is_alive()

    def _go(self) -> None:
        try:
            with hub.reading_pickles():
                for lock in self._locks:
                    if self._enough.is_set():
                        return
                    path = hub.fetch(lock)
                    for file in [path] if path.is_file() else [path / canonical(name, lock.variant) for name in sorted(lock.files)]:
                        self._read(file)
        except Exception:
            return

    def _read(self, file: Any) -> None:
        free = machine.ram_free()
        if free is not None and file.stat().st_size / 2**30 > free / 2:
            return  # it would push out what is in use
        with file.open("rb", buffering=0) as opened:
            while not self._enough.is_set() and opened.read(PIECE):
                pass
