"""Pickled checkpoints → .safetensors, through torch's restricted unpickler, which runs no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from realkit import downloads
from realkit.errors import RequestError


def converted(path: Path, sha: str) -> Path:
    """The tensors of a pickled checkpoint (.bin, .ckpt, .pt, .pth) as a .safetensors file in the cache. Raises RequestError where it holds anything else."""
    made = downloads.folder("converted") / f"{sha}.safetensors"
    if made.is_file():
        return made
    import torch
    from safetensors.torch import save_file

    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler refuses in many words; each means that the file is not read
        said = " ".join(str(error).split())[:160]
        raise RequestError(f"Checkpoint {path.name!r} holds more than tensors, or is damaged ({said}): take a .safetensors file") from None
    while isinstance(found, dict) and not any(isinstance(value, torch.Tensor) for value in found.values()):
        inner = next((found[key] for key in ("state_dict", "params_ema", "params", "model") if isinstance(found.get(key), dict)), None)
        if inner is None:
            raise RequestError(f"Checkpoint {path.name!r} holds no tensors under any known name: take a .safetensors file")
        found = inner
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise RequestError(f"Checkpoint {path.name!r} holds {type(found).__name__}, expected tensors by name: take a .safetensors file")
    tensors = {str(name): value.contiguous().clone() for name, value in found.items() if isinstance(value, torch.Tensor)}
    part = made.with_name(f"{made.name}.{os.getpid()}")
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(made)
    return made
