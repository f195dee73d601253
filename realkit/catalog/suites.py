"""The prompt suites of the catalogue, as data."""

from __future__ import annotations

from realkit.catalog.lookup import Spec, Table


class Suite(Spec):
    about: str
    prompts: list[str]


PROMPTS: Table[Suite] = Table("prompt", Suite)
