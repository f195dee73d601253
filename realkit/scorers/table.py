"""The catalogue of scorers: a picture and its prompt → a number, whose unit, direction, range and
resize each entry states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from realkit.catalog.lookup import Spec, Table

if TYPE_CHECKING:
    from PIL.Image import Image


class Scorer(Spec):
    """An entry of the catalogue."""

    engine: str  # a row of engines.ENGINES
    source: str  # what the engine computes, or with which weights
    unit: str
    direction: Literal["higher", "lower", "none"]  # which is better
    range: tuple[float, float]
    resize: str  # what the scorer sees of a picture
    margin: float | None = None  # a difference that does not matter, in its unit; None: not known
    criterion: Literal["photorealism", "steerability", "efficiency", "none"] = "none"
    about: str
    words: tuple[str, ...] = ()  # of a contrast: the texts that it is a share of
    against: tuple[tuple[str, ...], ...] = ()  # and the other classes, each a list
    prompted: bool = False  # of a function: it takes the prompt too
    suite: str = ""  # of a rank: the prompts among which a picture finds its own
    tflop: float = 0.0  # 10¹² operations a picture
    version: int = 1


SCORERS: Table[Scorer] = Table("scorer", Scorer)
Rate = Callable[["Image", str], float]  # (RGB picture, prompt) → number
