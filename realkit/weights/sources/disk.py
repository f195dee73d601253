"""References on this machine's disk: the package, the shipped configs, local files and folders."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from realkit.base import cache
from realkit.base.errors import RequestError
from realkit.base.files import json_object
from realkit.weights import checkpoints
from realkit.weights.checkpoints import KINDS
from realkit.weights.folders import PICKLED, WEIGHTS, canonical, chosen
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.pickles import (
    ALLOW_PICKLE,
    check_safetensors,
    is_pickle,
    pickles_allowed,
    plain_file,
)
from realkit.weights.reference import CONFIG, PACKAGE
from realkit.weights.sources import inputs


def local(ref: str) -> Path | None:
    """The path of a package, mount or local reference that exists; None for one that may mean
    something elsewhere."""
    if ref.startswith(PACKAGE):
        path = (
            Path(str(resources.files("realkit.rehearsal"))) / "weights" / ref.removeprefix(PACKAGE)
        )
        if not path.exists():
            raise RequestError(f"The package ships no {ref!r}: reinstall realkit")
        return path
    if ref.startswith(CONFIG):
        return _shipped_config(ref.removeprefix(CONFIG))
    try:
        path = Path(ref).expanduser()
        if path.exists():
            return (
                inputs.model_in(path)
                if path.is_dir() and any(path.is_relative_to(root) for root in inputs.roots())
                else path
            )
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return None
    if mounted := inputs.explicit(ref):
        return inputs.model_in(mounted) if mounted.is_dir() else mounted
    return None


def _shipped_config(kind: str) -> Path:
    path = checkpoints.folder(kind)
    if not kind or not (path / "model_index.json").is_file():
        raise RequestError(
            f"Configs {kind!r}: expected one of {', '.join(KINDS)}, or a folder of diffusers"
            " configs"
        )
    return path


def lock_of_disk(ref: str, path: Path, variant: str, weights: bool) -> Lock:
    """The lock of a folder or file that is there, its weights' headers checked."""
    if path.is_file():
        check_safetensors(path)
        return Lock(ref, "file", files={SINGLE: cache.sha256(path)})
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    index = json_object(path / "model_index.json") if "model_index.json" in names else {}
    variant, kept = chosen(names, index, variant)
    heavy = [name for name in kept if Path(name).suffix in (*WEIGHTS, *PICKLED)]
    if not kept or (weights and not heavy):
        raise RequestError(
            f"Folder {ref!r} holds no weights: expected a diffusers folder with .safetensors files"
        )
    for name in heavy:
        if is_pickle(name) and not pickles_allowed():
            raise RequestError(
                f"Folder {ref!r} holds {name!r} without a .safetensors file beside it: pickled"
                f" weights can run code when loaded, convert them, or set {ALLOW_PICKLE}=1 to read"
                " them by the restricted unpickler"
            )
        check_safetensors(path / name)
    return Lock(
        ref, "folder", variant=variant, files={name: cache.sha256(path / name) for name in kept}
    )


def existing_path(locked: Lock) -> Path:
    path = local(locked.ref)
    if path is None:
        raise RequestError(
            f"{locked.ref!r} was there when the sweep was locked and is not any more: put it back,"
            " or use a new results folder"
        )
    return path


def view(path: Path, locked: Lock) -> Path:
    """A folder as a loader wants it: itself where nothing needs another name, else links to the
    chosen files under their plain names."""
    plain = {name: canonical(name, locked.variant) for name in locked.files}
    if all(name == other for name, other in plain.items()):
        return path
    view = cache.cache_folder("views", locked.digest()[:32])
    for name, other in plain.items():
        link, target = (
            view / other,
            (
                plain_file(path / name, locked.files[name])
                if Path(name).suffix in PICKLED
                else path / name
            ).resolve(),
        )
        if link.resolve() == target and link.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            fresh.symlink_to(target)
        except OSError:  # Windows without the right to link
            fresh.hardlink_to(target)
        fresh.replace(link)
    return view
