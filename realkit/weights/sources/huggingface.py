"""The Hugging Face hub: what a repository holds at a commit, and its files on disk, verified.

A repository or file among the inputs comes before the network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from realkit.base import credentials
from realkit.base.cache import cache_folder, note, sha256
from realkit.base.errors import RequestError, shown
from realkit.base.files import json_object, json_value
from realkit.weights.folders import PICKLED, WEIGHTS, chosen, ends, variants
from realkit.weights.lock import SINGLE, Lock, check_name
from realkit.weights.pickles import allow_pickle, allow_pickles
from realkit.weights.reference import Reference, parse
from realkit.weights.sources import disk, hub_failures, inputs

T = TypeVar("T")
COMMIT = re.compile(r"[0-9a-f]{0,64}")


def lock(ref: Reference, variant: str, weights: bool) -> Lock:
    """The lock of a repository or of one of its files; `variant` where the reference names none.

    Weights are not fetched where their hash is published. Without a network, of what the hub's
    cache holds. Raises RequestError.
    """
    if ref.file:
        allow_pickle(ref.file)
        if path := inputs.file(Path(ref.file).name, ref.name):
            files = disk.lock(str(path), path).files
            return Lock(str(ref), "hub", ref.revision, files=files)
        commit, files = file(ref.name, ref.revision, ref.file)
        return Lock(str(ref), "hub", commit, files={SINGLE: files[ref.file]})
    if folder := inputs.repository(ref.name, ref.revision):
        mounted = disk.lock(str(folder), folder, ref.variant or variant, weights)
        return Lock(str(ref), "hub", ref.revision, mounted.variant, mounted.files)
    return _lock_repository(ref, ref.variant or variant)


def _lock_repository(ref: Reference, variant: str) -> Lock:
    name = ref.name
    commit, listed = _listing(name, ref.revision)
    offered = variants(list(listed))
    if ref.variant and ref.variant not in offered:
        raise RequestError(
            f"Hub model {name!r} has no variant {ref.variant!r}: leave it out, or take one of"
            f" {', '.join(offered) or 'none'}"
        )
    index: dict[str, Any] = {}
    if "model_index.json" in listed:
        index = json_object(_file_at(name, commit, "model_index.json"))
    variant, names = chosen(list(listed), index, variant)
    heavy = [file for file in names if ends(file, WEIGHTS + PICKLED)]
    if not heavy:
        raise RequestError(
            f"Hub model {name!r} holds no .safetensors weights: give another repository, or a file"
            " of it"
        )
    allow_pickles(f"Hub model {name!r}", heavy)
    files = {file: listed[file] or sha256(_file_at(name, commit, file)) for file in names}
    return Lock(str(ref), "hub", commit, variant, files)


def fetch(locked: Lock) -> Path:
    """The folder or file that a lock of the hub means, verified. Raises RequestError."""
    ref = parse(locked.ref)
    if not locked.single:
        mounted = _mounted(ref, locked)
        return mounted or snapshot(ref.name, locked.revision, locked.files)
    path, sha = inputs.file(Path(ref.file).name, ref.name), locked.files[SINGLE]
    if path and sha256(path) == sha:
        return path
    return snapshot(ref.name, locked.revision or ref.revision, {ref.file: sha}) / ref.file


def small_file(locked: Lock, name: str) -> Path:
    """One small file of a locked repository, without its weights."""
    ref = parse(locked.ref)
    mounted = _mounted(ref, locked)
    return mounted / name if mounted else _file_at(ref.name, locked.revision, name)


def _mounted(ref: Reference, locked: Lock) -> Path | None:
    """The folder among the inputs that holds a lock's files: of its revision, or of another with
    the same contents."""
    for revision in dict.fromkeys((locked.revision, "")):
        folder = inputs.repository(ref.name, revision)
        if folder and all(_is_file(folder / file, sha) for file, sha in locked.files.items()):
            return folder
    return None


def _is_file(path: Path, sha: str) -> bool:
    return path.is_file() and sha256(path) == sha


def file(name: str, revision: str | None, path: str) -> tuple[str, dict[str, str]]:
    """(commit, {path: SHA-256}) of one file of a repository."""
    commit, listed = _listing(name, revision or "")
    if path not in listed:
        near = [other for other in listed if ends(other, WEIGHTS) and "/" not in other]
        raise RequestError(
            f"Hub model {name!r} has no file {path!r}: it has"
            f" {', '.join(near[:6]) or 'no .safetensors file at its top'}"
        )
    return commit, {path: listed[path] or sha256(_file_at(name, commit, path))}


def snapshot(name: str, commit: str, files: dict[str, str]) -> Path:
    """The folder of these files, SHA-256 by name, at a commit.

    Raises RequestError. A file whose hash differs is removed first: the next run fetches it.
    """
    from huggingface_hub import snapshot_download

    patterns = [file.replace("[", "[[]") for file in files]

    def download() -> str:
        token = credentials.token("huggingface")
        revision = commit or None
        return snapshot_download(name, revision=revision, allow_patterns=patterns, token=token)

    folder = Path(_asking(name, download))
    for file, sha in files.items():
        path = folder / file
        if not path.is_file():
            raise RequestError(
                f"Hub model {name!r} has no file {file!r} any more: use the locked revision, or a"
                " new results folder"
            )
        if sha256(path) != sha:
            blob = path.resolve()
            path.unlink()
            blob.unlink(missing_ok=True)
            raise RequestError(
                f"File {file!r} of hub model {name!r} does not have the published SHA-256: it is"
                " removed, run again to fetch it anew"
            )
    return folder


def _file_at(name: str, commit: str, file: str) -> Path:
    """One file of a repository at a commit."""
    from huggingface_hub import hf_hub_download

    def download() -> str:
        token = credentials.token("huggingface")
        return hf_hub_download(name, file, revision=commit or None, token=token)

    return Path(_asking(name, download, file))


def _listing(name: str, revision: str) -> tuple[str, dict[str, str]]:
    """(commit, SHA-256 or "" by file) as the hub lists them; without a network, as it listed them
    last, else the files in its cache."""
    from huggingface_hub import HfApi

    def ask() -> Any:
        api = HfApi(token=credentials.token("huggingface"))
        return api.model_info(name, revision=revision or None, timeout=20, files_metadata=True)

    try:
        info = _asking(name, ask, listing=True)
    except _Unreachable as error:
        listing = _noted(name, revision) or _cached(name, revision)
        if listing is None:
            reason = hub_failures.unreachable(name, error.reason)
            raise RequestError(f"Hub model {name!r} cannot be reached: {reason}") from None
        return listing
    if not COMMIT.fullmatch(info.sha or ""):
        raise RequestError(
            f"Hub model {name!r} is at commit {shown(info.sha)}: expected hexadecimal digits. Try"
            " again later"
        )
    listed = {}
    for item in info.siblings or []:
        check_name(item.rfilename, name)
        listed[item.rfilename] = str(item.lfs.sha256) if item.lfs else ""
    note(_note_path(name, revision), json.dumps([info.sha or "", listed]))
    return info.sha or "", listed


def _noted(name: str, revision: str) -> tuple[str, dict[str, str]] | None:
    """The hub's last listing, so that a lock made without a network equals one made with it."""
    try:
        commit, listed = json_value(_note_path(name, revision).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return commit, listed


def _cached(name: str, revision: str) -> tuple[str, dict[str, str]] | None:
    """What the hub's own cache holds, complete or not."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name, revision=revision or None, local_files_only=True, allow_patterns=[]
            )
        )
    except Exception:  # the hub's client raises many kinds; each means that nothing is cached
        return None
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = sha256(path)
    return folder.name, files


def _note_path(name: str, revision: str) -> Path:
    key = hashlib.sha256(f"{name}@{revision or 'main'}".encode()).hexdigest()[:32]
    return cache_folder("listings") / key


class _Unreachable(Exception):
    """No connection to the hub while a listing was asked for."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def _asking(name: str, call: Callable[[], T], file: str = "", listing: bool = False) -> T:
    """What a call to the hub returns, repeated by the retry policy.

    Raises RequestError; `_Unreachable` where a `listing` finds no connection.
    """
    from huggingface_hub.errors import HfHubHTTPError

    from realkit.weights.sources.retries import POLICY, TEMPORARY, another_try

    what = f"{file!r} of hub model {name!r}" if file else f"Hub model {name!r}"
    failure = f"{what} cannot be {'reached' if listing else 'fetched'}"
    policy = POLICY
    while True:
        try:
            return call()
        except HfHubHTTPError as error:
            following = None
            if hub_failures.status(error) in TEMPORARY:
                following = another_try(policy, error, error.response)
            if following is None:
                raise RequestError(f"{failure}: {hub_failures.refusal(name, error)}") from None
            policy = following
        except Exception as error:  # of whatever library carries the connection
            if listing:
                raise _Unreachable(error) from error
            raise RequestError(f"{failure}: {hub_failures.broken(name, error)}") from None
