"""Mean colour in CIELAB: the colour cast. A source is one of LAB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.scorers.references import Locks
from realkit.scorers.table import Rate, Scorer, one_by_one

if TYPE_CHECKING:
    from PIL.Image import Image

LAB = ("a", "b", "chroma")


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for a source that is not in LAB."""
    if entry.source not in LAB:
        raise RequestError(
            f"Scorer {name!r} has the source {entry.source!r}: expected one of {', '.join(LAB)}"
        )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The picture's mean a* or b*, or the chroma of both, √(a*² + b*²)."""
    import numpy as np
    from skimage.color import rgb2lab

    def cast(image: Image, prompt: str) -> float:
        _, a, b = rgb2lab(np.asarray(image)).reshape(-1, 3).mean(0)
        return float({"a": a, "b": b, "chroma": np.hypot(a, b)}[entry.source])

    return one_by_one(cast)
