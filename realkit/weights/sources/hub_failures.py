"""What a failure of the Hugging Face hub means to a person: the reason, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from realkit.base import credentials
from realkit.base.cache import free_bytes, readable
from realkit.base.errors import one_line
from realkit.weights.sources import inputs

SET_TOKEN = "set HF_TOKEN (environment, Kaggle or Colab secrets)"


def status(error: Any) -> int:
    """The HTTP status of a hub's error; 0 where there is none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def refusal(name: str, error: Any) -> str:
    """Why the hub refused an answer, by the kind of error or by its HTTP status."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{name}"
    has_token = credentials.token("huggingface")
    token = "the token does not open it" if has_token else "there is no token"
    if isinstance(error, GatedRepoError):
        return f"it is gated and {token}. Accept its licence at {page}, then {SET_TOKEN}"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision: leave @revision out, or take one of its page"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or it is private and {token}. Look at {page}"
    if isinstance(error, EntryNotFoundError):
        return "there is no such file. Take another revision, or another repository"
    code = status(error)
    if code in (401, 403):
        return f"the hub answered {code} and {token}. Look at {page}, then {SET_TOKEN}"
    if code == 429:
        return "the hub asks to wait (429): try again later, with HF_TOKEN set the limits are wider"
    return f"the hub answered {code}: try again later"


def broken(name: str, error: Exception) -> str:
    """Why a transfer ended that no refusal of the hub explains."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, HfHubHTTPError):
        return refusal(name, cause)  # the hub did answer
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return unreachable(name, cause if isinstance(cause, Exception) else error)
    message = f"{type(error).__name__}: {one_line(error, 170)}"
    if "onsistency check" in message or "should be of size" in message:
        return "a file came shorter than announced. Run again: complete files are kept"
    if not _disk_full(error):
        return f"{message}. Run again: complete files are kept"
    cache = Path(constants.HF_HUB_CACHE)
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    free = f"{str(cache)!r} has {readable(free_bytes(cache))} free"
    return (
        f"the disk of the hub's cache is full ({free}): make room, or set"
        f" {'HF_HUB_CACHE' if own else 'HF_HOME'} to a folder on another disk"
    )


def _disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause is a full disk; the hub's fast transfer says so in words."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            return True
        error = error.__cause__
    return False


def unreachable(name: str, error: Exception) -> str:
    """Why there is no connection to the hub, and what to attach or to turn on."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    offline = isinstance(error, OfflineModeIsEnabled)
    reason = "HF_HUB_OFFLINE is set" if offline else f"no connection ({type(error).__name__})"
    mounts = inputs.offered()
    if not mounts:
        return f"{reason}, and it is not in the cache: turn the internet on"
    return (
        f"{reason}, and it is not among the inputs {mounts}: attach a dataset or model called"
        f" {name.split('/')[1]!r}, or turn the internet on"
    )
