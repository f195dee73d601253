"""What is written into each picture: parameters that the common web interfaces read, and all that
determined it as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = "realkit"


def parameters(settings: dict[str, Any]) -> str:
    """The text that A1111 writes into its `parameters` chunk, which other web interfaces read
    too."""
    from realkit.samplers.table import LABELS, SAMPLERS

    sampler, spec = settings["sampler"], SAMPLERS.get(settings["sampler"])
    if (
        spec
        and spec.solver
        and sampler.endswith(LABELS[spec.schedule])
        and spec.schedule != "trailing"
    ):
        sampler = (
            f"{sampler.removesuffix(LABELS[spec.schedule]).strip()}, Schedule type:"
            f" {LABELS[spec.schedule] or 'Uniform'}"
        )
    negative = f"\nNegative prompt: {settings['negative']}" if settings["negative"] else ""
    return (
        f"{settings['prompt']}{negative}\nSteps: {settings['steps']}, Sampler: {sampler}, CFG"
        f" scale: {settings['guidance']:g}, Seed: {settings['seed']}, Size:"
        f" {settings['width']}x{settings['height']}, Model: {settings['model']}"
    )


def annotate(image: Image, record: dict[str, Any]) -> Image:
    """Note in a picture in memory what made it: its settings under `cell`, all that determined it,
    and the run, if any."""
    if record.get("cell"):
        image.info["parameters"] = parameters(record["cell"])
    image.info[CHUNK] = json.dumps(record, ensure_ascii=False, sort_keys=True)
    return image


def save(image: Image, file: IO[bytes]) -> None:
    """Write a PNG with what `annotate` noted in it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name in ("parameters", CHUNK):
        if isinstance(text := image.info.get(name), str):
            info.add_itxt(name, text)
    image.save(file, "png", pnginfo=info, compress_level=4)


def noted(image: Image) -> dict[str, Any]:
    """What a picture in memory says of itself; nothing where realkit did not make it."""
    try:
        found = json.loads(image.info[CHUNK])
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def record(path: str | Path) -> dict[str, Any]:
    """What a picture file says of itself. Raises KeyError for a picture that realkit did not
    make."""
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.text[CHUNK])  # type: ignore[attr-defined]


def pixel_hash(image: Image) -> str:
    """SHA-256 over size and RGB pixels: the same for the same picture, whatever its file holds
    besides."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
