"""References → locks that fix their contents, and files on disk that one loader can read.

A lock holds the SHA-256 of what is loaded, not where it was found: a model attached to a Kaggle
notebook and the same model from the hub give the same ids.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from realkit.base.errors import RequestError, shown
from realkit.base.files import json_object
from realkit.weights.folders import PICKLED, WEIGHTS, ends
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.pickles import plain_file
from realkit.weights.reference import parse
from realkit.weights.sources import civitai, disk, huggingface, web


def lock(
    text: str, *, weights: bool = False, variant: str = "", left_out: Collection[str] = ()
) -> Lock:
    """Resolve a reference: on disk, then among the inputs, then in the network.

    With `weights`, a folder must hold some. `variant` is used where the reference names none and
    the folder has it. `left_out` are parts of a pipeline that come from elsewhere or not at all:
    only their configs are locked. Raises RequestError when the reference names nothing, or when
    weights are damaged or pickled.
    """
    locked = _lock(text, weights, variant)
    files = {}
    for name, sha in locked.files.items():
        part = name.split("/")[0]
        if part not in left_out or not ends(name, WEIGHTS + PICKLED):
            files[name] = sha
    return replace(locked, files=files)


def _lock(text: str, weights: bool, variant: str) -> Lock:
    ref = parse(text)
    if path := disk.local(str(ref)):
        return disk.lock(str(ref), path, variant, weights)
    if ref.kind == "civitai":
        return civitai.lock(ref)
    if ref.kind == "url":
        return web.lock(ref)
    if ref.kind == "hub":
        return huggingface.lock(ref, variant, weights)
    raise RequestError(
        f"No such file or folder: {shown(text)}. Give a catalogue name (realkit list models), a"
        " hub id, or an existing path"
    )


def verify(locked: Lock) -> None:
    """Raise RequestError when a reference on disk is gone or has changed since it was locked."""
    if locked.kind not in ("folder", "file"):
        return
    files = disk.lock(locked.ref, disk.locked_path(locked), locked.variant).files
    # Weights in a folder of which no weights are locked were left out: they may change.
    heavy = {PurePosixPath(name).parent for name in locked.files if ends(name, WEIGHTS)}
    names = set(locked.files)
    for name in files:
        if not ends(name, WEIGHTS) or PurePosixPath(name).parent in heavy:
            names.add(name)
    for name in sorted(names):
        if files.get(name) != locked.files.get(name):
            place = f"{name!r} in {locked.ref!r}" if locked.kind == "folder" else repr(locked.ref)
            raise RequestError(
                f"{place} has changed since this results folder was made: restore the old file, or"
                " use a new results folder"
            )


def fetch(locked: Lock) -> Path:
    """What a lock means, on disk and verified: a folder in the plain layout, or a .safetensors
    file. Raises RequestError."""
    if locked.kind in ("folder", "file"):
        path = disk.locked_path(locked)
    elif locked.kind == "civitai":
        path = civitai.fetch(locked)
    elif locked.kind == "url":
        path = web.fetch(locked)
    else:
        path = huggingface.fetch(locked)
    return plain_file(path, locked.files[SINGLE]) if locked.single else disk.view(path, locked)


def read_json(locked: Lock, name: str) -> dict[str, Any]:
    """A small JSON file of a locked folder, without fetching the weights; {} where it has none."""
    if name not in locked.files and locked.kind == "hub":
        return {}
    if locked.kind == "hub":
        path = huggingface.small_file(locked, name)
    else:
        path = disk.locked_path(locked) / name
    return json_object(path) if path.is_file() else {}
