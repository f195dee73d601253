"""Names of upscalers, parsed once: "A + B" → the entries and engines that it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from realkit.base import credentials
from realkit.base.errors import RequestError, shown
from realkit.base.suggest import instead
from realkit.catalog import omissions
from realkit.catalog.lookup import find, refuse_own
from realkit.upscalers.engines import ENGINES, OF_FILE, OF_FOLDER, Engine
from realkit.upscalers.settings import Settings, check_names, checked
from realkit.upscalers.table import UPSCALERS, Upscaler
from realkit.weights import reference
from realkit.weights.reference import Reference
from realkit.weights.sources import disk


@dataclass(frozen=True)
class Part:
    """One upscaler of a chain: its name in the catalogue, or its reference; and its entry."""

    name: str
    entry: Upscaler

    def __post_init__(self) -> None:
        if self.entry.engine not in ENGINES:
            raise RequestError(
                f"Upscaler {self.name!r} has the engine {self.entry.engine!r}: expected one of"
                f" {', '.join(ENGINES)}"
            )

    @property
    def engine(self) -> Engine:
        return ENGINES[self.entry.engine]

    @property
    def uses(self) -> set[str]:
        """The settings that its result depends on."""
        return {*self.engine.uses, *self.entry.uses}

    def redrawn_by(self, model: str) -> Part:
        if not self.engine.redraws:
            return self
        return replace(self, entry=self.entry.model_copy(update={"source": model}))

    def check(self) -> None:
        """Raise RequestError for a source that cannot be right, and for a file that is missing."""
        source = self.entry.source
        if self.engine.check:
            self.engine.check(self.name, self.entry)
        ref = reference.parse(source)
        remote = ref.kind in ("hub", "url", "civitai")
        if ref.single and not remote and disk.local(source) is None:
            raise RequestError(
                f"Upscaler file {shown(source)} is not there: expected a catalogue name (realkit"
                " list upscalers), a hub file, or an existing file"
            )


@dataclass(frozen=True)
class Chain:
    """An upscaler: one part, or several that work in their order. `str(chain)` is its canonical
    name."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return " + ".join(part.name for part in self.parts)

    @classmethod
    def parse(cls, name: str | Path) -> Chain:
        """The chain of a name. Raises RequestError for an unknown name or engine. Looks at no
        weights: use `parse_checked` for a name that a person gave."""
        name = str(name) if isinstance(name, Path) else name
        if not isinstance(name, str):
            find(UPSCALERS, name)  # raises
        if name in UPSCALERS or reference.existing_path(name):
            return cls((_part(name),))
        return cls(tuple(_part(part.strip()) for part in re.split(r"\s\+(?:\s|$)", name)))

    @classmethod
    def parse_checked(cls, name: str | Path) -> Chain:
        """As `parse`; raises RequestError too for a wrong entry and for a missing file."""
        chain = cls.parse(name)
        for part in chain.parts:
            part.check()
        return chain

    def redrawn_by(self, model: str | None) -> Chain:
        """The chain with this model in place of those that its entries redraw with."""
        if model is None:
            return self
        return Chain(tuple(part.redrawn_by(model) for part in self.parts))

    @cached_property
    def uses(self) -> set[str]:
        """The settings that a result depends on."""
        return set().union(*(part.uses for part in self.parts))

    @cached_property
    def understands(self) -> set[str]:
        """The settings that a part uses or accepts."""
        return self.uses.union(*(part.engine.accepts for part in self.parts))

    @property
    def redraws(self) -> bool:
        return any(part.engine.redraws for part in self.parts)

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """The settings of these values, checked; None counts as left out.

        Raises RequestError for an unknown, unused or wrong setting, and for a missing prompt.
        """
        values = {key: value for key, value in values.items() if value is not None}
        check_names(values)
        usable = self.understands | {"prompt", "seed"}
        if idle := [key for key in values if key not in usable]:
            end = instead(idle[0], sorted(usable), "some")
            raise RequestError(f"Upscaler {str(self)!r} does not use {idle[0]!r}{end}")
        settings = checked(values)
        drawn = any(part.engine.needs_prompt(settings) for part in self.parts)
        if drawn and not (settings.prompt or "").strip():
            raise RequestError(
                f"Upscaler {str(self)!r} draws what a prompt says, and has no prompt: expected"
                " prompt=, such as the prompt of the picture"
            )
        return settings

    def tflop(self, size: tuple[int, int]) -> float:
        """Operations, in 10¹², to enlarge a picture of (width, height) once. Entries without a
        count add nothing."""
        return sum(part.entry.tflop for part in self.parts) * size[0] * size[1] / 1e6


def canonical(name: str | Path) -> str:
    """An upscaler's name as the catalogue spells it, chains too. Raises RequestError for an unknown
    name, and for a wrong entry."""
    return str(Chain.parse_checked(name))


def _part(name: str) -> Part:
    prefix, _, rest = name.partition(":")
    if prefix in ENGINES and ENGINES[prefix].instead_of and prefix != name:
        if not rest.strip():
            raise RequestError(
                f"Upscaler {name!r}: expected the name of an upscaler after the colon. Did you mean"
                f" '{prefix}:{find(UPSCALERS, prefix)}'?"
            )
        return _run_by(prefix, _part(rest.strip()))
    if credentials.holds_secret(name):
        raise RequestError(
            f"Upscaler {credentials.scrub(name)!r} holds a secret, which would be written into"
            " every row: leave it out"
        )
    try:
        entry_name = find(UPSCALERS, name)
    except RequestError:
        ref = reference.parse(name)
        if not reference.existing_path(name):
            if ref.kind == "name":
                raise
            refuse_own(UPSCALERS, name)
        return _of_reference(name, ref)
    return Part(entry_name, UPSCALERS[entry_name])


def _of_reference(name: str, ref: Reference) -> Part:
    """The part of weights by reference: the entry of that source, else the engine for its kind."""
    source = str(ref)
    for entry_name, entry in UPSCALERS.items():
        if source == entry.source:
            return Part(entry_name, entry)
    path = reference.existing_path(source)
    if path is None:
        omissions.check(name)
    single = ref.single or (path is not None and path.is_file())
    return Part(name, Upscaler(engine=OF_FILE if single else OF_FOLDER, source=source))


def _run_by(engine: str, part: Part) -> Part:
    """The part run by another engine than its entry's."""
    expected = ENGINES[engine].instead_of
    if part.entry.engine != expected:
        raise RequestError(
            f"Upscaler {part.name!r} is of engine {part.entry.engine!r}: {engine!r} runs only"
            f" upscalers of engine {expected!r}"
        )
    return Part(f"{engine}:{part.name}", part.entry.model_copy(update={"engine": engine}))
