"""The catalogue's tables as read-only mappings, and the one way to find a name in them."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from realkit.base.errors import RequestError, one_line, shown
from realkit.catalog import omissions

USER_CATALOG = "REALKIT_CATALOG"  # folder of the user's own TOML files, named like the shipped ones
SIMILAR = 0.6  # least similarity of a suggestion, of at most 1
TIED = 0.04  # suggestions this much less similar than the best are named too


class Spec(BaseModel):
    """An entry of a table. Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SpecT = TypeVar("SpecT", bound=Spec)


class Table(Mapping[str, SpecT], Generic[SpecT]):
    """A catalogue table, read on first use: `table[name]` for an exact name, `find(table, name)`
    for a name that a person typed.

    The user's file of the same name in $REALKIT_CATALOG adds entries and replaces shipped ones.
    """

    def __init__(self, kind: str, spec: type[SpecT]) -> None:
        self.kind, self._spec = kind, spec

    @cached_property
    def _entries(self) -> dict[str, SpecT]:
        entries: dict[str, SpecT] = {}
        for source in self._sources():
            try:
                tables = tomllib.loads(source.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise RequestError(
                    f"Catalogue file {source} cannot be read: {one_line(error)}"
                ) from error
            for name, settings in tables.items():
                entries[name] = self._entry(source, name, settings)
        return entries

    def _sources(self) -> list[Traversable]:
        """The shipped file, and the user's own one after it."""
        file = f"{self.kind}s.toml"
        sources = [resources.files("realkit.catalog").joinpath(file)]
        if own := os.environ.get(USER_CATALOG):
            if not Path(own).is_dir():
                raise RequestError(
                    f"${USER_CATALOG} is {own!r}: expected a folder that holds TOML files such as"
                    f" {file}"
                )
            if (Path(own) / file).exists():
                sources.append(Path(own) / file)
        return sources

    def _entry(self, source: Traversable, name: str, settings: Any) -> SpecT:
        if not isinstance(settings, dict):
            raise RequestError(
                f"Catalogue file {source}: {name!r} is {shown(settings)}, expected a table of"
                f" settings, [{name}]"
            )
        try:
            return self._spec(**settings)
        except ValidationError as error:
            raise RequestError(
                f"Catalogue file {source}, entry {name!r}: {one_line(error)}"
            ) from error

    def add(self, name: str, entry: SpecT) -> None:
        """Add an entry for this process, or replace the one of its name."""
        self._entries[name] = entry

    def __getitem__(self, name: str) -> SpecT:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def find(table: Table[SpecT], name: str) -> str:
    """The table's own spelling of a name or alias; case, spaces and punctuation do not matter.

    Raises RequestError, with the names that were probably meant, or why the kit leaves it out.
    """
    available = f"{len(table)} available: realkit list {table.kind}s"
    if not isinstance(name, str):
        raise RequestError(f"Unknown {table.kind} {shown(name)}: expected a name, {available}")
    if name in table:
        return name
    names = {_fold(own): own for own in table}
    for own, spec in table.items():
        for alias in getattr(spec, "aliases", ()):
            names[_fold(alias)] = own
    if _fold(name) in names:
        return names[_fold(name)]
    omissions.check(name)
    near = difflib.get_close_matches(_fold(name), names, n=3, cutoff=SIMILAR)
    meant = [repr(names[n]) for n in near if _alike(name, n) > _alike(name, near[0]) - TIED]
    hint = f" Did you mean {' or '.join(dict.fromkeys(meant))}?" if meant else ""
    raise RequestError(f"Unknown {table.kind} {shown(name)}.{hint} {available}")


def _alike(typed: str, folded: str) -> float:
    return difflib.SequenceMatcher(None, _fold(typed), folded).ratio()


def _fold(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
