"""Ray's workers: an actor on each GPU, of this machine or of a cluster, keeps its tool loaded and
takes work as it comes. Needs the extra `ray`."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError, RunError, one_line, shown
from realkit.base.version import __version__
from realkit.runs import environment
from realkit.runs.engines import batch, ray_files, ray_session
from realkit.runs.engines.batch import Result
from realkit.runs.engines.ray_worker import Settings, Worker
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    from realkit.runs.jobs import Files, Job, Kit
    from realkit.runs.stopping import Stop

ADDRESS = re.compile(r"auto|local|(ray://)?[^\s:/]+:\d{1,5}|(ray://)?\[[0-9a-fA-F:.]+\]:\d{1,5}")
FATAL = 3  # workers that a batch may take with it before it is a failure
PATIENCE_S = 60.0  # to wait for workers that are not there yet
GRACE_S = 15.0  # for more of them, once one is there


@dataclass(eq=False)
class _Member:
    """A worker as the driver sees it."""

    actor: Any
    state: str = "waking"  # then ready; staging while files are brought to it; gone
    run: str = ""
    node: str = ""
    kit: Any = None  # what it was equipped with
    tool: str = ""
    jobs: int = 0  # that are with it
    unable: set[str] = field(default_factory=set)  # tools that it could not load
    alone: bool = False  # the one that is has ended a worker before: no other is put beside it


@dataclass
class Ray:
    """Ray's workers as an engine. `address` is a cluster's ("host:port", "ray://…", "auto": the one
    started on this machine); None: $RAY_ADDRESS, else a start of its own on this machine.

    `workers` are one a GPU, or one a machine where there are none; `num_gpus` is each one's share
    of a GPU, 1 or, to let two small models share one, 0.5. Workers that end are started again, on
    another machine if theirs is gone; what was with them is done again. Results come back to this
    process, which alone writes: no disk is shared.
    """

    address: str | None = None
    workers: int | None = None
    num_gpus: float | None = None
    patience: float = PATIENCE_S
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "ray" not in sys.modules and (Path.home() / ".ray" / "auth_token").is_file():
            os.environ.setdefault(
                "RAY_AUTH_MODE", "token"
            )  # as `ray start` sets it for its own processes; Ray reads it when it is imported
        try:
            import ray  # noqa: F401
        except ImportError:
            raise RequestError(
                "engine 'ray' needs the package ray: pip install 'realkit[ray]'"
            ) from None
        if self.address is not None and not ADDRESS.fullmatch(str(self.address)):
            raise RequestError(
                f"Ray address {shown(self.address)}: expected HOST:PORT, ray://HOST:PORT, 'auto' or"
                " 'local'"
            )
        if self.workers is not None and (type(self.workers) is not int or self.workers < 1):
            raise RequestError(f"workers {shown(self.workers)}: expected a whole number from 1 on")
        if self.num_gpus is not None and not (
            isinstance(self.num_gpus, (int, float)) and 0 <= self.num_gpus <= 8
        ):
            raise RequestError(
                f"num_gpus {shown(self.num_gpus)}: expected a number of GPUs a worker, such as 1"
                " or 0.5"
            )
        self._own, self._kit = False, None
        self._members: list[_Member] = []
        self._waking: dict[Any, _Member] = {}
        self._deaths: dict[tuple[str, ...], int] = {}  # of batches: workers that ended over them
        self._troubles: dict[str, Exception] = {}  # of tools: why a worker could not load them
        self._bringing: dict[Future[None], tuple[_Member, str, str]] = {}
        self._roads: dict[str, threading.Lock] = {}  # by machine
        self._closing = threading.Event()

    # --- the engine

    def start(self, run: str, where: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
        import ray

        self._run, self._versions = run, versions
        self.environments.clear()
        self._closing.clear()
        self._carriers = ThreadPoolExecutor(thread_name_prefix="bringing")
        if not ray.is_initialized():
            self._own = True
            ray_session.connect(self.address, self.workers)
        gpus = 0.0 if where["device"] == "cpu" else ray.cluster_resources().get("GPU", 0.0)
        share = self.num_gpus if self.num_gpus is not None else float(bool(gpus))
        if share and not gpus:
            raise RequestError(
                f"num_gpus {share:g}: Ray sees no GPU{' in this cluster' if self.address else ''}."
                " What is wrong, and the mend: realkit doctor"
            )
        count = self.workers or ray_session.places(share)
        actor = ray.remote(Worker).options(
            num_gpus=share,
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=2,
            scheduling_strategy="SPREAD",
        )
        settings = Settings.of_driver(dict(where))
        self._members = [_Member(actor.remote(settings)) for _ in range(count)]
        self._waking = {member.actor.facts.remote(None): member for member in self._members}
        self._meet_all()

    def batch_limit(self, pixels: int) -> int:
        import ray

        limits: list[int] = []
        for member in [member for member in self._members if member.state == "ready"]:
            try:
                limits.append(ray.get(member.actor.batch_limit.remote(pixels)))
            except ray.exceptions.RayError:
                self._wake(member)
        return min(limits, default=1)

    def equip(self, kit: Kit) -> None:
        import ray

        self._kit = ray.put(kit)
        for member in self._members:
            if member.state == "ready":
                self._wake(member, fresh=False)
        self._meet_all()
        if late := sum(member.state == "waking" for member in self._members):
            print(
                f"realkit: {late} of {len(self._members)} Ray workers are not there yet"
                f" ({ray_session.resources()}); they get work when they come",
                file=sys.stderr,
            )

    def work(
        self, stage: str, jobs: list[Job], read: Callable[[Job], Files], stop: Stop
    ) -> Iterator[Result]:
        queue: dict[str, deque[Job]] = {}
        for job in jobs:
            queue.setdefault(job.tool, deque()).append(job)
        flying: dict[Any, tuple[_Member, Job, str]] = {}
        self._deaths.clear()
        self._troubles.clear()
        for member in self._members:
            member.tool, member.jobs, member.unable = "", 0, set()
        longest, idle_since = 0.0, time.monotonic()
        while True:
            if not stop.due(longest):
                for member, job in self._assignments(queue):
                    flying[member.actor.work.remote(stage, job, _read(read, job), member.run)] = (
                        member,
                        job,
                        member.run,
                    )
            if not flying and (stop.reason or not any(queue.values())):
                return
            if flying or self._bringing:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > self.patience:
                raise RunError(
                    f"No Ray worker has come back within {self.patience:.0f} s. What is done is"
                    " kept: mend the cluster and run again"
                )
            self._brought(stage)
            for ref in self._next([*flying, *self._waking]):
                if ref in self._waking:
                    self._meet(ref)
                    continue
                member, job, run = flying.pop(ref)
                member.jobs -= 1
                found = self._outcome(ref, stage, member, job, run)
                if isinstance(found, Result) and found.trouble is None:
                    longest = max(longest, found.seconds)
                    yield found
                    continue
                queue[job.tool].appendleft(job)
                if isinstance(found, Result):
                    self._cannot(member, job.tool, found.trouble)
                elif found and member.state == "ready":
                    member.state = "staging"
                    self._bringing[self._carriers.submit(self._bring, member, found)] = (
                        member,
                        stage,
                        job.tool,
                    )
            yield from self._hopeless(stage, queue)

    def close(self) -> None:
        import ray

        self._closing.set()
        if ray.is_initialized():
            for member in self._members:
                ray.kill(member.actor)
            wait(self._bringing)
            if self._own:
                ray.shutdown()
        self._own, self._kit, self._members = False, None, []
        for kept in (self._waking, self._bringing, self._roads):
            kept.clear()

    # --- who does what

    def _assignments(self, queue: dict[str, deque[Job]]) -> Iterator[tuple[_Member, Job]]:
        """What goes to whom now: to the idle first, then one ahead to those that have more of their
        tool to come than others could take."""
        for ahead in (0, 1):
            for member in self._members:
                if member.state != "ready" or member.jobs != ahead:
                    continue
                tool = (
                    member.tool
                    if queue.get(member.tool)
                    else ""
                    if ahead
                    else self._tool(member, queue)
                )
                fatal = bool(tool) and self._deaths.get(queue[tool][0].makes, 0) > 0
                if (
                    not tool
                    or tool in member.unable
                    or (ahead and (fatal or member.alone or len(queue[tool]) < len(self._members)))
                ):
                    continue
                member.tool, member.jobs, member.alone = tool, member.jobs + 1, fatal
                yield member, queue[tool].popleft()

    def _tool(self, member: _Member, queue: dict[str, deque[Job]]) -> str:
        """The next tool that no worker has; else the one with the most work left for each that has
        it. Of those that this one can load; "": none."""
        held = [other.tool for other in self._members if other.state == "ready"]
        waiting = [tool for tool in queue if queue[tool] and tool not in member.unable]
        free = [tool for tool in waiting if tool not in held]
        return (
            free[0]
            if free
            else max(
                waiting,
                key=lambda tool: sum(job.weight for job in queue[tool]) / (held.count(tool) + 1),
                default="",
            )
        )

    def _cannot(self, member: _Member, tool: str, trouble: Exception | None) -> None:
        """A worker could not load a tool: others may."""
        self._troubles[tool] = trouble or RuntimeError("no worker could load it")
        if tool not in member.unable:
            member.unable.add(tool)
            member.tool = ""
            if any(tool not in other.unable and other.state != "gone" for other in self._members):
                print(
                    f"realkit: a Ray worker cannot load {tool}"
                    f" ({one_line(self._troubles[tool])}); others try",
                    file=sys.stderr,
                )

    def _hopeless(self, stage: str, queue: dict[str, deque[Job]]) -> Iterator[Result]:
        """Failures of the batches whose tool no worker can load."""
        for tool, error in self._troubles.items():
            while queue.get(tool) and all(
                tool in member.unable or member.state == "gone" for member in self._members
            ):
                yield _failure(stage, queue[tool].popleft(), error, next(iter(self.environments)))

    def _next(self, refs: list[Any]) -> list[Any]:
        """One of the answers that are awaited, or none yet."""
        import ray

        if refs:
            return ray.wait(refs, num_returns=1, timeout=0.5)[0]
        time.sleep(0.2)
        return []

    def _outcome(
        self, ref: Any, stage: str, member: _Member, job: Job, run: str
    ) -> Result | list[Lock]:
        """A job's result; or, where it has to be done again, the locks whose contents must be
        brought to its machine first."""
        import ray

        try:
            found = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # what no worker should raise
            return _failure(
                stage,
                job,
                RuntimeError(
                    "the Ray worker failed:"
                    f" {str(error.cause).splitlines()[0] if str(error.cause) else error}"
                ),
                run,
            )
        except ray.exceptions.RayError as error:
            self._wake(member)
            self._deaths[job.makes] = self._deaths.get(job.makes, 0) + 1
            if self._deaths[job.makes] >= FATAL:
                said = one_line(error, 200)
                return _failure(
                    stage,
                    job,
                    RuntimeError(
                        f"{FATAL} Ray workers ended over this batch, the last with: {said}"
                    ),
                    run,
                )
            return []
        return found

    def _wake(self, member: _Member, fresh: bool = True) -> None:
        """Ask a worker who it is, and equip it; until it answers it gets no work. `fresh`: it may
        be another process by now."""
        if member.state in ("ready", "staging"):
            member.state, member.tool = "waking", ""
            if fresh:
                member.run, member.unable = "", set()
            member.kit = self._kit
            self._waking[member.actor.facts.remote(self._kit)] = member

    def _meet_all(self) -> None:
        """Wait for a worker, at most `patience`, and a little for the others, who else come when
        they come. Raises RequestError where there is none."""
        import ray

        end = time.monotonic() + self.patience
        while self._waking and (left := end - time.monotonic()) > 0:
            for ref in ray.wait([*self._waking], num_returns=1, timeout=min(left, 1.0))[0]:
                self._meet(ref, strict=True)
                end = min(end, time.monotonic() + GRACE_S)
        if not any(member.state == "ready" for member in self._members):
            raise RequestError(
                f"No Ray worker has come within {self.patience:.0f} s: {ray_session.resources()}."
                " Give the cluster machines, or ask for fewer GPUs"
            )

    def _meet(self, ref: Any, strict: bool = False) -> None:
        """Take in a worker that has said who it is."""
        import ray

        member = self._waking.pop(ref)
        try:
            found = ray.get(ref)
            if found["realkit"] != __version__:
                raise RequestError(
                    f"A Ray worker has realkit {found['realkit']}, this is {__version__}: install"
                    " the same everywhere"
                )
            first = next(iter(self.environments.values()), found["environment"])
            environment.same_versions(
                self._versions or first["versions"],
                found["environment"]["versions"],
                "A Ray worker has",
            )
        except ray.exceptions.ActorUnavailableError:  # it is being started again
            time.sleep(0.2)
            member.state = "ready"
            self._wake(member)
            return
        except RequestError as error:
            if strict:
                raise
            member.state = "gone"
            print(f"realkit: {error}; the others go on", file=sys.stderr)
            return
        except ray.exceptions.RayError as error:
            member.state = "gone"
            print(
                f"realkit: a Ray worker cannot start: {ray_session.cause(error)}", file=sys.stderr
            )
            return
        member.state, member.node = "ready", found["node"]
        if member.kit is not self._kit:  # it came when there was none yet
            self._wake(member, fresh=False)
        if not member.run:
            member.run = f"{self._run}-{len(self.environments)}"
            self.environments[member.run] = found["environment"]

    # --- what machines lack

    def _bring(self, member: _Member, locks: list[Lock]) -> None:
        """Send a machine what it could not come by, once for all its workers."""
        import ray

        with self._roads.setdefault(member.node, threading.Lock()):
            for lock in ray.get(member.actor.stage.remote("lacking", locks)):
                place = ray.get(member.actor.stage.remote("begin", lock))
                sent: dict[str, Any] = {}
                for name, data in ray_files.pieces(lock):
                    if self._closing.is_set():
                        return
                    sent.setdefault(name, hashlib.sha256()).update(data)
                    ray.get(member.actor.stage.remote("receive", place, name, data))
                ray.get(
                    member.actor.stage.remote(
                        "complete",
                        lock,
                        place,
                        {name: sha.hexdigest() for name, sha in sent.items()},
                    )
                )

    def _brought(self, stage: str) -> None:
        """Let workers go on to which things were brought; where they could not be, others may have
        them."""
        import ray

        for carried in [carried for carried in self._bringing if carried.done()]:
            member, of, tool = self._bringing.pop(carried)
            member.state = "ready" if member.state == "staging" else member.state
            error = carried.exception()
            if isinstance(error, ray.exceptions.RayTaskError):
                error = error.cause
            if isinstance(error, ray.exceptions.RayError):
                self._wake(member)
            elif (
                isinstance(error, Exception) and of == stage
            ):  # another may have done its stage's work meanwhile
                self._cannot(member, tool, error)


def _read(read: Callable[[Job], Files], job: Job) -> Files | Exception:
    try:
        return read(job)
    except OSError as error:
        return error


def _failure(stage: str, job: Job, error: Exception, run: str) -> Result:
    return Result(
        job, [batch.failed(stage, job, artifact, error) for artifact in job.makes], run, 0.0
    )
