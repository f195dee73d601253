"""Parts of a model: the VAE and other parts that replace its own, and LoRAs merged into its
weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import files
from realkit.base.errors import RequestError
from realkit.models.families import FAMILIES, PART_CLASSES
from realkit.models.lock import ModelLock
from realkit.weights import resolve
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch

TINY = "diffusers.AutoencoderTiny"  # what TAESD is


def class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    found = importlib.import_module(module)
    if name == "PaellaVQModel" and not hasattr(
        pipelines := importlib.import_module("diffusers.pipelines"), "wuerstchen"
    ):
        # where Stable Cascade's index names it, and diffusers has it no more
        pipelines.wuerstchen = found  # type: ignore[attr-defined]
    return getattr(found, name)


def load_vae(locked: ModelLock, number: torch.dtype) -> Any:
    """The VAE, from the part that replaces it or the main reference; in float32 where its config
    says that float16 overflows it."""
    family = FAMILIES[locked.spec.family]
    part = locked.parts.get(family.vae)
    if part and not part.single:
        of, config_at = part, resolve.fetch(part)
    else:
        of, config_at = part or locked.main, resolve.fetch(locked.configs) / family.vae
    config = files.json_object(config_at / "config.json")
    number = vae_dtype(config, number)
    kind = class_at(TINY if config.get("_class_name") == "AutoencoderTiny" else family.vae_class)
    if of.single:
        return kind.from_single_file(
            str(resolve.fetch(of)), config=str(config_at), dtype=number, local_files_only=True
        )
    return kind.from_pretrained(
        str(config_at), dtype=number, local_files_only=True, use_safetensors=True
    )


def load_part(name: str, of: Lock, number: torch.dtype, locked: ModelLock, indexed: Any) -> Any:
    """A part that replaces the model's own, of the class that the model's index names."""
    library, kind = indexed if isinstance(indexed, list) and all(indexed) else PART_CLASSES[name]
    module = getattr(importlib.import_module(library), kind)
    path = resolve.fetch(of)
    if name.startswith("tokenizer"):
        return module.from_pretrained(path)
    if of.single:
        if library != "diffusers":
            raise RequestError(
                f"Part {name!r} of model {locked.name!r} is a single file: expected a folder with"
                " its config.json"
            )
        return module.from_single_file(
            str(path),
            config=str(resolve.fetch(locked.configs) / name),
            dtype=number,
            local_files_only=True,
        )
    return module.from_pretrained(path, dtype=number, use_safetensors=True)


def merge_lora(pipe: Any, ref: str, path: Path, weight: float) -> None:
    """Add a LoRA to the weights, once: no cost while denoising, and no other state to offload."""
    from safetensors.torch import load_file

    try:
        import peft  # noqa: F401
    except ImportError:
        raise RequestError(f"LoRA {ref!r} needs the package peft: pip install peft") from None
    pipe.load_lora_weights(load_file(path), adapter_name="one")
    pipe.fuse_lora(lora_scale=weight)
    pipe.unload_lora_weights()


def vae_dtype(config: dict[str, Any], number: torch.dtype) -> torch.dtype:
    """float32 for a VAE whose config says that float16 overflows it (SDXL's own: `force_upcast`),
    where float16 is what the rest runs in."""
    import torch

    return torch.float32 if number == torch.float16 and config.get("force_upcast") else number
