"""The record in each picture: parameters that web interfaces read, and all as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from realkit.base.files import json_value, too_deep
from realkit.samplers.table import LABELS, SAMPLERS

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = "realkit"


def parameters(settings: dict[str, Any]) -> str:
    """The text of A1111's `parameters` chunk, which other web interfaces read too.

    A1111 writes a sampler's noise schedule apart from its name.
    """
    sampler, spec = settings["sampler"], SAMPLERS.get(settings["sampler"])
    if spec and spec.solver and spec.schedule != "trailing":
        label = LABELS[spec.schedule]
        if sampler.endswith(label):
            plain = sampler.removesuffix(label).strip()
            sampler = f"{plain}, Schedule type: {label or 'Uniform'}"
    negative = f"\nNegative prompt: {settings['negative']}" if settings["negative"] else ""
    return (
        f"{settings['prompt']}{negative}\nSteps: {settings['steps']}, Sampler: {sampler},"
        f" CFG scale: {settings['guidance']:g}, Seed: {settings['seed']},"
        f" Size: {settings['width']}x{settings['height']}, Model: {settings['model']}"
    )


def annotate(image: Image, record: dict[str, Any]) -> Image:
    """Note in a picture in memory what made it; `record["cell"]` holds its settings."""
    if record.get("cell"):
        image.info["parameters"] = parameters(record["cell"])
    image.info[CHUNK] = json.dumps(record, ensure_ascii=False, sort_keys=True)
    return image


def save(image: Image, file: IO[bytes]) -> None:
    """Write a PNG with what `annotate` noted in it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for chunk in ("parameters", CHUNK):
        if isinstance(text := image.info.get(chunk), str):
            info.add_itxt(chunk, text)
    image.save(file, "png", pnginfo=info, compress_level=4)


def noted(image: Image) -> dict[str, Any]:
    """The record in a picture in memory; empty where realkit did not make it."""
    try:
        record = json_value(image.info[CHUNK])
    except (KeyError, TypeError, ValueError):
        return {}
    return record if isinstance(record, dict) and not too_deep(record) else {}


def record(path: str | Path) -> dict[str, Any]:
    """The record in a picture file. Raises KeyError where realkit did not make it."""
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.text[CHUNK])  # type: ignore[attr-defined]


def pixel_hash(image: Image) -> str:
    """SHA-256 over size and RGB pixels, whatever else the picture's file holds."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
