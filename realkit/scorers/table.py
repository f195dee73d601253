"""The catalogue of scorers: a picture and its prompt → a number, whose unit, direction, range and
resize each entry states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from realkit.catalog.lookup import Spec, Table

if TYPE_CHECKING:
    from PIL.Image import Image


class Scorer(Spec):
    """An entry of the catalogue."""

    engine: str  # a row of engines.ENGINES
    source: str  # what the engine computes, or with which weights
    # References to what the engine reads beside the source.
    parts: dict[str, str] = Field(default_factory=dict)
    # Of the file at `source`, as published. Where a pickled file has none, nobody verified it.
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    architecture: str = ""  # what a file of weights is a network of
    unit: str
    direction: Literal["higher", "lower", "none"]  # which is better
    range: tuple[float, float]
    resize: str  # what the scorer sees of a picture
    tokens: int = 0  # that it sees of a prompt; 0 where it reads none, or all of it
    margin: float | None = None  # a difference that does not matter, in its unit; None: not known
    criterion: Literal["photorealism", "steerability", "efficiency", "none"] = "none"
    about: str
    unverified: str = ""  # what of the entry could not be looked up
    licence: str = "none"  # of the weights, or of the package that computes the score
    words: tuple[str, ...] = ()  # of a contrast: the texts that it is a share of
    against: tuple[tuple[str, ...], ...] = ()  # and the other classes, each a list
    prompted: bool = False  # of a function or a question: it takes the prompt too
    question: str = ""  # of a judge: answered by yes or no; {prompt} is the prompt
    # Of a judge: settings of its processor.
    options: dict[str, bool | int | str] = Field(default_factory=dict)
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
