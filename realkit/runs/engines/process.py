"""The engine that works in this process, one tool at a time."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import device, measure
from realkit.models import ladder
from realkit.runs import environment
from realkit.runs.engines import engine
from realkit.runs.engines.engine import Result
from realkit.runs.jobs import Files, Job, Kit, Stage, Tool
from realkit.runs.stopping import Stop
from realkit.weights import pickles, resolve
from realkit.weights.folders import canonical
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch

PIECE = 16 * 2**20  # bytes read ahead at a time


@dataclass
class Process:
    """One tool at a time, in this process. Meanwhile a thread fetches and reads the files of the
    next tool, so that they lie in the system's memory."""

    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    _run: str = ""
    _load_s: float = 0.0  # the longest load of a tool so far
    _frozen: bool = False

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        self._device: torch.device = device.device_for(where["device"])
        ladder.checked_rung(where["rung"], self._device)
        self._run, self.environments = run, {run: environment.environment(self._device)}

    def batch_limit(self, pixels: int) -> int:
        return device.batch_limit(self._device, pixels)

    def equip(self, kit: Kit) -> None:
        from realkit.runs.stages import stages  # torch

        self._stages = {stage.name: stage for stage in stages(kit)}
        if not gc.get_freeze_count():
            # What lives before the first tool is loaded needs no search after each: that is a
            # third of a second for the libraries' objects alone.
            gc.freeze()
            self._frozen = True

    def stage(self, name: str) -> Stage:
        return self._stages[name]

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
        at, longest = self._stages[stage], 0.0
        turns = [(tool, list(turn)) for tool, turn in itertools.groupby(jobs, lambda job: job.tool)]
        ahead = Ahead()
        last: tuple[Tool | None, list[Job]] = (None, [])
        for (tool, turn), (next_tool, _) in zip(turns, [*turns[1:], last], strict=True):
            while not stop.due(longest + self._load_s) and not ahead.done(wait=0.5):
                pass
            if stop.reason:
                break
            start = time.monotonic()
            loaded, trouble = engine.load_tool(at, tool)
            self._load_s = max(self._load_s, time.monotonic() - start)
            ahead = Ahead(at.locks(next_tool) if next_tool else ())
            for job in turn:
                if stop.due(longest):
                    break
                result = engine.attempt(at, loaded, trouble, job, read(job), self._run)
                longest = max(longest, result.seconds)
                yield result
            del loaded
            device.release()
        ahead.done()

    def close(self) -> None:
        self._stages = {}
        device.release()
        if self._frozen:
            gc.unfreeze()
            self._frozen = False


class Ahead:
    """A thread that fetches the files of locks and reads them once, from the network or a slow
    disk, while the GPU is busy. It reports no error: loading the tool will."""

    def __init__(self, locks: Iterable[Lock] = ()) -> None:
        self._locks, self._enough = list(locks), threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        if self._locks:
            self._thread.start()

    def done(self, wait: float = 0.0) -> bool:
        """Read no further; whether the thread has ended, within `wait` seconds. A fetch is not
        interrupted: the caller waits for it, so that nothing is fetched twice."""
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
                    for path in _files(lock):
                        self._read(path)
        except Exception:  # raised again, and reported, when the tool is loaded
            return

    def _read(self, path: Path) -> None:
        free = measure.ram_free()
        if free is not None and path.stat().st_size / 2**30 > free / 2:
            return  # it would evict what is in use
        with path.open("rb", buffering=0) as file:
            while not self._enough.is_set() and file.read(PIECE):
                pass


def _files(lock: Lock) -> list[Path]:
    """The files of a lock, fetched."""
    path = resolve.fetch(lock)
    if path.is_file():
        return [path]
    return [path / canonical(name, lock.variant) for name in sorted(lock.files)]
