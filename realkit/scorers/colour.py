"""Mean colour in CIELAB: the colour cast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.scorers.table import Rate

if TYPE_CHECKING:
    from PIL.Image import Image

LAB = ("a", "b", "chroma")


def lab_rate(which: str) -> Rate:
    import numpy as np
    from skimage.color import rgb2lab

    def rate(image: Image, prompt: str) -> float:
        _, a, b = rgb2lab(np.asarray(image)).reshape(-1, 3).mean(0)
        return float({"a": a, "b": b, "chroma": np.hypot(a, b)}[which])

    return rate
