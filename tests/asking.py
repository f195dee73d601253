"""Pictures asked for in few words."""

from __future__ import annotations

from realkit.models.model import Denoised, Model
from realkit.models.request import Request

Picture = tuple[str, str, int]  # prompt, negative prompt, seed


def denoised(
    model: Model,
    pictures: list[Picture],
    sampler: str,
    steps: int,
    guidance: float,
    size: tuple[int, int],
) -> Denoised:
    """A batch of pictures that share sampler, steps, guidance and size (width, height)."""
    requests = [
        Request(model.name, sampler, prompt, negative, seed, steps, guidance, *size)
        for prompt, negative, seed in pictures
    ]
    return model.denoise(requests)
