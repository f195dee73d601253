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
from realkit.base.suggest import did_you_mean, fold, near, question
from realkit.catalog import omissions

USER_CATALOG = "REALKIT_CATALOG"  # folder of the user's own TOML files, named like the shipped ones
OWN = "rehearsal"  # owner, before the slash, of the names that the kit gives its own models
NEAR_OWN = 0.8  # similarity, of at most 1, from which an owner is taken for a mistyped OWN


class Spec(BaseModel):
    """An entry of a table. Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SpecT = TypeVar("SpecT", bound=Spec)


class Table(Mapping[str, SpecT], Generic[SpecT]):
    """A catalogue table, read on first use: `table[name]` for an exact name, `find(table, name)`
    for a name that a person typed.

    The user's file of the same name in $REALKIT_CATALOG adds entries and replaces shipped ones.
    Where the variable names another folder than before, the table is read again.
    """

    def __init__(self, kind: str, spec: type[SpecT]) -> None:
        self.kind, self._spec = kind, spec
        self._read_for: tuple[str | None] | None = None  # $REALKIT_CATALOG when it was read
        self._of_files: dict[str, SpecT] = {}

    @cached_property
    def _entries(self) -> dict[str, SpecT]:
        self._of_files, self._read_for = self._read(), (os.environ.get(USER_CATALOG),)
        return dict(self._of_files)

    def _current(self) -> dict[str, SpecT]:
        """The entries of $REALKIT_CATALOG as it is now, and those added in this process."""
        own = (os.environ.get(USER_CATALOG),)
        if self._read_for not in (None, own):
            of_files, added = self._read(), {}
            for name, entry in self._entries.items():
                if self._of_files.get(name) is not entry:
                    added[name] = entry
            self._of_files, self._read_for = of_files, own
            self._entries = of_files | added
        return self._entries

    def _read(self) -> dict[str, SpecT]:
        """The entries of the shipped file and of the user's own."""
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
        keys = {field.alias or own for own, field in self._spec.model_fields.items()}
        for key in settings:
            if key not in keys and (meant := did_you_mean(key, keys)):
                raise RequestError(
                    f"Catalogue file {source}, entry {name!r}: unknown key {shown(key)}.{meant}"
                )
        try:
            return self._spec(**settings)
        except ValidationError as error:
            raise RequestError(
                f"Catalogue file {source}, entry {name!r}: {one_line(error)}"
            ) from error

    def add(self, name: str, entry: SpecT) -> None:
        """Add an entry for this process, or replace the one of its name."""
        self._current()[name] = entry

    def __getitem__(self, name: str) -> SpecT:
        return self._current()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())


def find(table: Table[SpecT], name: str) -> str:
    """The table's own spelling of a name or alias; case, spaces and punctuation do not matter.

    Raises RequestError, with the names that were probably meant, or why the kit leaves it out.
    """
    available = f"{len(table)} available: realkit list {table.kind}s"
    if not isinstance(name, str):
        raise RequestError(f"Unknown {table.kind} {shown(name)}: expected a name, {available}")
    if name in table:
        return name
    names = _spelled(table)
    if fold(name) in names:
        return names[fold(name)]
    omissions.check(name)
    meant = question(near(name, names))
    raise RequestError(f"Unknown {table.kind} {shown(name)}.{meant} {available}")


def refuse_own(table: Table[Any], name: str) -> None:
    """Raise RequestError, as `find` does, for an unknown name OWNER/NAME whose owner is the kit's
    own or is spelled nearly so: it is mistyped, and no repository of the hub. With a revision,
    OWNER/NAME@REVISION, it is the hub's."""
    owner, slash, _ = name.partition("/")
    alike = difflib.SequenceMatcher(None, owner.lower(), OWN).ratio()
    if slash and "@" not in name and alike >= NEAR_OWN:
        try:
            find(table, name)
        except RequestError as error:
            if owner == OWN:
                raise
            raise RequestError(
                f"{error}. A repository of the hub has a revision: {shown(f'{name}@main')}"
            ) from None


def meant_of(table: Table[Any], name: str) -> str:
    """ " Did you mean …?" with the entries of which name, alias or source is like this reference;
    "" where there is none."""
    spelled = dict.fromkeys(table)
    for entry in table.values():
        spelled |= dict.fromkeys((entry.source, *getattr(entry, "aliases", ())))
    return did_you_mean(name, spelled)


def _spelled(table: Table[Any]) -> dict[str, str]:
    """The folded spellings of a table's names and aliases → the names."""
    names = {fold(own): own for own in table}
    for own, spec in table.items():
        for alias in getattr(spec, "aliases", ()):
            names[fold(alias)] = own
    return names
