"""Resampling by Pillow's filters and OpenCV's interpolations: the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.base import pictures
from realkit.base.errors import RequestError
from realkit.upscalers.table import Upscaler

if TYPE_CHECKING:
    from PIL.Image import Image


def resample(image: Image, size: tuple[int, int], spec: Upscaler) -> Image:
    if spec.engine == "resample":
        return pictures.resized(image, size, spec.source)
    import cv2
    import numpy as np
    from PIL import Image

    kernel = getattr(cv2, spec.source, None)
    if kernel is None:
        raise RequestError(
            f"OpenCV has no interpolation {spec.source!r}: expected such as INTER_LANCZOS4"
        )
    return Image.fromarray(
        cv2.resize(np.ascontiguousarray(pictures.framed(image, size)), size, interpolation=kernel)
    )
