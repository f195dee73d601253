"""The Hugging Face hub: what a repository holds at a commit, and its files on disk, verified. Every
failure is one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from realkit.base import credentials
from realkit.base.cache import cache_folder, free_bytes, note, sha256
from realkit.base.errors import RequestError
from realkit.weights.folders import PICKLED, WEIGHTS, chosen, variants
from realkit.weights.sources import inputs, web
from realkit.weights.sources.web import TRIES, WAITED_FOR

T = TypeVar("T")


def repository(
    name: str, revision: str | None, variant: str, *, pickles: bool, asked: bool
) -> tuple[str, str, dict[str, str]]:
    """(commit, variant, SHA-256 by file) of what is loaded of a repository. Weights are not fetched
    where their hash is published.

    `asked`: the reference names the variant itself, so that it must be there. Without a network,
    what the hub's cache holds.
    """
    commit, listed = _listing(name, revision)
    if asked and variant not in variants(list(listed)):
        raise RequestError(
            f"Hub model {name!r} has no variant {variant!r}: leave it out, or take one of"
            f" {', '.join(variants(list(listed))) or 'none'}"
        )
    index: dict[str, Any] = {}
    if "model_index.json" in listed:
        from realkit.base.files import json_object

        index = json_object(small(name, commit, "model_index.json"))
    found, kept = chosen(list(listed), index, variant)
    heavy = [file for file in kept if file.endswith((*WEIGHTS, *PICKLED))]
    if not heavy:
        raise RequestError(
            f"Hub model {name!r} holds no .safetensors weights: give another repository, or a file"
            " of it that is"
        )
    for file in heavy:
        if file.endswith(PICKLED) and not pickles:
            raise RequestError(
                f"Hub model {name!r} holds {file!r} without a .safetensors file beside it: pickled"
                " weights can run code when loaded. Take another repository or one of its single"
                " files, or set REALKIT_ALLOW_PICKLE=1 to read it by the restricted unpickler"
            )
    return commit, found, {file: listed[file] or sha256(small(name, commit, file)) for file in kept}


def file(name: str, revision: str | None, path: str) -> tuple[str, dict[str, str]]:
    """(commit, {path: SHA-256}) of one file of a repository."""
    commit, listed = _listing(name, revision)
    if path not in listed:
        near = [other for other in listed if other.endswith(WEIGHTS) and "/" not in other]
        raise RequestError(
            f"Hub model {name!r} has no file {path!r}: it has"
            f" {', '.join(near[:6]) or 'no .safetensors file at its top'}"
        )
    return commit, {path: listed[path] or sha256(small(name, commit, path))}


def snapshot(name: str, commit: str, files: dict[str, str]) -> Path:
    """The folder of these files, SHA-256 by name, at a commit. One whose hash differs is removed.
    Raises RequestError."""
    from huggingface_hub import snapshot_download

    patterns = [file.replace("[", "[[]") for file in files]
    folder = Path(
        _asking(
            name,
            lambda: snapshot_download(
                name,
                revision=commit or None,
                allow_patterns=patterns,
                token=credentials.token("huggingface"),
            ),
        )
    )
    for file, sha in files.items():
        path = folder / file
        if not path.is_file():
            raise RequestError(
                f"Hub model {name!r} has no file {file!r} any more: use the revision that was"
                " locked, or a new results folder"
            )
        if sha256(path) != sha:
            target = path.resolve()
            path.unlink()
            target.unlink(missing_ok=True)
            raise RequestError(
                f"File {file!r} of hub model {name!r} does not have the published SHA-256: it is"
                " removed, run again to fetch it anew"
            )
    return folder


def small(name: str, commit: str, file: str) -> Path:
    """One file of a repository at a commit."""
    from huggingface_hub import hf_hub_download

    return Path(
        _asking(
            name,
            lambda: hf_hub_download(
                name, file, revision=commit or None, token=credentials.token("huggingface")
            ),
            file,
        )
    )


def _listing(name: str, revision: str | None) -> tuple[str, dict[str, str]]:
    """(commit, SHA-256 or "" by file) as the hub lists them; without a network, as it listed them
    last, else those in its cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    def ask() -> Any:
        return HfApi(token=credentials.token("huggingface")).model_info(
            name, revision=revision, timeout=20, files_metadata=True
        )

    try:
        found = _asking(name, ask, reached=False)
    except _Unreachable as error:
        if kept := _noted(name, revision):
            return kept
        try:
            folder = Path(
                snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
            )  # the folder, whole or not
        except Exception:
            offline = isinstance(error.reason, OfflineModeIsEnabled)
            raise RequestError(
                f"Hub model {name!r} cannot be reached: {_unreachable(name, offline, error.reason)}"
            ) from None
        return folder.name, {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    commit, listed = (
        found.sha or "",
        {item.rfilename: str(item.lfs.sha256) if item.lfs else "" for item in found.siblings or []},
    )
    note(_note_of(name, revision), json.dumps([commit, listed]))
    return commit, listed


def _noted(name: str, revision: str | None) -> tuple[str, dict[str, str]] | None:
    """What the hub listed last, so that a lock made without a network equals the one made with
    it."""
    try:
        commit, listed = json.loads(_note_of(name, revision).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return commit, listed


def _note_of(name: str, revision: str | None) -> Path:
    return (
        cache_folder("listings")
        / hashlib.sha256(f"{name}@{revision or 'main'}".encode()).hexdigest()[:32]
    )


class _Unreachable(Exception):
    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def _asking(name: str, call: Callable[[], T], file: str = "", reached: bool = True) -> T:
    """What a call to the hub gives; asked again where the hub says to wait. Raises RequestError, or
    _Unreachable where `reached` is False."""
    from huggingface_hub.errors import HfHubHTTPError

    what = f"{file!r} of hub model {name!r}" if file else f"Hub model {name!r}"
    for attempt in range(TRIES):
        try:
            return call()
        except RequestError:
            raise
        except HfHubHTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if status in WAITED_FOR and attempt < TRIES - 1:
                time.sleep(web.asked_to_wait(error.response.headers.get("Retry-After"), attempt))
                continue
            raise RequestError(
                f"{what} {'cannot be fetched' if reached else 'cannot be reached'}:"
                f" {_refusal(name, error)}"
            ) from None
        except Exception as error:  # of whatever library carries the connection
            if not reached:
                raise _Unreachable(error) from error
            raise RequestError(f"{what} cannot be fetched: {_broken(name, error)}") from None
    raise AssertionError("unreachable")


def _refusal(name: str, error: Any) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{name}"
    token = (
        "the token does not open it" if credentials.token("huggingface") else "there is no token"
    )
    if isinstance(error, GatedRepoError):
        return (
            f"it is gated and {token}. Accept its licence at {page}, then set HF_TOKEN"
            " (environment, Kaggle or Colab secrets)"
        )
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision: leave @revision out, or take one of its page"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or it is private and {token}. Look at {page}"
    if isinstance(error, EntryNotFoundError):
        return "there is no such file. Take another revision, or another repository"
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return (
            f"the hub answered {status} and {token}. Look at {page}, then set HF_TOKEN"
            " (environment, Kaggle or Colab secrets)"
        )
    return (
        "the hub asks to wait (429): try again later, with HF_TOKEN set the limits are wider"
        if status == 429
        else f"the hub answered {status}: try again later"
    )


def _broken(name: str, error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    said, cause = web.scrubbed(error), error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(
        cause, HfHubHTTPError
    ):  # the hub did answer
        return _refusal(name, cause)
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        why = cause if isinstance(cause, Exception) else error
        return _unreachable(name, isinstance(why, OfflineModeIsEnabled), why)
    if "onsistency check" in said or "should be of size" in said:
        return "a file came shorter than announced. Run again: what is whole is kept"
    if _full(error):
        from huggingface_hub import constants

        cache = Path(constants.HF_HUB_CACHE)
        name = (
            "HF_HUB_CACHE"
            if os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
            else "HF_HOME"
        )
        free = f"{str(cache)!r} has {free_bytes(cache) / 2**30:.1f} GiB free"
        return (
            f"the disk of the hub's cache is full ({free}): make room, or set {name} to a folder on"
            " another disk"
        )
    return f"{said[:200]}. Run again: what is whole is kept"


def _full(error: BaseException | None) -> bool:
    """Whether a disk is full, by the error or what it came of; the hub's fast transfer gives a
    system's error in words."""
    if error is None:
        return False
    return (
        (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(error)
        or _full(error.__cause__)
    )


def _unreachable(name: str, offline: bool, error: Exception) -> str:
    why = "HF_HUB_OFFLINE is set" if offline else f"no connection ({type(error).__name__})"
    there = inputs.offered()
    attach = (
        f"among the inputs {there}: attach a dataset or model called {name.split('/')[1]!r}, or"
        if there
        else "in the cache:"
    )
    return f"{why}, and it is not {attach} turn the internet on"
