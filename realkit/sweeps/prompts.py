"""Prompt suites of the catalogue, and prompts of a sweep expanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realkit.catalog.lookup import Spec, Table, find
from realkit.models.request import SUITE


class Suite(Spec):
    about: str
    prompts: list[str]


PROMPTS: Table[Suite] = Table("prompt", Suite)


def expanded_prompts(item: Any) -> list[Any]:
    """The prompts of a suite where the item names one, each with what is linked to it; else the
    item itself."""
    words = item.get("prompt") if isinstance(item, Mapping) else item
    if not isinstance(words, str) or not words.startswith(SUITE):
        return [item]
    prompts = PROMPTS[find(PROMPTS, words.removeprefix(SUITE))].prompts
    return [
        {**item, "prompt": prompt} if isinstance(item, Mapping) else prompt for prompt in prompts
    ]
