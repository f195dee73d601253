"""A model's configs → its networks without memory, to be compared with its files' tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import json_object
from realkit.models.families import PART_CLASSES
from realkit.models.lock import ModelLock
from realkit.models.parts import class_at, vae_class
from realkit.weights import resolve

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]

# Settings that say how many layers a network has
COUNTS = re.compile(r"layers|blocks|block_types|block_out_channels")
# The files that hold a tokenizer's words, any one of these sets
VOCABULARIES = (("vocab.json", "merges.txt"), ("tokenizer.json",), ("spiece.model",))


def folder(lock: ModelLock, part: str) -> Path:
    """The folder of a part's config. Raises RequestError where the model lacks its network."""
    path = resolve.fetch(lock.configs) / part
    needed = part in PART_CLASSES and not part.startswith("tokenizer")
    if needed and not (path / "config.json").is_file():
        raise RequestError(
            f"Model {lock.name!r} does not load from {lock.configs.ref!r}: it lacks its {part}"
            f" ({part}/config.json): name it in the `parts` of a catalogue entry, or download the"
            " model again"
        )
    return path


def network(
    lock: ModelLock, part: str, indexed: Any, folder: Path, held: Shapes
) -> torch.nn.Module | None:
    """A part's network on the meta device; None for a tokenizer and the like. `held` are the
    tensors that are there for it."""
    import torch
    from accelerate import init_empty_weights

    if part == lock.family.vae:
        kind = class_at(vae_class(lock, folder))
    else:
        named = isinstance(indexed, list) and all(indexed)
        library, name = indexed if named else PART_CLASSES[part]
        if part.startswith("tokenizer"):
            _check_tokenizer(lock, part, name, folder)
        if library not in ("diffusers", "transformers"):
            return None
        kind = class_at(f"{library}.{name}")
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        return None
    _check_counts(lock, part, json_object(folder / "config.json"), held)
    try:
        with init_empty_weights(include_buffers=True):
            if hasattr(kind, "config_class") and kind.config_class is not None:
                return kind(kind.config_class.from_pretrained(folder))
            return kind.from_config(kind.load_config(folder))  # type: ignore[attr-defined, no-any-return]
    except Exception as error:  # the libraries raise what the config provokes
        reason = one_line(error, 160) or type(error).__name__
        raise RequestError(
            f"Model {lock.name!r} does not load: the config of its {part} describes no network"
            f" ({reason}). Download it again"
        ) from error


def _check_counts(lock: ModelLock, part: str, config: Mapping[str, Any], held: Shapes) -> None:
    """Raise RequestError for a config that asks for more layers than the files have tensors, or
    for positions that no tensor has: building such a network takes hours, or all memory."""
    for name, value in config.items():
        most = 0
        if COUNTS.search(name):
            for count in value if isinstance(value, list) else [value]:
                most = max(most, count if isinstance(count, int) else 0)
            most = max(most, len(value) if isinstance(value, list) else 0)
        if isinstance(value, Mapping):
            _check_counts(lock, part, value, held)
        sides = value if name == "pos_embed_max_size" and isinstance(value, int) else 0
        if most > len(held) or (sides and not any(sides**2 in shape for shape in held.values())):
            raise RequestError(
                f"Model {lock.name!r} does not load: the config of its {part} gives {name} the"
                f" value {shown(value)}, which does not belong to its {len(held)} tensors:"
                " download it again"
            )


def _check_tokenizer(lock: ModelLock, part: str, kind: str, folder: Path) -> None:
    """Raise RequestError for a tokenizer of another kind than its text encoder's, and for one
    without its vocabulary: transformers makes other words of it, or an empty one, without a
    word."""
    usual = PART_CLASSES.get(part, ("", kind))[1]
    if kind[:2] != usual[:2]:
        raise RequestError(
            f"Model {lock.name!r} does not load: its {part} is a {kind}, and its text encoder needs"
            f" a {usual}: download it again"
        )
    there = {path.name for path in folder.glob("*")}
    if not any(there.issuperset(names) for names in VOCABULARIES):
        raise RequestError(
            f"Model {lock.name!r} does not load: its {part} has no vocabulary ({part}/vocab.json"
            " and merges.txt, tokenizer.json, or spiece.model): download it again"
        )
