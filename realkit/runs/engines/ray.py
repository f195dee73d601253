"""The engine over Ray: an actor on each GPU, of this machine or of a cluster, keeps its tool loaded
and takes jobs as they come. Needs the extra `ray`."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from realkit.base.door import check_kind, door
from realkit.base.errors import RequestError, RunError, one_line, shown
from realkit.base.version import __version__
from realkit.runs import environment
from realkit.runs.engines import engine, ray_session
from realkit.runs.engines.engine import Result
from realkit.runs.engines.ray_crew import Crew, Member
from realkit.runs.engines.ray_worker import Settings, Worker
from realkit.runs.jobs import Files, Job, Kit
from realkit.runs.stopping import Stop
from realkit.weights.reference import existing_path

ADDRESS = re.compile(r"auto|local|(ray://)?[^\s:/]+:\d{1,5}|(ray://)?\[[0-9a-fA-F:.]+\]:\d{1,5}")
FATAL = 3  # workers that may end over a batch before the batch is a failure
PATIENCE_S = 60.0  # to wait for a first worker
GRACE_S = 15.0  # to wait for the others, once a worker is there


@door
@dataclass
class Ray:
    """Ray's workers as an engine.

    `address` is a cluster's: "host:port", "ray://…", or "auto" for the cluster started on this
    machine. None takes $RAY_ADDRESS, else starts Ray on this machine. `workers` is their number:
    by default one a GPU, or one a machine without GPUs. `num_gpus` is the share of a GPU that each
    worker takes; with 0.5, two small models share a GPU.

    A worker that ends is started again, on another machine if its own is gone, and its jobs are
    done again. Each worker fetches weights itself. Results travel back to this process, which alone
    writes, so machines share no disk. Raises RequestError for wrong settings, or without ray.
    """

    address: str | None = None
    workers: int | None = None
    num_gpus: float | None = None
    patience: float = PATIENCE_S
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "ray" not in sys.modules and existing_path("~/.ray/auth_token"):
            # `ray start` sets it for its own processes. Ray reads it when it is imported.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        try:
            import ray  # noqa: F401
        except ImportError:
            message = "engine 'ray' needs the package ray: pip install 'realkit[ray]'"
            raise RequestError(message) from None
        if self.address is not None and not ADDRESS.fullmatch(str(self.address)):
            raise RequestError(
                f"Ray address {shown(self.address)}: expected HOST:PORT, ray://HOST:PORT, 'auto' or"
                " 'local'"
            )
        if self.workers is not None and (type(self.workers) is not int or self.workers < 1):
            raise RequestError(f"workers {shown(self.workers)}: expected a whole number from 1 on")
        check_kind("patience", self.patience, float)
        share, number = self.num_gpus, isinstance(self.num_gpus, (int, float))
        if share is not None and not (number and 0 <= share <= 8):
            raise RequestError(
                f"num_gpus {shown(share)}: expected a number of GPUs a worker, such as 1 or 0.5"
            )
        self._own, self._kit = False, None
        self._crew = Crew([])
        self._waking: dict[Any, Member] = {}  # by the reference of the answer to come

    # --- the engine

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        import ray

        self._run, self._versions = run, versions
        self.environments.clear()
        if not ray.is_initialized():
            self._own = True
            ray_session.connect(self.address, self.workers)
        gpus = 0.0 if where["device"] == "cpu" else ray.cluster_resources().get("GPU", 0.0)
        share = self.num_gpus if self.num_gpus is not None else float(bool(gpus))
        if share and not gpus:
            whose = " in this cluster" if self.address else ""
            raise RequestError(
                f"num_gpus {share:g}: Ray sees no GPU{whose}. To find out why, run: realkit doctor"
            )
        actor = ray.remote(Worker).options(
            num_gpus=share,
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=2,
            scheduling_strategy="SPREAD",
        )
        count, settings = self.workers or ray_session.places(share), Settings.of_driver(dict(where))
        self._crew = Crew([Member(actor.remote(settings)) for _ in range(count)])
        for member in self._crew.members:
            self._waking[member.actor.facts.remote(None)] = member
        self._meet_all()

    def batch_limit(self, pixels: int) -> int:
        import ray

        limits: list[int] = []
        for member in self._crew.members:
            if member.state != "ready":
                continue
            try:
                limits.append(ray.get(member.actor.batch_limit.remote(pixels)))
            except ray.exceptions.RayError:
                self._wake(member)
        return min(limits, default=1)

    def equip(self, kit: Kit) -> None:
        import ray

        self._kit = ray.put(kit)
        for member in self._crew.members:
            self._wake(member, fresh=False)
        self._meet_all()
        if late := self._crew.count("waking"):
            print(
                f"realkit: {late} of {len(self._crew.members)} Ray workers have not started yet"
                f" ({ray_session.resources()}); they get work when they start",
                file=sys.stderr,
            )

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
        crew = self._crew
        crew.begin(jobs)
        flying: dict[Any, tuple[Member, Job, str]] = {}
        longest, active = 0.0, time.monotonic()
        while True:
            if not stop.due(longest):
                for member, job in crew.assignments():
                    ref = member.actor.work.remote(stage, job, read(job), member.run)
                    flying[ref] = member, job, member.run
            if not flying and (stop.reason or not crew.waiting):
                return
            if flying:
                active = time.monotonic()
            elif time.monotonic() - active > self.patience:
                raise RunError(
                    f"No Ray worker has come back within {self.patience:.0f} s. What is done is"
                    " kept: repair the cluster and run again"
                )
            for ref in _answered([*flying, *self._waking]):
                if ref in self._waking:
                    self._meet(ref)
                    continue
                member, job, run = flying.pop(ref)
                member.jobs -= 1
                result = self._outcome(ref, stage, member, job, run)
                if result is None or result.trouble:
                    crew.put_back(job)
                    if result and result.trouble:
                        crew.cannot_load(member, job.tool, result.trouble)
                else:
                    longest = max(longest, result.seconds)
                    yield result
            for job, error in crew.hopeless():
                yield _failure(stage, job, error, next(iter(self.environments)))

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            for member in self._crew.members:
                ray.kill(member.actor)
            if self._own:
                ray.shutdown()
        self._own, self._kit, self._crew = False, None, Crew([])
        self._waking.clear()

    # --- workers that come, answer and end

    def _outcome(self, ref: Any, stage: str, member: Member, job: Job, run: str) -> Result | None:
        """A job's result; None where its worker ended and the job has to be done again."""
        import ray

        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # a fault of the worker itself
            cause = RuntimeError(f"the Ray worker failed: {one_line(error.cause)}")
            return _failure(stage, job, cause, run)
        except ray.exceptions.RayError as error:
            self._wake(member)
            if self._crew.count_death(job) < FATAL:
                return None
            last = one_line(error, 200)
            cause = RuntimeError(
                f"{FATAL} Ray workers ended over this batch, the last with: {last}"
            )
            return _failure(stage, job, cause, run)

    def _wake(self, member: Member, fresh: bool = True) -> None:
        """Ask a ready worker for its facts, and equip it; it gets no work until it answers. With
        `fresh`, its process may be another one."""
        if member.state != "ready":
            return
        member.state, member.tool, member.kit = "waking", None, self._kit
        if fresh:
            member.run, member.unable = "", set()
        self._waking[member.actor.facts.remote(self._kit)] = member

    def _meet_all(self) -> None:
        """Wait for a worker, at most `patience`, and for a little longer for the others. Raises
        RequestError where none comes."""
        import ray

        end = time.monotonic() + self.patience
        while self._waking and (left := end - time.monotonic()) > 0:
            for ref in ray.wait([*self._waking], num_returns=1, timeout=min(left, 1.0))[0]:
                self._meet(ref, strict=True)
                end = min(end, time.monotonic() + GRACE_S)
        if not self._crew.count("ready"):
            raise RequestError(
                f"No Ray worker has started within {self.patience:.0f} s:"
                f" {ray_session.resources()}. Add machines to the cluster, or ask for fewer GPUs"
            )

    def _meet(self, ref: Any, strict: bool = False) -> None:
        """Take in a worker that has answered. With `strict`, raise RequestError for other
        versions than the driver's or the folder's; else do without that worker."""
        import ray

        member = self._waking.pop(ref)
        member.state = "gone"  # unless its answer is right
        try:
            facts = ray.get(ref)
            self._check_versions(facts)
        except ray.exceptions.ActorUnavailableError:  # it is being started again
            time.sleep(0.2)
            member.state = "ready"
            self._wake(member)
            return
        except RequestError as error:
            if strict:
                raise
            print(f"realkit: {error}; the others continue", file=sys.stderr)
            return
        except ray.exceptions.RayError as error:
            cause = ray_session.cause(error)
            print(f"realkit: a Ray worker cannot start: {cause}", file=sys.stderr)
            return
        member.state = "ready"
        if member.kit is not self._kit:  # it was asked before there was a kit
            self._wake(member, fresh=False)
        if not member.run:
            member.run = f"{self._run}-{len(self.environments)}"
            self.environments[member.run] = facts["environment"]

    def _check_versions(self, facts: dict[str, Any]) -> None:
        if facts["realkit"] != __version__:
            raise RequestError(
                f"A Ray worker has realkit {facts['realkit']}, this is {__version__}: install the"
                " same everywhere"
            )
        first = next(iter(self.environments.values()), facts["environment"])
        expected = self._versions or first["versions"]
        environment.same_versions(expected, facts["environment"]["versions"], "A Ray worker has")


def _answered(refs: list[Any]) -> list[Any]:
    """The reference of an answer that has come, or nothing after a moment."""
    import ray

    if refs:
        return ray.wait(refs, num_returns=1, timeout=0.5)[0]
    time.sleep(0.2)
    return []


def _failure(stage: str, job: Job, error: Exception, run: str) -> Result:
    return Result(job, engine.failures(stage, job, error), run, 0.0)
