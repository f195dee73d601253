"""What runs in a worker process of a cluster: the same stages, by the same code, with files that
come and go as bytes."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import credentials, device
from realkit.base.credentials import NAMES
from realkit.base.version import __version__
from realkit.catalog.lookup import USER_CATALOG
from realkit.runs.engines import batch, ray_files
from realkit.runs.engines.batch import Result
from realkit.runs.engines.process import Process
from realkit.weights.lock import Lock
from realkit.weights.pickles import ALLOW_PICKLE

if TYPE_CHECKING:
    from realkit.runs.jobs import Files, Job, Kit


@dataclass(frozen=True)
class Settings:
    """What a worker's process is told first."""

    catalog: dict[str, str]  # the user's own catalogue files
    environment: dict[str, str] = field(repr=False)  # tokens, and whether pickles may be read
    where: dict[str, Any]
    threads: int  # of torch on a CPU, as in the driver: sums depend on how they are split

    @classmethod
    def of_driver(cls, where: dict[str, Any]) -> Settings:
        """What holds in this process."""
        import torch

        own = os.environ.get(USER_CATALOG)
        catalog = (
            {
                path.name: path.read_text(encoding="utf-8")
                for path in sorted(Path(own).glob("*.toml"))
            }
            if own
            else {}
        )
        told = {
            names[0]: token
            for service, names in NAMES.items()
            if (token := credentials.token(service))
        }
        if allowed := os.environ.get(ALLOW_PICKLE):
            told[ALLOW_PICKLE] = allowed
        return cls(catalog, told, where, torch.get_num_threads())


class Worker:
    """One process on one GPU, or on a CPU. Two jobs may be with it: while one's pictures are
    encoded the other is drawn."""

    def __init__(self, settings: Settings) -> None:
        os.environ.update(settings.environment)
        if settings.catalog:
            folder = Path(tempfile.mkdtemp(prefix="realkit-catalog-"))
            for name, text in settings.catalog.items():
                (folder / name).write_text(text, encoding="utf-8")
            os.environ[USER_CATALOG] = str(folder)
        self._settings, self._here = settings, Process()
        self._drawing = threading.Lock()
        self._tool: tuple[str, str] = ("", "")
        self._loaded: tuple[Any, Exception | None] = (None, None)

    def facts(self, kit: Kit | None) -> dict[str, Any]:
        """Who this is. With a kit, it is equipped too."""
        import ray
        import torch

        torch.set_num_threads(self._settings.threads)
        self._here.start("", self._settings.where, None)
        if kit is not None:
            self._here.equip(kit)
        found = self._here.environments[""] | {"engine": "ray"}
        return {
            "environment": found,
            "realkit": __version__,
            "node": ray.get_runtime_context().get_node_id(),
        }

    def batch_limit(self, pixels: int) -> int:
        return self._here.batch_limit(pixels)

    def work(self, stage: str, job: Job, files: Files | Exception, run: str) -> Result | list[Lock]:
        """A job's result with all pictures encoded, or the locks whose contents must be brought
        here first."""
        with self._drawing:
            at = self._here.stage(stage)
            if self._tool != (stage, job.tool):
                try:
                    if missing := ray_files.lacking(at.locks(job.tool)):
                        return missing
                    self._loaded = None, None
                    device.release()
                    self._loaded, self._tool = batch.load_tool(at, job.tool), (stage, job.tool)
                except Exception as error:  # of a machine whose cache or disk is broken
                    self._loaded, self._tool = (None, error), ("", "")
            result = batch.attempt(at, *self._loaded, job, partial(_given, files), run)
        made = [batch.encoded(stage, job, item, run) for item in result.made]
        if result.trouble is not None:
            self._tool = ("", "")  # tried anew when it is asked for again
        return Result(
            job,
            made,
            run,
            result.seconds,
            result.damaged,
            result.trouble and _portable(result.trouble),
        )

    def stage(self, step: str, *arguments: Any) -> Any:
        """One step of bringing a lock's contents here: "lacking", "begin", "receive" or "complete"
        of realkit.runs.engines.ray_files."""
        return getattr(ray_files, step)(*arguments)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same, which can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _given(files: Files | Exception) -> Files:
    if isinstance(files, Exception):
        raise files
    return files
