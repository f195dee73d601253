"""References: any way to name weights → the lock that fixes their contents, and files on disk that
one loader can read.

Where contents come from (package, disk, a mount, the hub, Civitai, an address) is not part of their
identity: a lock holds the SHA-256 of what is loaded, so that a model attached to a Kaggle notebook
and the same model from the hub give the same ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from realkit.base import cache, credentials
from realkit.base.errors import RequestError, shown
from realkit.base.files import json_object
from realkit.weights.folders import PICKLED, WEIGHTS
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.pickles import (
    allow_pickle,
    check_safetensors,
    is_pickle,
    pickles_allowed,
    plain_file,
)
from realkit.weights.reference import HUB_FILE, HUB_ID, plain
from realkit.weights.sources import civitai, huggingface, inputs, web
from realkit.weights.sources.civitai import LOGIN, Published
from realkit.weights.sources.disk import existing_path, local, lock_of_disk, view


def lock(
    ref: str, *, weights: bool = False, variant: str = "", left_out: Collection[str] = ()
) -> Lock:
    """Resolve a reference; with `weights`, a folder must hold some. `variant` is taken of a folder
    that has it and names none itself.

    `left_out` are parts of a pipeline that come from elsewhere or not at all: of these only the
    configs are kept. Looks on disk, then among the inputs, then in the network. Raises RequestError
    when it names nothing, or when weights are damaged or pickled.
    """
    found = _lock(plain(ref), weights, variant)
    kept = {
        name: sha
        for name, sha in found.files.items()
        if not (
            name.split("/")[0] in left_out and PurePosixPath(name).suffix in (*WEIGHTS, *PICKLED)
        )
    }
    return replace(found, files=kept)


def _lock(ref: str, weights: bool, variant: str) -> Lock:
    if path := local(ref):
        return lock_of_disk(ref, path, variant, weights)
    if named := civitai.parse(ref):
        found = civitai.published(named)
        allow_pickle(found.name, found.pickled)
        pinned = replace(named, version=found.version)
        sha = found.sha256 or cache.sha256(_from_civitai(str(pinned), found, ""))
        return Lock(str(pinned), "civitai", found.version, files={SINGLE: sha})
    if ref.startswith(("http://", "https://")):
        allow_pickle(urlsplit(ref).path, is_pickle(urlsplit(ref).path))
        return Lock(ref, "url", files={SINGLE: cache.sha256(_from_url(ref))})
    if match := HUB_FILE.match(ref):
        allow_pickle(match["file"], is_pickle(match["file"]))
        if mounted := inputs.file(Path(match["file"]).name, match["id"]):
            return Lock(
                ref,
                "hub",
                match["revision"] or "",
                files=lock_of_disk(str(mounted), mounted, "", True).files,
            )
        commit, files = huggingface.file(match["id"], match["revision"], match["file"])
        return Lock(ref, "hub", commit, files={SINGLE: files[match["file"]]})
    match = HUB_ID.match(ref)
    if not match or ref.startswith((".", "/", "~")) or Path(ref).suffix in (*WEIGHTS, *PICKLED):
        raise RequestError(
            f"No such file or folder: {shown(ref)}. Give a catalogue name (realkit list models), a"
            " hub id, or an existing path"
        )
    if mounted := inputs.repository(match["id"], match["revision"] or ""):
        found_there = lock_of_disk(str(mounted), mounted, match["variant"] or variant, weights)
        return Lock(ref, "hub", match["revision"] or "", found_there.variant, found_there.files)
    commit, kept, files = huggingface.repository(
        match["id"],
        match["revision"],
        match["variant"] or variant,
        pickles=pickles_allowed(),
        asked=bool(match["variant"]),
    )
    return Lock(ref, "hub", commit, kept, files)


def verify(locked: Lock) -> None:
    """Raise RequestError when a reference on disk is gone, or does not hold any more what it held
    when it was locked."""
    if locked.kind not in ("folder", "file"):
        return
    path = existing_path(locked)
    now = lock_of_disk(locked.ref, path, locked.variant, False).files
    heavy = {
        PurePosixPath(name).parent for name in locked.files if PurePosixPath(name).suffix in WEIGHTS
    }
    added = {
        name
        for name in now
        if PurePosixPath(name).suffix not in WEIGHTS or PurePosixPath(name).parent in heavy
    }  # else: weights that are left out
    for name in sorted(added | locked.files.keys()):
        if now.get(name) != locked.files.get(name):
            place = f"{name!r} in {locked.ref!r}" if locked.kind == "folder" else repr(locked.ref)
            raise RequestError(
                f"{place} has changed since this results folder was made: put the old file back, or"
                " use a new results folder"
            )


def fetch(locked: Lock) -> Path:
    """What a lock means, on disk and verified: a folder in the plain layout, or a .safetensors
    file. Raises RequestError."""
    if locked.kind in ("folder", "file"):
        path = existing_path(locked)
        return plain_file(path, locked.files[SINGLE]) if path.is_file() else view(path, locked)
    if locked.single:
        return plain_file(_single(locked), locked.files[SINGLE])
    mounted = _mounted(locked)
    return view(
        mounted or huggingface.snapshot(_repository(locked), locked.revision, locked.files), locked
    )


def _repository(locked: Lock) -> str:
    return HUB_ID.match(locked.ref)["id"]  # type: ignore[index]


def _mounted(locked: Lock) -> Path | None:
    """The folder among the inputs that holds a hub lock's files: of its revision, or of another
    with the same contents."""
    for revision in dict.fromkeys((locked.revision, "")):
        found = inputs.repository(_repository(locked), revision)
        if found and all(
            (found / file).is_file() and cache.sha256(found / file) == sha
            for file, sha in locked.files.items()
        ):
            return found
    return None


def _single(locked: Lock) -> Path:
    sha = locked.files[SINGLE]
    if named := civitai.parse(locked.ref):
        kept = [
            path
            for name in (sha, f"civitai-{locked.revision}")
            for path in cache.cache_folder("files").glob(f"{name}[.-]*")
        ]
        whole = [
            path
            for path in kept
            if path.suffix in (*WEIGHTS, *PICKLED) and cache.sha256(path) == sha
        ]
        return whole[0] if whole else _from_civitai(locked.ref, civitai.published(named, sha), sha)
    if locked.kind == "url":
        path = _from_url(locked.ref)
        if cache.sha256(path) != sha:
            raise RequestError(
                f"{credentials.scrub(locked.ref)!r} is another file than when it was locked: put"
                " the old one back, or use a new results folder"
            )
        return path
    match = HUB_FILE.match(locked.ref)
    assert match
    if (mounted := inputs.file(Path(match["file"]).name, match["id"])) and cache.sha256(
        mounted
    ) == sha:
        return mounted
    return (
        huggingface.snapshot(
            match["id"], locked.revision or match["revision"], {match["file"]: sha}
        )
        / match["file"]
    )


def read_json(locked: Lock, name: str) -> dict[str, Any]:
    """A small JSON file of a locked folder, without fetching the weights; {} where it has none."""
    if name not in locked.files and locked.kind == "hub":
        return {}
    if locked.kind == "hub":
        mounted = _mounted(locked)
        path = (
            mounted / name
            if mounted
            else huggingface.small(_repository(locked), locked.revision, name)
        )
    else:
        path = existing_path(locked) / name
    return json_object(path) if path.is_file() else {}


def _from_civitai(ref: str, found: Published, sha: str) -> Path:
    """A version's file, named by its published SHA-256 or, where it has none, by its version and
    what was asked of it."""
    path = cache.cache_folder("files") / f"{found.stem}{Path(found.name).suffix}"
    called = f"{ref} ({found.name})"
    web.download(
        found.url,
        path,
        called=called,
        sha=found.sha256 or sha,
        token=civitai.token(found.url),
        login=LOGIN,
    )
    return path if found.sha256 else _sound(path)


def _from_url(ref: str) -> Path:
    name = hashlib.sha256(ref.encode()).hexdigest()[:32]
    path = cache.cache_folder("files") / f"{name}{Path(urlsplit(ref).path).suffix or SINGLE}"
    if not path.is_file():
        web.download(ref, path, called=credentials.scrub(ref))
    return _sound(path)


def _sound(path: Path) -> Path:
    """A downloaded file without a published hash, its header checked; removed where it is
    damaged."""
    try:
        check_safetensors(path)
    except RequestError:
        path.unlink()
        raise
    return path
