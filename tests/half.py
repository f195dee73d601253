"""Half precision on a CPU: the permission to try it, and how far its pictures may lie from
float32's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from realkit.base import device

FORMATS = ("float32", "float16", "bfloat16")
# The mean distance of pixels, in levels of 255, that a correct path may leave: float16 has 11 bits
# and bfloat16 has 8, so that a network's rounding is 8 times as large. Measured on the miniatures,
# whose random weights amplify more than trained ones: at most 0.6 and 5.2.
LEVELS = {"float32": 0.05, "float16": 1.0, "bfloat16": 8.0}


@contextmanager
def permitted() -> Iterator[None]:
    """Let a CPU compute in float16, and upscalers take half precision there as on a GPU."""
    before, device.half_on_cpu = device.half_on_cpu, True
    try:
        yield
    finally:
        device.half_on_cpu = before


def apart(a: Any, b: Any) -> float:
    """The mean distance of two pictures' pixels, in levels of 255."""
    return float(np.abs(np.asarray(a).astype(float) - np.asarray(b).astype(float)).mean())


def without_upcast(folder: Path) -> Path:
    """Let the VAE of a pipeline's folder compute in float16 too, as most published ones do."""
    path = folder / "vae" / "config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8")) | {"force_upcast": False}
        path.write_text(json.dumps(config), encoding="utf-8")
    return folder
