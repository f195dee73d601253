"""Artifacts as stages read and describe them: latents and pictures."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from realkit.models.identity import denoise_determined
from realkit.models.provenance import made_with, model_hash, pixel_hash
from realkit.runs.jobs import Damaged, FileKey, Files, Kit, Output, Planned, Row, sha256

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def read_latents(files: Files, source: FileKey) -> torch.Tensor:
    """An earlier stage's latents (C, H, W). Raises Damaged."""
    from safetensors.torch import load

    stored = files[source]
    data = stored.read()
    if stored.hash not in (None, sha256(data)):
        raise Damaged(*source)
    try:
        return load(data)["latents"]
    except Exception as error:  # safetensors has errors of its own, torch others for wrong sizes
        raise Damaged(*source) from error


def read_picture(files: Files, source: FileKey) -> Image:
    """An earlier stage's picture, RGB. Raises Damaged."""
    from PIL import Image

    stored = files[source]
    data = io.BytesIO(stored.read())
    try:
        with Image.open(data) as image:
            colours = image.convert("RGB")
    except Exception as error:  # Pillow raises what the bytes provoke
        raise Damaged(*source) from error
    if stored.hash not in (None, pixel_hash(colours)):
        raise Damaged(*source)
    return colours


def picture(
    kit: Kit,
    stage: str,
    item: Planned,
    image: Image,
    device: torch.device,
    measured: Row,
    upscaler: Any = None,
) -> Output:
    """A picture with its row and its record; `upscaler` is what determined an enlargement."""
    artifact = item.artifact(stage)
    cell, lock = asdict(item.cell), kit.models[item.cell.model]
    determined = denoise_determined(item.cell, lock) | {"vae": lock.vae_fingerprint}
    if stage == "decode":
        cell |= {"upscaler": None, "target": None, "strength": None}
    else:
        determined |= {"upscaler": upscaler, "target": image.size}
    size = {"image_width": image.width, "image_height": image.height}
    row = {"id": artifact, "parent": item.parent(stage), "status": "ok", **size, **measured}
    row["device"] = device.type
    record = {"id": artifact, "stage": stage, "cell": cell, "determined": determined}
    record["made"] = made_with(device, batch=item.batch_size)
    if checkpoint := model_hash(lock):
        record["model_hash"] = checkpoint
    if stage == "upscale":
        record["upscaler"] = str(item.cell.upscaler)
    return Output(row, image, record)
