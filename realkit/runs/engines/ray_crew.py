"""Which of Ray's workers gets which job of a stage. Knows nothing of Ray."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from realkit.base.errors import one_line
from realkit.runs.jobs import Job, Tool


@dataclass(eq=False)
class Member:
    """A worker as the driver knows it."""

    actor: Any
    state: Literal["waking", "ready", "gone"] = "waking"
    run: str = ""
    kit: Any = None  # the kit that it has
    tool: Tool | None = None  # the last tool that it was given a job for
    jobs: int = 0  # with it now
    unable: set[Tool] = field(default_factory=set)  # tools that it could not load
    alone: bool = False  # its job has ended a worker before: it gets no second one


class Crew:
    """The workers of a run, and the jobs of the stage in work that no worker has."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.begin([])

    def begin(self, jobs: list[Job]) -> None:
        """Take the jobs of a stage."""
        self._queue: dict[Tool, deque[Job]] = {}
        for job in jobs:
            self._queue.setdefault(job.tool, deque()).append(job)
        self._deaths: Counter[tuple[str, ...]] = Counter()  # workers that ended over a batch
        self._troubles: dict[Tool, Exception] = {}  # why a worker could not load a tool
        for member in self.members:
            member.tool, member.jobs, member.unable = None, 0, set()

    def count(self, state: str) -> int:
        """How many workers are in a state."""
        return sum(member.state == state for member in self.members)

    @property
    def waiting(self) -> bool:
        """Whether a job waits for a worker."""
        return any(self._queue.values())

    def put_back(self, job: Job) -> None:
        self._queue[job.tool].appendleft(job)

    def count_death(self, job: Job) -> int:
        """How many workers ended over a batch, this one included."""
        self._deaths[job.artifacts] += 1
        return self._deaths[job.artifacts]

    def assignments(self) -> Iterator[tuple[Member, Job]]:
        """The jobs to start now. Each idle worker gets one; then each worker gets one ahead, where
        its tool has more jobs left than the others could take."""
        for member in self._ready(jobs=0):
            held = member.tool if member.tool and self._queue.get(member.tool) else None
            tool = held or self._next_tool(member)
            if tool and tool not in member.unable:
                yield member, self._assign(member, tool)
        for member in self._ready(jobs=1):
            queue = self._queue.get(member.tool) if member.tool else None
            if not queue or len(queue) < len(self.members) or member.tool in member.unable:
                continue
            # A batch that ended a worker is tried alone, so that no other batch is lost with it.
            if not member.alone and not self._deaths[queue[0].artifacts]:
                yield member, self._assign(member, queue[0].tool)

    def _ready(self, jobs: int) -> list[Member]:
        return [member for member in self.members if (member.state, member.jobs) == ("ready", jobs)]

    def _assign(self, member: Member, tool: Tool) -> Job:
        job = self._queue[tool].popleft()
        member.tool, member.jobs = tool, member.jobs + 1
        member.alone = self._deaths[job.artifacts] > 0
        return job

    def _next_tool(self, member: Member) -> Tool | None:
        """The next tool that no worker holds; else the tool with the most work left for each of its
        holders. None where this worker can load no tool that has jobs."""
        held = Counter(other.tool for other in self.members if other.state == "ready")
        most, choice = 0.0, None
        for tool, jobs in self._queue.items():
            if not jobs or tool in member.unable:
                continue
            if not held[tool]:
                return tool
            share = sum(job.weight for job in jobs) / (held[tool] + 1)
            if share > most:
                most, choice = share, tool
        return choice

    def cannot_load(self, member: Member, tool: Tool, error: Exception) -> None:
        """Leave a tool to the other workers."""
        self._troubles[tool] = error
        if tool in member.unable:
            return
        member.unable.add(tool)
        member.tool = None
        if not self._nobody_can(tool):
            problem = f"a Ray worker cannot load {tool} ({one_line(error)})"
            print(f"realkit: {problem}; others try", file=sys.stderr)

    def _nobody_can(self, tool: Tool) -> bool:
        return all(tool in member.unable or member.state == "gone" for member in self.members)

    def hopeless(self) -> Iterator[tuple[Job, Exception]]:
        """The jobs whose tool no worker can load, and why."""
        for tool, error in self._troubles.items():
            while self._queue.get(tool) and self._nobody_can(tool):
                yield self._queue[tool].popleft(), error
