"""What a picture's levels say without any network: clipping, blank pictures, sharpness, noise. A
source is one of MEASURES."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from realkit.base.errors import RequestError
from realkit.scorers.references import Locks
from realkit.scorers.table import Rate, Scorer, one_by_one

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Levels = NDArray[np.float64]

BLANK = 2.0  # levels of standard deviation: a picture below it shows nothing
# The difference of two Laplacians, blind to edges and slopes: Immerkær, "Fast noise variance
# estimation", Computer Vision and Image Understanding 64 (1996).
NOISE = np.outer([1, -2, 1], [1, -2, 1])


def _luma(picture: Levels) -> Levels:
    """Luma (H, W) of RGB levels, by Rec. 601 as JPEG has it."""
    return picture @ np.array([0.299, 0.587, 0.114])


def clipping(picture: Levels) -> float:
    """Percent of pixels that are black or white in all three channels, with no detail left."""
    black = (picture <= 0).all(axis=-1)
    white = (picture >= 255).all(axis=-1)
    return 100 * float((black | white).mean())


def blank(picture: Levels) -> float:
    """1 for a picture of one colour, as a broken run makes it; else 0."""
    return float(picture.reshape(-1, 3).std(axis=0).max() < BLANK)


def sharpness(picture: Levels) -> float:
    """Mean length of the luma's gradient, levels a pixel; 0 for a picture of one pixel."""
    luma = _luma(picture)
    if min(luma.shape) < 2:
        return 0.0
    down, across = np.gradient(luma)
    return float(np.hypot(down, across).mean())


def noise(picture: Levels) -> float:
    """Standard deviation of white noise in the luma, levels, by Immerkær's estimator; fine texture
    counts as noise. 0 for a picture of fewer than 3 pixels a side."""
    luma = _luma(picture)
    if min(luma.shape) < 3:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(luma, (3, 3))
    responses = np.abs(np.einsum("hwij,ij->hw", windows, NOISE))
    return float(np.sqrt(np.pi / 2) / 6 * responses.mean())


MEASURES: dict[str, Callable[[Levels], float]] = {
    "clipping": clipping, "blank": blank, "sharpness": sharpness, "noise": noise,
}  # fmt: skip


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for a source that is not in MEASURES."""
    if entry.source not in MEASURES:
        raise RequestError(
            f"Scorer {name!r} has the source {entry.source!r}: expected one of"
            f" {', '.join(MEASURES)}"
        )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The measure of a picture's levels, 0 to 255."""

    def measure(image: Image, prompt: str) -> float:
        return MEASURES[entry.source](np.asarray(image.convert("RGB"), float))

    return one_by_one(measure)
