"""A worker process of Ray: the same stages by the same code. It fetches weights itself; a job's
files come and go as bytes."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realkit.base import credentials, device
from realkit.base.cache import CACHE
from realkit.base.credentials import NAMES
from realkit.base.errors import RequestError, one_line
from realkit.base.version import __version__
from realkit.catalog.lookup import USER_CATALOG
from realkit.runs.engines import engine
from realkit.runs.engines.engine import Result
from realkit.runs.engines.process import Process
from realkit.runs.jobs import Files, Job, Kit, Stage, Tool
from realkit.weights import pickles, resolve
from realkit.weights.lock import Lock
from realkit.weights.pickles import ALLOW_PICKLE
from realkit.weights.sources.inputs import INPUTS


@dataclass(frozen=True)
class Settings:
    """What the driver tells a worker first."""

    catalog: dict[str, str]  # the user's own catalogue files
    environment: dict[str, str] = field(repr=False)  # tokens, and whether pickles may be read
    where: dict[str, Any]
    threads: int  # of torch on a CPU: sums depend on how they are split

    @classmethod
    def of_driver(cls, where: dict[str, Any]) -> Settings:
        """The settings of this process."""
        import torch

        catalog, tokens = {}, {}
        if folder := os.environ.get(USER_CATALOG):
            for path in sorted(Path(folder).glob("*.toml")):
                catalog[path.name] = path.read_text(encoding="utf-8")
        for service, names in NAMES.items():
            if token := credentials.token(service):
                tokens[names[0]] = token
        if allowed := os.environ.get(ALLOW_PICKLE):
            tokens[ALLOW_PICKLE] = allowed
        return cls(catalog, tokens, where, torch.get_num_threads())


class Worker:
    """One process on one GPU, or on a CPU. It may hold two jobs: it encodes the pictures of one
    while it makes those of the other."""

    def __init__(self, settings: Settings) -> None:
        os.environ.update(settings.environment)
        if settings.catalog:
            folder = Path(tempfile.mkdtemp(prefix="realkit-catalog-"))
            for name, text in settings.catalog.items():
                (folder / name).write_text(text, encoding="utf-8")
            os.environ[USER_CATALOG] = str(folder)
        self._settings, self._process = settings, Process()
        self._one_at_a_time = threading.Lock()
        self._tool: tuple[str, Tool] | None = None  # with the stage that loaded it
        self._loaded: tuple[Any, Exception | None] = (None, None)

    def facts(self, kit: Kit | None) -> dict[str, Any]:
        """The facts of its machine. With a kit, it is equipped too."""
        import torch

        torch.set_num_threads(self._settings.threads)
        self._process.start("", self._settings.where, None)
        if kit is not None:
            self._process.equip(kit)
        environment = self._process.environments[""] | {"engine": "ray"}
        return {"environment": environment, "realkit": __version__}

    def batch_limit(self, pixels: int) -> int:
        return self._process.batch_limit(pixels)

    def work(self, stage: str, job: Job, files: Files, run: str) -> Result:
        """A job's result, its pictures encoded."""
        with self._one_at_a_time:
            at = self._process.stage(stage)
            if self._tool != (stage, job.tool):
                self._tool, self._loaded = None, (None, None)  # frees the memory of the last tool
                device.release()
                self._loaded = _load(at, job.tool)
            loaded, trouble = self._loaded
            self._tool = None if trouble else (stage, job.tool)  # a failed load is tried again
            result = engine.attempt(at, loaded, trouble, job, files, run)
        outputs = [engine.encoded(stage, job, output, run) for output in result.outputs]
        trouble = trouble and _portable(trouble)
        return Result(job, outputs, run, result.seconds, result.damaged, trouble)


def _load(stage: Stage, tool: Tool) -> tuple[Any, Exception | None]:
    """A stage's tool, or why this node cannot load it."""
    try:
        for lock in stage.locks(tool):
            reach(lock)
    except Exception as error:  # also of a broken cache or disk
        return None, error
    return engine.load_tool(stage, tool)


def reach(lock: Lock) -> None:
    """Fetch and verify a reference on this node. Raises RequestError where it cannot be had."""
    try:
        with pickles.reading_pickles():
            resolve.verify(lock)
            resolve.fetch(lock)
    except RequestError as error:
        raise RequestError(
            f"This node cannot fetch {lock.ref!r} ({one_line(error, 200)}). Give it as a hub id or"
            f" an absolute path that every node has, share ${CACHE}, or attach it to the node"
            f" (${INPUTS})"
        ) from error


def _portable(error: Exception) -> Exception:
    """The error, or one with the same message, that can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
