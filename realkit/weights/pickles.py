"""Pickled checkpoints → .safetensors, through torch's restricted unpickler, which runs no code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from realkit.base import cache, contents
from realkit.base.errors import RequestError, one_line
from realkit.weights import pickle_sizes
from realkit.weights.folders import WEIGHTS, ends

ALLOW_PICKLE = "REALKIT_ALLOW_PICKLE"  # environment: "1" reads pickled checkpoints too
# Keys that hold a checkpoint, all that spandrel knows. The first that a file has counts: a new key
# goes last, so that a file keeps its meaning.
TENSORS_UNDER = (
    "state_dict", "params_ema", "params", "model", "params-ema", "net", "model_state_dict",
)  # fmt: skip
DEEPEST = 4  # levels of such keys; a pickle can contain itself
_PICKLES = ContextVar("pickles", default=False)


def pickles_allowed() -> bool:
    return _PICKLES.get() or os.environ.get(ALLOW_PICKLE, "") not in ("", "0")


@contextmanager
def reading_pickles() -> Iterator[None]:
    """Allow pickled weights within the block: upscalers are published in no other format."""
    token = _PICKLES.set(True)
    try:
        yield
    finally:
        _PICKLES.reset(token)


def is_pickle(name: str) -> bool:
    return not ends(name, WEIGHTS)


def allow_pickle(name: str) -> None:
    """Raise RequestError for a pickled weight file, unless pickles are allowed."""
    if is_pickle(name) and not pickles_allowed():
        raise RequestError(
            f"Weight file {Path(name).name!r}: expected .safetensors; pickled checkpoints can run"
            f" code when loaded. Take another file, convert it, or set {ALLOW_PICKLE}=1 to read it"
            " by the restricted unpickler"
        )


def allow_pickles(holder: str, names: Iterable[str]) -> None:
    """Raise RequestError for a folder or repository whose chosen weights are pickled."""
    for name in names:
        if is_pickle(name) and not pickles_allowed():
            raise RequestError(
                f"{holder} holds {name!r} without a .safetensors file beside it: pickled weights"
                " can run code when loaded. Take another model or one of its single files, convert"
                f" them, or set {ALLOW_PICKLE}=1 to read them by the restricted unpickler"
            )


def check_safetensors(path: Path) -> None:
    """Raise RequestError for a damaged .safetensors header, for a file without tensors, and for a
    pickle that is not allowed."""
    from safetensors import safe_open

    if is_pickle(path.name) and (instead := contents.mistaken(path, contents.PICKLE)):
        raise RequestError(f"Weight file {str(path)!r} is no pickled checkpoint: {instead}")
    allow_pickle(path.name)
    if is_pickle(path.name):
        return
    try:
        with safe_open(path, framework="np") as file:
            empty = not file.keys()
    except Exception as error:  # safetensors', the system's, and Python's at what is no text
        if instead := contents.mistaken(path, contents.SAFETENSORS):
            raise RequestError(
                f"Weight file {str(path)!r} has no valid safetensors header: {instead}"
            ) from error
        reason = "it is a folder" if path.is_dir() else one_line(error, 120)
        raise RequestError(
            f"Weight file {str(path)!r} has no valid safetensors header ({reason}): download it"
            " again"
        ) from error
    if empty:
        raise RequestError(f"Weight file {str(path)!r} holds no tensor: download it again")


def plain_file(path: Path, sha: str) -> Path:
    """The checked file itself, or the .safetensors conversion of a pickle."""
    check_safetensors(path)
    if is_pickle(path.name):
        return converted(path, sha)
    if path.suffix == WEIGHTS[0]:
        return path
    view = cache.cache_folder("views", sha[:32]) / f"{path.stem}{WEIGHTS[0]}"
    cache.link(view, path.resolve())  # loaders judge a file by its ending, in small letters
    return view


def converted(path: Path, sha: str) -> Path:
    """The tensors of a pickled checkpoint (.bin, .ckpt, .pt, .pth) as a .safetensors file in the
    cache. Raises RequestError where it holds anything else."""
    target = cache.cache_folder("converted") / f"{sha}.safetensors"
    if target.is_file():
        return target
    tensors = _tensors(path)
    called = f"Checkpoint {path.name!r} as .safetensors"
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    cache.room(target.parent, size, called)
    try:
        _save(tensors, target)
    except Exception as error:
        # safetensors puts a system's error into words
        if number := re.search(r"os error (\d+)", str(error)):
            error = OSError(int(number[1]), os.strerror(int(number[1])))
        if isinstance(error, OSError):
            raise cache.unwritten(called, target.parent, error, size) from None
        raise RequestError(
            f"Checkpoint {path.name!r} cannot be converted to .safetensors"
            f" ({type(error).__name__}: {one_line(error, 140)}): take a .safetensors file"
        ) from None
    return target


def _save(tensors: dict[str, Any], target: Path) -> None:
    """Write a file, whole or not at all."""
    from safetensors.torch import save_file

    part = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _tensors(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors by name, contiguous and each in memory of its own."""
    import torch

    content = _read(path)
    for _ in range(DEEPEST):
        inner = _inner(content)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        raise RequestError(
            f"Checkpoint {path.name!r} holds {type(content).__name__}, expected tensors by name:"
            " take a .safetensors file"
        )
    tensors = {}
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized:
                raise RequestError(
                    f"Checkpoint {path.name!r} holds {str(name)!r} as a sparse, quantised or empty"
                    " tensor: take a .safetensors file"
                )
            tensors[str(name)] = value.contiguous().clone()
    if not tensors:
        raise RequestError(
            f"Checkpoint {path.name!r} holds no tensors under any known name: take a .safetensors"
            " file"
        )
    return tensors


def _inner(content: Any) -> dict[Any, Any] | None:
    """The dictionary below one of TENSORS_UNDER, or below a file's only key; "state_dict" also
    beside loose tensors."""
    import torch

    if not isinstance(content, dict):
        return None
    flat = any(isinstance(value, torch.Tensor) for value in content.values())
    for key in TENSORS_UNDER[:1] if flat else TENSORS_UNDER:
        if isinstance(content.get(key), dict):
            return content[key]
    only = next(iter(content.values())) if len(content) == 1 else None
    return only if isinstance(only, dict) else None


def _read(path: Path) -> Any:
    """What the restricted unpickler reads. Of torch's error only the refused name is repeated: its
    advice is to read the file unrestricted."""
    import pickle

    import torch

    try:
        pickle_sizes.check(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle_sizes.Oversized as error:
        raise RequestError(
            f"Checkpoint {path.name!r} {error}: fetch it again, or take a .safetensors file"
        ) from None
    except Exception as error:  # it refuses in many ways; each means that the file is not read
        if instead := contents.mistaken(path, contents.PICKLE):
            raise RequestError(
                f"Checkpoint {path.name!r} is no pickled checkpoint: {instead}"
            ) from None
        message, advice = str(error), "take a .safetensors file"
        if isinstance(error, OSError) and error.filename:
            reason = f"cannot be read: {error.strerror}"
        elif isinstance(error, MemoryError) or "allocate memory" in message:
            reason = "does not fit into memory"
            advice = "shut down other programs, or take a .safetensors file"
        elif refused := re.search(r"GLOBAL ([\w.]{1,80})|(TorchScript) archive", message):
            reason = f"holds more than tensors (refused: {refused[1] or refused[2]})"
        elif isinstance(error, pickle.UnpicklingError):
            reason = "holds more than tensors, or is damaged"
        else:
            reason, advice = "is damaged", "fetch it again, or take a .safetensors file"
        raise RequestError(f"Checkpoint {path.name!r} {reason}: {advice}") from None
