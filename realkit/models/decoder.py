"""A decoder: one VAE, latents → picture."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from realkit.models.families import FAMILIES
from realkit.models.ladder import LADDERS, Placed

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Decoder(Placed):
    """A loaded VAE: latents (C, h, w) → picture.

    Raises FloatingPointError where latents or picture are not finite.
    """

    _held = "vae"

    def __init__(self, vae: Any, family: str, on: torch.device, rung: str) -> None:
        from diffusers.image_processor import VaeImageProcessor

        self.vae, self.device, self.family = vae, on, FAMILIES[family]
        self.rung, self.rungs = rung, LADDERS["decode"][on.type]
        self._to_picture = partial(VaeImageProcessor().postprocess, output_type="pil")

    def __call__(self, latents: torch.Tensor) -> Image:
        import torch

        if not torch.isfinite(latents).all():
            raise FloatingPointError(
                "the latents are not finite: the model overflowed in its number format (try dtype"
                " float32), or its weights are damaged (download it again)"
            )
        with torch.inference_mode():
            scaled = self.family.unscaled(self.vae, latents[None])
            scaled = scaled.to(self.device, self.vae.dtype)
            picture = self.vae.decode(scaled, return_dict=False)[0].float().cpu()
        if not torch.isfinite(picture).all():
            advice = "it overflowed in its number format; use a half-precision-safe VAE"
            if self.vae.dtype == torch.float32:
                advice = "its weights or its config are damaged, download it again"
            raise FloatingPointError(f"the VAE's picture is not finite: {advice}")
        if not self.family.signed:
            picture = picture.clamp(0, 1) * 2 - 1
        return self._to_picture(picture)[0]
