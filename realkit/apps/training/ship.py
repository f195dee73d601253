"""Writes trained models into the package, in half precision and in their libraries' formats."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import nn

from realkit.apps.training import tokenizer
from realkit.apps.training.clip import CONFIG
from realkit.apps.training.text2image import SCHEDULE

WEIGHTS = Path(__file__).parents[2] / "rehearsal" / "weights"
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}  # fmt: skip
EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **SCHEDULE,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "trained_betas": None,
}


def vae(model, latents: torch.Tensor | None, folder: Path = WEIGHTS) -> None:
    """Write the VAE as diffusers does.

    `latents`, where given, are unscaled and set the scaling factor to 1/std.
    """
    if latents is not None:
        model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    _half(model).save_pretrained(folder / "vae")


def words(text_encoder, folder: Path = WEIGHTS) -> None:
    """Write the text encoder and tokenizer, which base and studio share."""
    _half(text_encoder).save_pretrained(folder / "text_encoder")
    tokenizer.write(folder / "tokenizer")


def text2image(name: str, unet, folder: Path = WEIGHTS, spacing: str = "") -> None:
    """Write UNet, scheduler config and model index.

    The catalogue's `parts` add VAE, text encoder and tokenizer.
    """
    _half(unet).save_pretrained(folder / name / "unet")
    scheduler = {
        "_class_name": "PNDMScheduler",
        **SCHEDULE,
        "prediction_type": "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    scheduler |= {"skip_prk_steps": True, "steps_offset": 1, "trained_betas": None}
    if spacing:
        scheduler = EULER | {"timestep_spacing": spacing, "prediction_type": "epsilon"}
    _json(folder / name / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    _json(
        folder / name / "model_index.json",
        index
        | {part: PARTS[part] for part in ("unet", "vae", "text_encoder", "tokenizer")}
        | _scheduled(scheduler),
    )


def second_encoder(text_encoder, folder: Path = WEIGHTS) -> None:
    _half(text_encoder).save_pretrained(folder / "text_encoder_2")


def xl(unet, folder: Path = WEIGHTS) -> None:
    """Write a folder in SDXL's layout, for v-prediction."""
    _half(unet).save_pretrained(folder / "xl" / "unet")
    scheduler = EULER | {
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "prediction_type": "v_prediction",
    }
    _json(folder / "xl" / "scheduler" / "scheduler_config.json", scheduler)
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": False}
    _json(folder / "xl" / "model_index.json", index | PARTS | _scheduled(scheduler))


def refiner(unet, folder: Path = WEIGHTS) -> None:
    """Write a folder in the layout of SDXL's refiner."""
    _half(unet).save_pretrained(folder / "refiner" / "unet")
    scheduler = EULER | {
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }
    _json(folder / "refiner" / "scheduler" / "scheduler_config.json", scheduler)
    parts = PARTS | {"text_encoder": [None, None], "tokenizer": [None, None]}
    index = {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
    }
    _json(folder / "refiner" / "model_index.json", index | parts | _scheduled(scheduler))


def _scheduled(scheduler: dict) -> dict:
    return {"scheduler": ["diffusers", scheduler["_class_name"]]}


def clip_model(model, folder: Path = WEIGHTS) -> None:
    """Write an open_clip folder: config, weights and tokenizer."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from safetensors.torch import save_file

    out = folder / "clip"
    tokenizer.write(out)
    size = len(json.loads((out / "vocab.json").read_text(encoding="utf-8")))
    text = CONFIG["text_cfg"] | {"vocab_size": size}
    preprocess = {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
    }
    _json(
        out / "open_clip_config.json",
        {"model_cfg": CONFIG | {"text_cfg": text}, "preprocess_cfg": preprocess},
    )
    state = {
        k: v.half().contiguous() if v.is_floating_point() and "running" not in k else v.contiguous()
        for k, v in model.state_dict().items()
    }
    save_file(state, out / "open_clip_model.safetensors")


def upscaler(name: str, model: nn.Module, folder: Path = WEIGHTS) -> None:
    """Write a network of spandrel as one .safetensors file, one of transformers as its folder."""
    from safetensors.torch import save_file

    (folder / name).mkdir(parents=True, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        _half(model).save_pretrained(folder / name)
        _json(
            folder / name / "preprocessor_config.json",
            {
                "image_processor_type": "Swin2SRImageProcessor",
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_pad": True,
                "pad_size": 8,
            },
        )
    else:
        save_file(
            {k: v.half().contiguous() for k, v in model.state_dict().items()},
            folder / name / "model.safetensors",
            metadata={"format": "pt"},
        )


def _half(model):
    half = copy.deepcopy(model).half().cpu()
    if hasattr(half, "register_to_config"):
        half.register_to_config(_name_or_path="")  # names the folder that training started from
    return half


def _json(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
