"""A record for each kind of model: how it encodes a prompt, how large its latents are, what its pipeline is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _encode_one_tower(pipe: Any, prompts: list[str], negatives: list[str], guided: bool) -> dict[str, Any]:
    positive, negative = pipe.encode_prompt(prompts, pipe._execution_device, 1, guided, negative_prompt=negatives if guided else None)
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative if guided else None}


def _encode_two_towers(pipe: Any, prompts: list[str], negatives: list[str], guided: bool) -> dict[str, Any]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    found = pipe.encode_prompt(
        prompt=prompts,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=negatives if guided else None,
    )
    return dict(zip(names, found, strict=True))


@dataclass(frozen=True)
class Family:
    """What differs between kinds of models. `encode(pipe, prompts, negatives, guided)` gives the pipeline's embedding arguments."""

    pipeline: str
    encode: Callable[[Any, list[str], list[str], bool], dict[str, Any]]
    native: int  # side in pixels at which a pass of the denoiser takes pass_tflop · 10¹² operations
    pass_tflop: float
    decode_tflop: float = 9.6  # a megapixel
    prediction: str = "epsilon"
    multiple: int = 8  # the picture's sides are multiples of this, pixels


FAMILIES = {
    "sd1": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803),
    "sd2": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803, prediction="v_prediction"),
    "sdxl": Family("StableDiffusionXLPipeline", _encode_two_towers, 1024, 6.76),
}
