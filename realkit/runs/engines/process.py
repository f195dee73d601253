"""The engine that works in this process, one tool at a time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from realkit.base import device, measure
from realkit.models import ladder
from realkit.runs import environment
from realkit.runs.engines.batch import Result, attempt, load_tool
from realkit.weights import pickles, resolve
from realkit.weights.folders import canonical
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch

    from realkit.runs.jobs import Files, Job, Kit, Stage
    from realkit.runs.stopping import Stop

PIECE = 16 * 2**20  # bytes read ahead at a time


@dataclass
class Process:
    """The work in this process, one tool at a time. While one works, the files of the next are
    fetched and read, so that they lie in the system's memory."""

    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    _run: str = ""
    _load_s: float = 0.0  # the longest that loading a tool took so far

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        self._on: torch.device = device.device_for(where["device"])
        ladder.checked_rung(where["rung"], self._on)
        self._run, self.environments = run, {run: environment.environment(self._on)}

    def batch_limit(self, pixels: int) -> int:
        return device.batch_limit(self._on, pixels)

    def equip(self, kit: Kit) -> None:
        from realkit.runs.stages import stages

        self._stages = {stage.name: stage for stage in stages(kit)}

    def stage(self, name: str) -> Stage:
        return self._stages[name]

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
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
            tool, trouble = load_tool(at, name)
            self._load_s = max(self._load_s, time.monotonic() - began)
            ahead = Ahead(at.locks(after)) if after else Ahead()
            for job in turn:
                if stop.due(longest):
                    break
                result = attempt(at, tool, trouble, job, partial(read, job), self._run)
                longest = max(longest, result.seconds)
                yield result
            del tool
            device.release()
        ahead.done()

    def close(self) -> None:
        self._stages = {}
        device.release()


class Ahead:
    """Fetches what locks mean and reads the files once, in a thread: from the network or a slow
    disk while the GPU is busy. Finds nothing out: errors come when it is loaded."""

    def __init__(self, locks: list[Lock] | None = None) -> None:
        self._locks, self._enough = locks or [], threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        if self._locks:
            self._thread.start()

    def done(self, wait: float = 0.0) -> bool:
        """Read no further; whether it has ended, within `wait` seconds. A fetch in work goes on: it
        is to be waited for, so that nothing is fetched twice."""
        self._enough.set()
        if self._thread.is_alive():
            self._thread.join(wait)
        return not self._thread.is_alive()

    def _go(self) -> None:
        try:
            with pickles.reading_pickles():
                for lock in self._locks:
                    if self._enough.is_set():
                        return
                    path = resolve.fetch(lock)
                    for file in (
                        [path]
                        if path.is_file()
                        else [path / canonical(name, lock.variant) for name in sorted(lock.files)]
                    ):
                        self._read(file)
        except Exception:
            return

    def _read(self, file: Any) -> None:
        free = measure.ram_free()
        if free is not None and file.stat().st_size / 2**30 > free / 2:
            return  # it would push out what is in use
        with file.open("rb", buffering=0) as opened:
            while not self._enough.is_set() and opened.read(PIECE):
                pass
