"""DINOv2 by transformers: a picture's class token, from a hub id or a folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from realkit.base import device
from realkit.base.errors import RequestError, one_line
from realkit.base.files import json_object
from realkit.weights import resolve
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class DinoV2:
    """DINOv2 (arXiv 2304.07193) on the default device, float32; the normalised class token, of
    length 1."""

    def __init__(self, called: str, source: str, locked: Lock | None) -> None:
        """Raises RequestError, which begins with `called`, for anything else."""
        from transformers import AutoImageProcessor, Dinov2Model

        assert locked is not None
        folder = resolve.fetch(locked)
        kind = json_object(folder / "config.json").get("model_type") if folder.is_dir() else None
        if kind != "dinov2":
            raise RequestError(
                f"{called} is of type {kind!r}: expected a folder whose config.json says 'dinov2'"
            )
        self._device = device.default_device()
        try:
            self._prepare = AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True
            )
            self._model, report = Dinov2Model.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises what the files provoke
            raise RequestError(
                f"{called} cannot be loaded from {source!r}: {one_line(error, 200)}"
            ) from error
        wrong = (*report["missing_keys"], *report["mismatched_keys"], *report["unexpected_keys"])
        if wrong:
            raise RequestError(
                f"{called}: the weights of {source!r} are not the network's own: see"
                f" {min(map(str, wrong))!r} ({len(wrong)} in all)"
            )
        self._model.float().eval().to(self._device)

    def images(self, images: Iterable[Image]) -> torch.Tensor:
        """The embeddings (N, D) of RGB pictures, in one pass."""
        import torch

        pixels = self._prepare(images=list(images), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            tokens = self._model(pixel_values=pixels.to(self._device)).last_hidden_state
        return torch.nn.functional.normalize(tokens[:, 0], dim=-1)
