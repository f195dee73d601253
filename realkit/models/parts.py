"""Parts of a model: the VAE, and other parts that replace its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import files
from realkit.base.errors import RequestError
from realkit.models.families import PART_CLASSES
from realkit.models.lock import ModelLock
from realkit.weights import checkpoints, resolve
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch

TINY = "diffusers.AutoencoderTiny"  # the class of TAESD


def class_at(path: str) -> Any:
    """The class at a dotted path."""
    module_path, _, name = path.rpartition(".")
    module = importlib.import_module(module_path)
    if name == "PaellaVQModel":
        # Stable Cascade's index names it in a module that newer versions of diffusers removed.
        pipelines = importlib.import_module("diffusers.pipelines")
        if not hasattr(pipelines, "wuerstchen"):
            pipelines.wuerstchen = module  # type: ignore[attr-defined]
    return getattr(module, name)


def vae_class(locked: ModelLock, folder: Path) -> str:
    """The dotted name of a VAE's class: TAESD's where its config says so, else the family's."""
    config = files.json_object(folder / "config.json")
    return TINY if config.get("_class_name") == "AutoencoderTiny" else locked.family.vae_class


def load_vae(locked: ModelLock, number: torch.dtype) -> Any:
    """The VAE, from the part that replaces it or from the main reference.

    float32 where its config says that float16 overflows it.
    """
    family = locked.family
    part = locked.parts.get(family.vae)
    source = part or locked.main
    if part and not part.single:
        folder = resolve.fetch(part)
    else:
        folder = resolve.fetch(locked.configs) / family.vae
    config = files.json_object(folder / "config.json")
    kind = class_at(vae_class(locked, folder))
    common = {"dtype": vae_dtype(config, number), "local_files_only": True}
    if source.single:
        return kind.from_single_file(str(resolve.fetch(source)), config=str(folder), **common)
    return kind.from_pretrained(str(folder), use_safetensors=True, **common)


def load_part(name: str, of: Lock, number: torch.dtype, locked: ModelLock, indexed: Any) -> Any:
    """A part that replaces the model's own, of the class that the model's index names."""
    named = isinstance(indexed, list) and all(indexed)
    library, kind = indexed if named else PART_CLASSES[name]
    part_class = getattr(importlib.import_module(library), kind)
    path = resolve.fetch(of)
    if name.startswith("tokenizer"):
        return part_class.from_pretrained(path)
    if not of.single:
        return part_class.from_pretrained(path, dtype=number, use_safetensors=True)
    if library != "diffusers":
        raise RequestError(
            f"Part {name!r} of model {locked.name!r} is a single file: expected a folder with its"
            " config.json"
        )
    config = str(resolve.fetch(locked.configs) / name)
    common = {"dtype": number, "local_files_only": True}
    return part_class.from_single_file(str(path), config=config, **common)


def load_tower(part: str, path: Path, number: torch.dtype, locked: ModelLock, kind: Any) -> Any:
    """A text encoder of a single file whose names lack the level `text_model`, which diffusers
    does not read."""
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from safetensors import safe_open

    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if checkpoints.with_level(name) != name:
                tensors[checkpoints.with_level(name)] = file.get_tensor(name)
    return create_diffusers_clip_model_from_ldm(
        kind,
        tensors,
        subfolder=part,
        config=str(resolve.fetch(locked.configs)),
        torch_dtype=number,
        local_files_only=True,
    )


def vae_dtype(config: dict[str, Any], number: torch.dtype) -> torch.dtype:
    """The number format of a VAE in a model of format `number`.

    A config with `force_upcast`, such as SDXL's own, says that float16 overflows: float32.
    """
    import torch

    if number == torch.float16 and config.get("force_upcast"):
        return torch.float32
    return number
