"""Scoring: a picture and its prompt → numbers by scorer name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from realkit.base import network, pictures
from realkit.base.door import check_kind, worded
from realkit.base.errors import RequestError, shown
from realkit.base.warn import warn_once
from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.catalog.suites import PROMPTS
from realkit.scorers.engines import ENGINES, Engine
from realkit.scorers.references import SOURCE, Locks
from realkit.scorers.table import SCORERS, Rate
from realkit.weights.lock import Lock
from realkit.weights.sources import disk

if TYPE_CHECKING:
    from PIL.Image import Image


def _engine(name: str) -> Engine:
    engine = SCORERS[name].engine
    if engine not in ENGINES:
        raise RequestError(
            f"Scorer {name!r} has the engine {engine!r}: expected one of {', '.join(ENGINES)}"
        )
    return ENGINES[engine]


def check_scorer(name: str) -> None:
    """Raise RequestError for a wrong entry. Asks no network and reads no weights."""
    if name in COLUMNS:
        raise RequestError(
            f"Scorer {name!r} is named like a column of the table: give its catalogue entry another"
            " name"
        )
    _engine(name).check(name, SCORERS[name])


def determined_score(name: str, locks: Locks | None = None) -> dict[str, Any]:
    """What determines a scorer's number, apart from picture and prompt; `locks` are made where left
    out. Raises RequestError for a wrong entry."""
    entry = SCORERS[name]
    locks = lock_scorer(name) if locks is None else locks
    prints = {part: lock.fingerprint for part, lock in sorted(locks.items())}
    weights: Any = prints if entry.parts else prints.get(SOURCE, entry.source)
    determined = {"engine": entry.engine, "weights": weights, "version": entry.version}
    if entry.words:
        determined |= {"words": entry.words, "against": entry.against}
    if entry.suite:
        determined["prompts"] = PROMPTS[find(PROMPTS, entry.suite)].prompts
    for field in ("architecture", "question", "options"):
        if value := getattr(entry, field):
            determined[field] = value
    if _engine(name).cuts:
        determined["tokens"] = entry.tokens
    return determined


def uses_prompt(name: str) -> bool:
    """Whether the prompt matters to a scorer's number."""
    return _engine(name).prompted or SCORERS[name].prompted


def cut_tokens(name: str, prompt: str, locks: Locks | None = None) -> int:
    """Tokens of a prompt beyond the scorer's length, which it does not see."""
    locks = lock_scorer(name) if locks is None else locks
    return _engine(name).cut(SCORERS[name], locks, prompt)


def lock_scorer(name: str, before: Locks | None = None) -> dict[str, Lock]:
    """The locks of a scorer's weights, by part: none where a package fetches its own. Those made
    `before` hold while the entry names the same references of a network. Raises RequestError for a
    wrong entry, and for weights that are missing."""
    check_scorer(name)
    return _engine(name).lock(name, SCORERS[name], before)


def load_scorer(name: str, locks: Locks | None = None) -> Rate:
    """A function (RGB pictures, their prompts) → a number each; `locks` are made where left out.
    Raises RequestError where its weights cannot be loaded."""
    locks = lock_scorer(name) if locks is None else locks
    return _engine(name).load(name, SCORERS[name], locks)


def score(image: Image, prompt: str, scorers: str | Sequence[str] = ("clip",)) -> dict[str, float]:
    """Numbers by scorer name, e.g. {"rehearsal/clip": 31.2}. A transparent picture is scored on
    white. Raises RequestError for an unknown scorer, or one whose weights cannot be loaded."""
    if not isinstance(prompt, str):
        raise RequestError(
            f"prompt {shown(prompt)}: expected words, which may be empty for a scorer that needs"
            " none"
        )
    check_kind("scorers", scorers, Sequence[str] | str)
    image = pictures.opaque(image)
    values = {}
    for name in [scorers] if isinstance(scorers, str) else scorers:
        name = find(SCORERS, name)
        try:
            with worded(f"Scorer {name!r} gave no number"):
                (values[name],) = _rate(name, prompt)([image], [prompt])
        except RequestError as error:
            raise RequestError(f"{error}{_instead(name)}") from error
    return values


def _rate(name: str, prompt: str) -> Rate:
    """The loaded scorer; says once what it does not see of the prompt."""
    locks = _LOCKED[name] = lock_scorer(name, _LOCKED.get(name))
    if cut := cut_tokens(name, prompt, locks):
        warn_once(f"unread: {cut} tokens cut for {name} in {shown(prompt)}")
    return _loaded(name, str(determined_score(name, locks)))


def here() -> list[str]:
    """The scorers that need no network: what they read is on this disk. Those that read a prompt
    come first."""
    names = [name for name in SCORERS if not _needs_network(name)]
    return sorted(names, key=lambda name: not uses_prompt(name))


def _needs_network(name: str) -> bool:
    entry = SCORERS[name]
    for part in _engine(name).weights:
        text = entry.source if part == SOURCE else entry.parts.get(part, "")
        if not text or disk.local(text) is None:
            return True
    return False


def _instead(name: str) -> str:
    """What can score here, where a scorer fails for want of a network; else ""."""
    if not _needs_network(name) or not network.hub_away():
        return ""
    return f". Without a network there are here: {', '.join(here())}"


_LOCKED: dict[str, dict[str, Lock]] = {}  # by `score`: a hub is asked once in a process


@lru_cache(maxsize=4)
def _loaded(name: str, determined: str) -> Rate:
    # Keyed by what determines the number too: a file of weights may change.
    return load_scorer(name, _LOCKED.get(name))
