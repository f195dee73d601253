"""This machine's disk: the package's weights, the shipped configs, mounts, files and folders."""

from __future__ import annotations

import contextlib
import os
from importlib import resources
from pathlib import Path

from realkit.base import cache
from realkit.base.cache import GIB
from realkit.base.errors import RequestError
from realkit.base.files import json_object
from realkit.weights import checkpoints
from realkit.weights.folders import PICKLED, WEIGHTS, canonical, chosen, ends
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.pickles import allow_pickles, check_safetensors, plain_file
from realkit.weights.reference import existing_path, parse
from realkit.weights.sources import inputs

MOST_ENTRIES = 10_000  # files and folders below the folder of a model
MOST_BYTES = 256 * GIB  # of the files that are read and hashed


def local(text: str) -> Path | None:
    """The path that a reference means on this disk; None where it may mean something elsewhere.

    Raises RequestError for what the package does not ship and for an input that is not attached.
    """
    ref = parse(text)
    if ref.kind == "package":
        path = Path(str(resources.files("realkit.rehearsal"))) / "weights" / ref.name
        if not path.exists():
            raise RequestError(f"The package ships no {text!r}: reinstall realkit")
        return path
    if ref.kind == "config":
        return _shipped_config(ref.name)
    if there := existing_path(text):
        mounted = any(there.is_relative_to(root) for root in inputs.roots())
        return inputs.model_in(there) if mounted else there
    if mount := inputs.explicit(text):
        return inputs.model_in(mount)
    return None


def _shipped_config(kind: str) -> Path:
    path = checkpoints.folder(kind)
    if not kind or not (path / "model_index.json").is_file():
        raise RequestError(
            f"Configs {kind!r}: expected one of {', '.join(checkpoints.KINDS)}, or a folder of"
            " diffusers configs"
        )
    return path


def lock(ref: str, path: Path, variant: str = "", weights: bool = False) -> Lock:
    """The lock of an existing file or folder, after a check of its weights' headers."""
    if path.is_file():
        check_safetensors(path)
        return Lock(ref, "file", files={SINGLE: cache.sha256(path)})
    names = _names(ref, path)
    index = {}
    if "model_index.json" in names:
        index = json_object(path / "model_index.json")
    variant, names = chosen(names, index, variant)
    heavy = [name for name in names if ends(name, WEIGHTS + PICKLED)]
    if not names or (weights and not heavy):
        raise RequestError(
            f"Folder {ref!r} holds no weights: expected a diffusers folder with .safetensors files"
        )
    allow_pickles(f"Folder {ref!r}", heavy)
    size = sum((path / name).stat().st_size for name in names)
    if size > MOST_BYTES:
        raise RequestError(
            f"Folder {ref!r} holds {cache.readable(size)} of weights and configs, expected at most"
            f" {cache.readable(MOST_BYTES)}: give the folder of one model"
        )
    for name in heavy:
        check_safetensors(path / name)
    files = {name: cache.sha256(path / name) for name in names}
    return Lock(ref, "folder", variant=variant, files=files)


def _names(ref: str, path: Path) -> list[str]:
    """The files below a folder, sorted. Raises RequestError for more than a model's folder has: a
    home folder or a whole disk would be read for hours."""
    names = []
    count = 0
    for folder, folders, files in os.walk(path):
        count += len(folders) + len(files)
        if count > MOST_ENTRIES:
            raise RequestError(
                f"Folder {ref!r} holds more than {MOST_ENTRIES:,} files and folders: give the"
                " folder of one model"
            )
        for name in files:
            file = Path(folder, name)
            with contextlib.suppress(PermissionError):  # of a link that may not be followed
                if file.is_file():
                    names.append(file.relative_to(path).as_posix())
    return sorted(names)


def locked_path(locked: Lock) -> Path:
    """Where a lock of this disk lies. Raises RequestError where it no longer exists."""
    path = local(locked.ref)
    if path is None:
        raise RequestError(
            f"{locked.ref!r} no longer exists: restore it, or use a new results folder"
        )
    return path


def view(path: Path, locked: Lock) -> Path:
    """A folder in the plain layout: itself, or links in the cache that give its files plain names.

    Pickled weights are linked as their .safetensors conversion.
    """
    plain = {name: canonical(name, locked.variant) for name in locked.files}
    if list(plain) == list(plain.values()):
        return path
    view = cache.cache_folder("views", locked.digest()[:32])
    for name, other in plain.items():
        target = path / name
        if ends(name, PICKLED):
            target = plain_file(target, locked.files[name])
        cache.link(view / other, target.resolve())
    return view
