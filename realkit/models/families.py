"""A record for each kind of model: how it encodes a prompt, how large its latents are, what its
pipeline takes, how latents become a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Going:
    """What a leg of denoising is given: embeddings, the noise it begins with, what the leg before
    it left, and where it begins and ends (0 to 1)."""

    noise: torch.Tensor
    size: tuple[int, int]  # (width, height), pixels
    begun: torch.Tensor | None = None
    start: float = 0.0
    end: float = 1.0


def _encode_one_tower(
    pipe: Any, prompts: list[str], negatives: list[str], guided: bool
) -> dict[str, Any]:
    positive, negative = pipe.encode_prompt(
        prompts, pipe._execution_device, 1, guided, negative_prompt=negatives if guided else None
    )
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative if guided else None}


def _encode_two_towers(
    pipe: Any, prompts: list[str], negatives: list[str], guided: bool
) -> dict[str, Any]:
    names = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    found = pipe.encode_prompt(
        prompt=prompts,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=negatives if guided else None,
    )
    return dict(zip(names, found, strict=True))


def _encode_three_towers(
    pipe: Any, prompts: list[str], negatives: list[str], guided: bool
) -> dict[str, Any]:
    names = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    found = pipe.encode_prompt(
        prompt=prompts,
        prompt_2=None,
        prompt_3=None,
        device=pipe._execution_device,
        do_classifier_free_guidance=guided,
        negative_prompt=negatives if guided else None,
    )
    return dict(zip(names, found, strict=True))


def _encode_cascade(
    pipe: Any, prompts: list[str], negatives: list[str], guided: bool
) -> dict[str, Any]:
    names = (
        "prompt_embeds",
        "prompt_embeds_pooled",
        "negative_prompt_embeds",
        "negative_prompt_embeds_pooled",
    )
    found = pipe.encode_prompt(
        device=pipe._execution_device,
        batch_size=len(prompts),
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        prompt=prompts,
        negative_prompt=negatives if guided else None,
    )
    return dict(zip(names, found, strict=True))


def _from_noise(pipe: Any, going: Going) -> dict[str, Any]:
    return {
        "latents": going.noise,
        "width": going.size[0],
        "height": going.size[1],
        "output_type": "latent",
    }


def _sdxl(pipe: Any, going: Going) -> dict[str, Any]:
    return _from_noise(pipe, going) | ({"denoising_end": going.end} if going.end < 1 else {})


def _refiner(pipe: Any, going: Going) -> dict[str, Any]:
    """The latents go in as they are; the picture that the pipeline asks for beside them is not
    looked at."""
    import torch

    assert going.begun is not None
    width, height = going.size
    sizes = {"original_size": (height, width), "target_size": (height, width)}
    blank = torch.zeros(len(going.begun), 3, 8, 8)
    begins = {"denoising_start": going.start} if going.start > 0 else {"strength": 1.0}
    return {
        "image": blank,
        "latents": going.begun.to(pipe._execution_device),
        "output_type": "latent",
        **begins,
        **sizes,
    }


def _prior(pipe: Any, going: Going) -> dict[str, Any]:
    return _from_noise(pipe, going) | {
        "latents": going.noise.to(pipe.text_encoder.dtype),
        "output_type": "pt",
    }


def _cascade_decoder(pipe: Any, going: Going) -> dict[str, Any]:
    assert going.begun is not None
    number = pipe.text_encoder.dtype
    return {
        "image_embeddings": going.begun.to(pipe._execution_device, number),
        "latents": going.noise.to(number),
        "output_type": "latent",
    }


def _eighth(pipe: Any, size: tuple[int, int], begun: Any) -> tuple[int, int, int]:
    denoiser = pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer
    return denoiser.config.in_channels, size[1] // 8, size[0] // 8


def _of_prior(pipe: Any, size: tuple[int, int], begun: Any) -> tuple[int, int, int]:
    return (
        pipe.prior.config.in_channels,
        math.ceil(size[1] / pipe.config.resolution_multiple),
        math.ceil(size[0] / pipe.config.resolution_multiple),
    )


def _of_cascade_decoder(pipe: Any, size: tuple[int, int], begun: Any) -> tuple[int, int, int]:
    return (
        pipe.decoder.config.in_channels,
        int(begun.shape[2] * pipe.config.latent_dim_scale),
        int(begun.shape[3] * pipe.config.latent_dim_scale),
    )


def _scaled(vae: Any, z: torch.Tensor) -> torch.Tensor:
    return z / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)


def _quantised(vae: Any, z: torch.Tensor) -> torch.Tensor:
    return z * vae.config.scale_factor


@dataclass(frozen=True)
class Family:
    """What differs between kinds of models.

    `encode(pipe, prompts, negatives, guided)` gives the pipeline's embedding arguments,
    `arguments(pipe, going)` the others; `shape(pipe, size, begun)` is that of one picture's latents
    (C, h, w). `vae` names the part that decodes, and `unscaled(vae, z)` what it is given.
    """

    pipeline: str
    encode: Callable[[Any, list[str], list[str], bool], dict[str, Any]]
    native: int  # side in pixels at which a pass of the denoiser takes pass_tflop · 10¹² operations
    pass_tflop: float
    decode_tflop: float = 9.6  # a megapixel
    denoiser: str = "unet"
    arguments: Callable[[Any, Going], dict[str, Any]] = _from_noise
    shape: Callable[[Any, tuple[int, int], Any], tuple[int, int, int]] = _eighth
    vae: str = "vae"
    vae_class: str = "diffusers.AutoencoderKL"
    unscaled: Callable[[Any, torch.Tensor], torch.Tensor] = _scaled
    signed: bool = True  # whether decoded pixels are in [-1, 1], not [0, 1]
    absent: dict[str, Any] = field(
        default_factory=dict
    )  # parts of the pipeline that are never loaded
    configs: tuple[
        str, ...
    ] = ()  # shipped configs of its single files; the first that a file's tensors fit
    second: bool = False  # a leg that goes on from another's latents
    usual: dict[str, Any] = field(
        default_factory=dict
    )  # settings of a model that no entry recommends any for, where the general ones do not fit
    half_overflows: bool = (
        False  # a range that float16 does not hold: bfloat16, or float32 where that is slow
    )


UNCHECKED = {
    "safety_checker": None,
    "feature_extractor": None,
    "image_encoder": None,
    "requires_safety_checker": False,
}
TWO_TOWERS = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}
CASCADE = {"feature_extractor": None, "image_encoder": None}

# Operations: counted (FlopCounterMode) for SD1.5 and SDXL; those of the refiner, SD3 medium and
# Cascade are estimates from their parameters and token counts.
FAMILIES = {
    "sd1": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803, absent=UNCHECKED,
        configs=("sd1",)),
    "sd2": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803, absent=UNCHECKED,
        configs=("sd2", "sd2-base")),
    "sdxl": Family("StableDiffusionXLPipeline", _encode_two_towers, 1024, 6.76, arguments=_sdxl,
        absent=TWO_TOWERS, configs=("sdxl",)),
    "sdxl-refiner": Family(
        "StableDiffusionXLImg2ImgPipeline", _encode_two_towers, 1024, 5.0, arguments=_refiner,
        second=True, configs=("sdxl-refiner",),
        absent={"text_encoder": None, "tokenizer": None, "add_watermarker": False},
    ),
    "sd3": Family(
        "StableDiffusion3Pipeline", _encode_three_towers, 1024, 6.0, denoiser="transformer",
        configs=("sd3", "sd35-medium"),
        absent={"feature_extractor": None, "image_encoder": None},
        usual={"sampler": "Flow Euler", "steps": 28, "guidance": 5.0},
    ),
    "cascade": Family(
        "StableCascadePriorPipeline", _encode_cascade, 1024, 4.1, denoiser="prior",
        arguments=_prior, shape=_of_prior, absent=CASCADE, half_overflows=True,
        usual={"sampler": "DDPM Wuerstchen", "steps": 20, "guidance": 4.0},
    ),
    "cascade-decoder": Family(
        "StableCascadeDecoderPipeline", _encode_cascade, 1024, 10.0, denoiser="decoder",
        arguments=_cascade_decoder, shape=_of_cascade_decoder, second=True,
        vae="vqgan",
        vae_class="diffusers.pipelines.stable_cascade.pipeline_stable_cascade.PaellaVQModel",
        unscaled=_quantised, signed=False, half_overflows=True,
        usual={"sampler": "DDPM Wuerstchen", "steps": 10, "guidance": 0.0},
    ),
}  # fmt: skip


PART_CLASSES = {  # where a model's own index does not say
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "transformer": ("diffusers", "SD3Transformer2DModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "text_encoder_3": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
    "tokenizer_3": ("transformers", "T5TokenizerFast"),
}
OF_PIPELINE = {  # the class in a model_index.json: its family
    "StableDiffusionPipeline": "sd1", "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl-refiner",
    "StableDiffusion3Pipeline": "sd3", "StableCascadePriorPipeline": "cascade",
    "StableCascadeDecoderPipeline": "cascade-decoder",
}  # fmt: skip
