"""Artifacts as stages read and describe them: latents and pictures."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from realkit.models.identity import denoise_determined
from realkit.runs.jobs import Damaged, Files, Kit, Made, Planned, Row

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def read_latents(files: Files, item: Planned, stage: str) -> torch.Tensor:
    """The latents (C, H, W) that a stage works from. Raises Damaged."""
    from safetensors.torch import load

    source = item.source(stage)
    assert source is not None
    try:
        return load(files[source])["latents"]
    except Exception as error:  # safetensors has errors of its own, torch others for wrong sizes
        raise Damaged(*source) from error


def read_picture(files: Files, item: Planned, stage: str) -> Image:
    """The picture that a stage works from. Raises Damaged."""
    from PIL import Image

    source = item.source(stage)
    assert source is not None
    try:
        with Image.open(io.BytesIO(files[source])) as image:
            image.load()
            return image
    except Exception as error:  # Pillow raises what the bytes provoke
        raise Damaged(*source) from error


def picture(
    kit: Kit, stage: str, item: Planned, image: Image, measured: Row, upscaler: Any = None
) -> Made:
    """A picture with its row and its record; `upscaler` is what determined an enlargement."""
    artifact, source = item.artifact(stage), item.source(stage)
    assert source is not None
    cell, lock = asdict(item.cell), kit.models[item.cell.model]
    determined = denoise_determined(item.cell, lock) | {"vae": lock.vae_fingerprint}
    if stage == "decode":
        cell |= {"upscaler": None, "target": None, "strength": None}
    else:
        determined |= {"upscaler": upscaler, "target": image.size}
    size = {"image_width": image.width, "image_height": image.height}
    row = {"id": artifact, "parent": source[1], "status": "ok", **size, **measured}
    record = {"id": artifact, "stage": stage, "cell": cell, "determined": determined}
    return Made(row, image, record)
