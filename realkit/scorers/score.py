"""Scoring: a picture and its prompt → numbers by scorer name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from realkit.base import pictures
from realkit.base.errors import RequestError, shown
from realkit.base.warn import warn_once
from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.catalog.suites import PROMPTS
from realkit.scorers.engines import ENGINES, Engine
from realkit.scorers.table import SCORERS, Rate
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    from PIL.Image import Image


def _engine(name: str) -> Engine:
    engine = SCORERS[name].engine
    if engine not in ENGINES:
        raise RequestError(
            f"Scorer {name!r} has the engine {engine!r}: expected one of {', '.join(ENGINES)}"
        )
    return ENGINES[engine]


def determined_score(name: str) -> dict[str, Any]:
    """What determines a scorer's number, apart from picture and prompt. Raises RequestError for a
    wrong entry."""
    entry = SCORERS[name]
    if name in COLUMNS:
        raise RequestError(
            f"Scorer {name!r} is named like a column of the table: give its catalogue entry another"
            " name"
        )
    _engine(name).check(name, entry)
    locked = lock_scorer(name)
    weights = locked.fingerprint if locked else entry.source
    determined = {"engine": entry.engine, "weights": weights, "version": entry.version}
    if entry.words:
        determined |= {"words": entry.words, "against": entry.against}
    if entry.suite:
        determined["prompts"] = PROMPTS[find(PROMPTS, entry.suite)].prompts
    return determined


def uses_prompt(name: str) -> bool:
    """Whether the prompt matters to a scorer's number."""
    return _engine(name).prompted or SCORERS[name].prompted


def cut_tokens(name: str, prompt: str) -> int:
    """Tokens of a prompt beyond the scorer's length, which it does not see."""
    return _engine(name).cut(SCORERS[name].source, prompt)


def lock_scorer(name: str) -> Lock | None:
    """The lock of a scorer's weights in a folder; None where it has none there."""
    return _engine(name).lock(SCORERS[name].source)


def load_scorer(name: str, locked: Lock | None = None) -> Rate:
    """A function (RGB pictures, their prompts) → a number each; `locked` is made where left out.
    Raises RequestError where its weights cannot be loaded."""
    return _engine(name).load(name, SCORERS[name], locked or lock_scorer(name))


def score(image: Image, prompt: str, scorers: Iterable[str] = ("clip",)) -> dict[str, float]:
    """Numbers by scorer name, e.g. {"rehearsal/clip": 31.2}. A transparent picture is scored on
    white. Raises RequestError for an unknown scorer, or one whose weights cannot be loaded."""
    if not isinstance(prompt, str):
        raise RequestError(
            f"prompt {shown(prompt)}: expected words, which may be empty for a scorer that needs"
            " none"
        )
    image = pictures.opaque(image)
    values = {}
    for name in [scorers] if isinstance(scorers, str) else scorers:
        name = find(SCORERS, name)
        if cut := cut_tokens(name, prompt):
            warn_once(f"unread: {cut} tokens cut for {name} in {shown(prompt)}")
        (values[name],) = _loaded(name, str(determined_score(name)))([image], [prompt])
    return values


@lru_cache(maxsize=4)
def _loaded(name: str, determined: str) -> Rate:
    # Keyed by what determines the number too: a file of weights may change.
    return load_scorer(name)
