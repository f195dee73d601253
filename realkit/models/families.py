"""A record for each kind of model: its prompts, its latents, its pipeline's arguments, its VAE."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Words = list[str]
    Size = tuple[int, int]  # (width, height), pixels
    Shape = tuple[int, int, int]  # (channels, height, width), latents of one picture


@dataclass(frozen=True)
class LegInput:
    """What one leg of denoising starts from.

    `noise` is (B, C, h, w), `begun` the latents that the leg before left. `start` and `end` are
    shares of the noise schedule, 0 to 1.
    """

    noise: torch.Tensor
    size: Size
    begun: torch.Tensor | None = None
    start: float = 0.0
    end: float = 1.0


def _encode(
    names: Sequence[str], pipe: Any, prompts: Words, negatives: Words, guided: bool, **more: Any
) -> dict[str, Any]:
    """The pipeline's embeddings of the prompts, by the names of its arguments."""
    embeddings = pipe.encode_prompt(
        prompt=prompts,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=negatives if guided else None,
        **more,
    )
    return dict(zip(names, embeddings, strict=True))


POOLED = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
CASCADE_EMBEDDINGS = (
    "prompt_embeds",
    "prompt_embeds_pooled",
    "negative_prompt_embeds",
    "negative_prompt_embeds_pooled",
)
_encode_one_tower = partial(_encode, ("prompt_embeds", "negative_prompt_embeds"))
_encode_two_towers = partial(_encode, POOLED)
_encode_three_towers = partial(_encode, POOLED, prompt_2=None, prompt_3=None)


def _encode_cascade(pipe: Any, prompts: Words, negatives: Words, guided: bool) -> dict[str, Any]:
    batch = len(prompts)
    return _encode(CASCADE_EMBEDDINGS, pipe, prompts, negatives, guided, batch_size=batch)


def _from_noise(pipe: Any, leg: LegInput) -> dict[str, Any]:
    width, height = leg.size
    return {"latents": leg.noise, "width": width, "height": height, "output_type": "latent"}


def _sdxl(pipe: Any, leg: LegInput) -> dict[str, Any]:
    arguments = _from_noise(pipe, leg)
    if leg.end < 1:
        arguments["denoising_end"] = leg.end
    return arguments


def _refiner(pipe: Any, leg: LegInput) -> dict[str, Any]:
    """The refiner's pipeline demands a picture, and ignores it where it is given latents."""
    import torch

    assert leg.begun is not None
    width, height = leg.size
    begins = {"denoising_start": leg.start} if leg.start > 0 else {"strength": 1.0}
    return {
        "image": torch.zeros(len(leg.begun), 3, 8, 8),
        "latents": leg.begun.to(pipe._execution_device),
        "output_type": "latent",
        "original_size": (height, width),
        "target_size": (height, width),
        **begins,
    }


def _cascade_prior(pipe: Any, leg: LegInput) -> dict[str, Any]:
    latents = leg.noise.to(pipe.text_encoder.dtype)
    return _from_noise(pipe, leg) | {"latents": latents, "output_type": "pt"}


def _cascade_decoder(pipe: Any, leg: LegInput) -> dict[str, Any]:
    assert leg.begun is not None
    dtype = pipe.text_encoder.dtype
    return {
        "image_embeddings": leg.begun.to(pipe._execution_device, dtype),
        "latents": leg.noise.to(dtype),
        "output_type": "latent",
    }


def _eighth_shape(pipe: Any, size: Size, begun: Any) -> Shape:
    denoiser = getattr(pipe, "unet", None)
    if denoiser is None:
        denoiser = pipe.transformer
    return denoiser.config.in_channels, size[1] // 8, size[0] // 8


def _cascade_prior_shape(pipe: Any, size: Size, begun: Any) -> Shape:
    width, height = size
    multiple = pipe.config.resolution_multiple
    channels = pipe.prior.config.in_channels
    return channels, math.ceil(height / multiple), math.ceil(width / multiple)


def _cascade_decoder_shape(pipe: Any, size: Size, begun: torch.Tensor) -> Shape:
    scale = pipe.config.latent_dim_scale
    height, width = begun.shape[2:]
    return pipe.decoder.config.in_channels, int(height * scale), int(width * scale)


def _unscaled_kl(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)


def _unscaled_quantised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents * vae.config.scale_factor


@dataclass(frozen=True)
class Family:
    """What differs between kinds of models.

    `encode(pipe, prompts, negatives, guided)` gives the pipeline's embedding arguments,
    `arguments(pipe, leg)` the others. `shape(pipe, size, begun)` is that of one picture's latents.
    `vae` names the part that decodes, and `unscaled(vae, latents)` is what it takes.
    """

    pipeline: str
    encode: Callable[..., dict[str, Any]]
    native: int  # side in pixels at which a pass of the denoiser takes pass_tflop · 10¹² operations
    pass_tflop: float
    decode_tflop: float = 9.6  # a megapixel
    denoiser: str = "unet"
    arguments: Callable[[Any, LegInput], dict[str, Any]] = _from_noise
    shape: Callable[[Any, Size, Any], Shape] = _eighth_shape
    vae: str = "vae"
    vae_class: str = "diffusers.AutoencoderKL"
    unscaled: Callable[[Any, torch.Tensor], torch.Tensor] = _unscaled_kl
    signed: bool = True  # whether decoded pixels are in [-1, 1], not [0, 1]
    # Parts of the pipeline that are never loaded.
    absent: dict[str, Any] = field(default_factory=dict)
    # Shipped configs of its single files: the first that a file's tensors fit.
    configs: tuple[str, ...] = ()
    # A second leg: it starts from another model's latents.
    second: bool = False
    # A second leg with the first's latents: it shares its settings and leaves decoding to it.
    refines: bool = False
    # Whether its pipeline denoises a picture's latents from the middle of the schedule.
    redraws: bool = False
    # Settings of a model without an entry, where the general ones do not fit.
    usual: dict[str, Any] = field(default_factory=dict)
    # Tokens that a tokenizer's encoder sees, where it is not the tokenizer's own length.
    lengths: dict[str, int] = field(default_factory=dict)
    # Its values overflow float16: bfloat16, or float32 where bfloat16 is slow.
    half_overflows: bool = False


NO_IMAGES = {"feature_extractor": None, "image_encoder": None}
UNCHECKED = NO_IMAGES | {"safety_checker": None, "requires_safety_checker": False}
TWO_TOWERS = NO_IMAGES | {"add_watermarker": False}
ONE_TOWER = {"text_encoder": None, "tokenizer": None, "add_watermarker": False}

# Operations: counted (FlopCounterMode) for SD1.5 and SDXL; those of the refiner, SD3 medium and
# Cascade are estimates from their parameters and token counts.
FAMILIES = {
    "sd1": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803, absent=UNCHECKED,
        configs=("sd1",), redraws=True),
    "sd2": Family("StableDiffusionPipeline", _encode_one_tower, 512, 0.803, absent=UNCHECKED,
        configs=("sd2", "sd2-base"), redraws=True),
    "sdxl": Family("StableDiffusionXLPipeline", _encode_two_towers, 1024, 6.76, arguments=_sdxl,
        absent=TWO_TOWERS, configs=("sdxl",), redraws=True),
    "sdxl-refiner": Family(
        "StableDiffusionXLImg2ImgPipeline", _encode_two_towers, 1024, 5.0, arguments=_refiner,
        second=True, refines=True, configs=("sdxl-refiner",), absent=ONE_TOWER,
    ),
    "sd3": Family(
        "StableDiffusion3Pipeline", _encode_three_towers, 1024, 6.0, denoiser="transformer",
        configs=("sd3", "sd35-medium"), absent=NO_IMAGES, redraws=True,
        lengths={"tokenizer_3": 256},  # max_sequence_length, which we leave at its default
        usual={"sampler": "Flow Euler", "steps": 28, "guidance": 5.0},
    ),
    "cascade": Family(
        "StableCascadePriorPipeline", _encode_cascade, 1024, 4.1, denoiser="prior",
        arguments=_cascade_prior, shape=_cascade_prior_shape, absent=NO_IMAGES, half_overflows=True,
        usual={"sampler": "DDPM Wuerstchen", "steps": 20, "guidance": 4.0},
    ),
    "cascade-decoder": Family(
        "StableCascadeDecoderPipeline", _encode_cascade, 1024, 10.0, denoiser="decoder",
        arguments=_cascade_decoder, shape=_cascade_decoder_shape, second=True, vae="vqgan",
        vae_class="diffusers.pipelines.stable_cascade.pipeline_stable_cascade.PaellaVQModel",
        unscaled=_unscaled_quantised, signed=False, half_overflows=True,
        usual={"sampler": "DDPM Wuerstchen", "steps": 10, "guidance": 0.0},
    ),
}  # fmt: skip

# The class of a part where the model's own index does not name it.
PART_CLASSES = {
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

# Pipeline class of a model_index.json → family: the first where several share a pipeline.
OF_PIPELINE: dict[str, str] = {}
for _name, _family in FAMILIES.items():
    OF_PIPELINE.setdefault(_family.pipeline, _name)
