"""Resampling by Pillow's filters and OpenCV's interpolations: the baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from realkit.base import pictures
from realkit.base.errors import RequestError
from realkit.upscalers.table import Upscaler
from realkit.upscalers.tool import LoadRequest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Resampler:
    """A tool without a scale of its own: an RGB picture → any (width, height) in one step."""

    to_size: Callable[[Image, tuple[int, int]], Image]


def check_filter(name: str, entry: Upscaler) -> None:
    """Raise RequestError for an entry whose source is no filter of Pillow's."""
    from PIL import Image

    filters = Image.Resampling.__members__
    if entry.source not in filters:
        raise RequestError(
            f"Upscaler {name!r} has the source {entry.source!r}: expected a filter, one of"
            f" {', '.join(filters)}"
        )


def check_interpolation(name: str, entry: Upscaler) -> None:
    """Raise RequestError for an entry whose source is no interpolation of OpenCV's."""
    import cv2

    if not entry.source.startswith("INTER_") or not hasattr(cv2, entry.source):
        raise RequestError(
            f"Upscaler {name!r} has the source {entry.source!r}: expected an interpolation of"
            " OpenCV, such as INTER_LANCZOS4"
        )


def load_filter(request: LoadRequest) -> Resampler:
    return Resampler(partial(pictures.resized, kernel=request.entry.source))


def load_interpolation(request: LoadRequest) -> Resampler:
    import cv2
    import numpy as np
    from PIL import Image

    interpolation = getattr(cv2, request.entry.source)

    def to_size(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        pixels = np.ascontiguousarray(pictures.framed(image, size))
        return Image.fromarray(cv2.resize(pixels, size, interpolation=interpolation))

    return Resampler(to_size)
