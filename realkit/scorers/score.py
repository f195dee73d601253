"""Scoring: a picture and its prompt → numbers by scorer name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from realkit.base import pictures
from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import find
from realkit.scorers.clip import clip_rate
from realkit.scorers.colour import LAB, lab_rate
from realkit.scorers.table import SCORERS, Rate
from realkit.weights import resolve
from realkit.weights.lock import Lock
from realkit.weights.sources import disk

if TYPE_CHECKING:
    from PIL.Image import Image


def determined_score(name: str) -> dict[str, Any]:
    """What determines a scorer's number, apart from picture and prompt. Raises RequestError for a
    wrong entry."""
    from realkit.catalog.columns import COLUMNS

    spec, weights = SCORERS[name], SCORERS[name].source
    if name in COLUMNS:
        raise RequestError(
            f"Scorer {name!r} is named like a column of the table: give its catalogue entry another"
            " name"
        )
    if spec.engine == "lab" and spec.source not in LAB:
        raise RequestError(
            f"Scorer {name!r} has the source {spec.source!r}: expected one of {', '.join(LAB)}"
        )
    if spec.engine == "open_clip":
        if path := disk.local(spec.source):
            if not path.is_dir():
                raise RequestError(
                    f"Scorer {name!r} has the source {spec.source!r}: expected a folder with"
                    " open_clip's config and weights"
                )
            weights = resolve.lock(spec.source, weights=True).fingerprint
        elif not all(spec.source.partition(":")):
            raise RequestError(
                f"Scorer {name!r} has the source {spec.source!r}: expected open_clip's"
                " MODEL:WEIGHTS, or an existing folder"
            )
    return {"engine": spec.engine, "weights": weights, "version": spec.version}


def uses_prompt(name: str) -> bool:
    return SCORERS[name].engine == "open_clip"


def lock_scorer(name: str) -> Lock | None:
    """The weights of a scorer that lie in a folder; None where open_clip fetches them, or there are
    none."""
    spec = SCORERS[name]
    return (
        resolve.lock(spec.source, weights=True)
        if spec.engine == "open_clip" and disk.local(spec.source)
        else None
    )


def load_scorer(name: str, locked: Lock | None = None) -> Rate:
    """A function (RGB picture, prompt) → number. Raises RequestError when its weights cannot be
    had."""
    spec = SCORERS[find(SCORERS, name)]
    return (
        clip_rate(name, spec.source, locked)
        if spec.engine == "open_clip"
        else lab_rate(spec.source)
    )


def score(image: Image, prompt: str, scorers: Iterable[str] = ("clip",)) -> dict[str, float]:
    """Numbers by scorer name, e.g. {"rehearsal/clip": 31.2}. A transparent picture is scored on
    white."""
    if not isinstance(prompt, str):
        raise RequestError(
            f"prompt {shown(prompt)}: expected words, which may be empty for a scorer that needs"
            " none"
        )
    image = pictures.opaque(image)
    names = [find(SCORERS, name) for name in ([scorers] if isinstance(scorers, str) else scorers)]
    return {name: _loaded(name, str(determined_score(name)))(image, prompt) for name in names}


@lru_cache(maxsize=4)
def _loaded(name: str, determined: str) -> Rate:  # keyed by the weights too: a file may change
    return load_scorer(name)
