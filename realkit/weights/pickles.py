"""Pickled checkpoints → .safetensors, through torch's restricted unpickler, which runs no code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from realkit.base import cache
from realkit.base.errors import RequestError, one_line
from realkit.weights.folders import WEIGHTS
from realkit.weights.sources import web

ALLOW_PICKLE = (  # "1": read pickled checkpoints too, by torch's restricted, weights-only unpickler
    "REALKIT_ALLOW_PICKLE"
)
_PICKLES = ContextVar("pickles", default=False)


def pickles_allowed() -> bool:
    return _PICKLES.get() or os.environ.get(ALLOW_PICKLE, "") not in ("", "0")


@contextmanager
def reading_pickles() -> Iterator[None]:
    """Within it pickled weights are read, by the restricted unpickler: upscalers are published so,
    and there is no other file to take."""
    before = _PICKLES.set(True)
    try:
        yield
    finally:
        _PICKLES.reset(before)


def allow_pickle(name: str, pickled: bool) -> None:
    """Raise RequestError for pickled weights, unless they were asked for."""
    if pickled and not pickles_allowed():
        raise RequestError(
            f"Weight file {Path(name).name!r}: expected .safetensors; pickled checkpoints can run"
            f" code when loaded. Take another file, convert it, or set {ALLOW_PICKLE}=1 to read it"
            " by the restricted unpickler"
        )


def check_safetensors(path: Path) -> None:
    """Raise RequestError when a file is not .safetensors, when its header is not one or does not
    fit its length, or when it holds no tensor."""
    from safetensors import SafetensorError, safe_open

    allow_pickle(path.name, path.suffix not in WEIGHTS)
    if path.suffix not in WEIGHTS:
        return
    try:
        with safe_open(path, framework="np") as file:
            empty = not file.keys()
    except (SafetensorError, OSError) as error:
        reason = "it is a folder" if path.is_dir() else one_line(error, 120)
        raise RequestError(
            f"Weight file {str(path)!r} has no valid safetensors header ({reason}): download it"
            " again"
        ) from error
    if empty:
        raise RequestError(f"Weight file {str(path)!r} holds no tensor: download it again")


def is_pickle(name: str) -> bool:
    return Path(name).suffix not in WEIGHTS


def plain_file(path: Path, sha: str) -> Path:
    """The file itself, or where it is pickled what the restricted unpickler reads of it, as
    .safetensors."""
    if not is_pickle(path.name):
        check_safetensors(path)
        return path

    allow_pickle(path.name, True)
    return converted(path, sha)


KNOWN = ("state_dict", "params_ema", "params", "model")  # under what checkpoints keep their tensors
DEEPEST = 4  # of these within each other; a pickle can hold itself


def converted(path: Path, sha: str) -> Path:
    """The tensors of a pickled checkpoint (.bin, .ckpt, .pt, .pth) as a .safetensors file in the
    cache. Raises RequestError where it holds anything else."""
    made = cache.cache_folder("converted") / f"{sha}.safetensors"
    if made.is_file():
        return made
    tensors = _tensors(path)
    called, needed = (
        f"Checkpoint {path.name!r} as .safetensors",
        sum(value.numel() * value.element_size() for value in tensors.values()),
    )
    cache.room(made.parent, needed, called)
    try:
        _save(tensors, made)
    except Exception as error:
        if number := re.search(
            r"os error (\d+)", str(error)
        ):  # safetensors gives a system's error in words
            error = OSError(int(number[1]), os.strerror(int(number[1])))
        if isinstance(error, OSError):
            raise cache.unwritten(called, made.parent, error, needed) from None
        raise RequestError(
            f"Checkpoint {path.name!r} cannot be made a .safetensors file"
            f" ({web.scrubbed(error)[:160]}): take one"
        ) from None
    return made


def _save(tensors: dict[str, Any], made: Path) -> None:
    """Write a file, whole or not at all."""
    from safetensors.torch import save_file

    part = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(made)
    finally:
        part.unlink(missing_ok=True)


def _tensors(path: Path) -> dict[str, Any]:
    """What a checkpoint holds by name, contiguous and each in memory of its own."""
    import torch

    found = _read(path)
    for _ in range(DEEPEST):
        if not isinstance(found, dict) or any(
            isinstance(value, torch.Tensor) for value in found.values()
        ):
            break
        found = next((found[key] for key in KNOWN if isinstance(found.get(key), dict)), {})
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise RequestError(
            f"Checkpoint {path.name!r} holds {type(found).__name__}, expected tensors by name: take"
            " a .safetensors file"
        )
    tensors = {
        str(name): value.contiguous().clone()
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise RequestError(
            f"Checkpoint {path.name!r} holds no tensors under any known name: take a .safetensors"
            " file"
        )
    return tensors


def _read(path: Path) -> Any:
    """What the restricted unpickler makes of a file. Of torch's error only the name of what it
    refuses is said: its advice is to read the file unrestricted."""
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it refuses in many ways; each means that the file is not read
        said, lost = str(error), "take a .safetensors file"
        if isinstance(error, OSError) and error.filename:
            why = f"cannot be read: {error.strerror}"
        elif isinstance(error, MemoryError) or "allocate memory" in said:
            why, lost = (
                "does not fit into memory",
                "shut down other programs, or take a .safetensors file",
            )
        elif refused := re.search(r"GLOBAL ([\w.]{1,80})|(TorchScript) archive", said):
            why = f"holds more than tensors (refused: {refused[1] or refused[2]})"
        elif isinstance(error, pickle.UnpicklingError):
            why = "holds more than tensors, or is damaged"
        else:
            why, lost = "is damaged", "fetch it again, or take a .safetensors file"
        raise RequestError(f"Checkpoint {path.name!r} {why}: {lost}") from None
