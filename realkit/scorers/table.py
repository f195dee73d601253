"""The catalogue of scorers: a picture and its prompt → a number, whose unit, direction, range and
resize each entry states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
# (RGB pictures of any sizes, their prompts) → a number each, which no other picture changes.
Rate = Callable[[Iterable["Image"], Sequence[str]], list[float]]


def one_by_one(measure: Callable[[Image, str], float]) -> Rate:
    """A function of one picture and its prompt as a scorer of many."""

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        return [measure(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    return rate
