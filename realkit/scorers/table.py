"""Scorers: a picture and its prompt → a number whose unit, direction, range and resize are stated
in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from realkit.catalog.lookup import Spec, Table

if TYPE_CHECKING:
    from PIL.Image import Image


class Scorer(Spec):
    engine: Literal["open_clip", "lab"]
    source: str
    unit: str
    direction: Literal["higher", "lower", "none"]
    range: tuple[float, float]
    resize: str
    about: str
    tflop: float = 0.0  # 10¹² operations a picture
    version: int = 1


SCORERS: Table[Scorer] = Table("scorer", Scorer)
Rate = Callable[["Image", str], float]  # (RGB picture, prompt) → number
