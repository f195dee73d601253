"""Names of prompt suites in a sweep, expanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realkit.catalog.lookup import find
from realkit.catalog.suites import PROMPTS, SUITE


def expanded_prompts(item: Any) -> list[Any]:
    """The prompts of the suite that an item names ("suite:NAME"), else the item itself.

    A mapping `{"prompt": "suite:NAME", …}` gives each prompt with what is linked to it.
    """
    text = item.get("prompt") if isinstance(item, Mapping) else item
    if not isinstance(text, str) or not text.startswith(SUITE):
        return [item]
    prompts = PROMPTS[find(PROMPTS, text.removeprefix(SUITE))].prompts
    if isinstance(item, Mapping):
        return [{**item, "prompt": prompt} for prompt in prompts]
    return list(prompts)
