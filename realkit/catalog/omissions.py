"""What people ask for and the kit leaves out: why, and what does that work here.

The table is the shipped one alone. A user's own entry of such a name is found before it is asked.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from realkit.base.errors import RequestError, shown


class Omission(BaseModel):
    """An entry of omissions.toml. `words`: what a name or a reference to it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: tuple[str, ...]
    why: str
    instead: str


@lru_cache(maxsize=1)
def omissions() -> dict[str, Omission]:
    """The table, by the names that people know."""
    file = resources.files("realkit.catalog").joinpath("omissions.toml")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    entries = {}
    for name, settings in tables.items():
        entries[name] = Omission(**settings)
    return entries


def check(name: str) -> None:
    """Raise RequestError for the name of, or a reference to, what is left out. Any sign that is no
    letter and no digit ends a word."""
    spelled = f" {' '.join(re.findall(r'[a-z0-9]+', name.lower()))} "
    for label, omission in omissions().items():
        for word in omission.words:
            if f" {word} " in spelled:
                raise RequestError(
                    f"{shown(name)}: realkit leaves {label} out: {omission.why}. Use"
                    f" {omission.instead}"
                )
