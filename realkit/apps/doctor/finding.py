"""A judgement about a machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "failure"]
Judgements = Iterator[tuple[Level, str, str]]  # level, what, fix


@dataclass(frozen=True)
class Finding:
    """A judgement about one topic. A failure means that no picture can be made or enlarged. Where
    the level is not "ok", `fix` says what to run or to set."""

    level: Level
    topic: str
    what: str
    fix: str = ""
