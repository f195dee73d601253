"""What a machine's facts mean for making pictures, and how to fix what is missing."""

from __future__ import annotations

from collections.abc import Callable

from realkit.apps.doctor import gpu, libraries, surroundings
from realkit.apps.doctor.facts import Facts
from realkit.apps.doctor.finding import Finding, Judgements

TOPICS: dict[str, Callable[[Facts], Judgements]] = {
    "python": surroundings.python,
    "gpu": gpu.gpu,
    "libraries": libraries.libraries,
    "torchvision": libraries.torchvision,
    "imports": libraries.imports,
    "optional": libraries.optional,
    "disk": surroundings.disk,
    "memory": surroundings.memory,
    "hub": surroundings.hub,
    "tokens": surroundings.tokens,
    "place": surroundings.place,
}


def findings(facts: Facts) -> list[Finding]:
    """What the facts mean, topic by topic."""
    judgements = []
    for topic, judge in TOPICS.items():
        judgements += [Finding(level, topic, what, fix) for level, what, fix in judge(facts)]
    return judgements


def passes(judgements: list[Finding]) -> bool:
    """Whether this machine can make and enlarge pictures."""
    return all(finding.level != "failure" for finding in judgements)
