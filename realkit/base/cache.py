"""The cache folder: where it lies, what room it has, and the SHA-256 of files, computed once a
file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path

from realkit.base.errors import RequestError

CACHE = (  # folder of downloads and conversions; default: realkit below the user's cache folder
    "REALKIT_CACHE"
)
CHUNK = 1 << 20  # bytes from which on a file's hash is kept
SPARE = 200 << 20  # bytes left free on the disk


def cache_root() -> Path:
    """Where the cache is, or will be."""
    own = os.environ.get(CACHE)
    return (
        Path(own).expanduser()
        if own
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realkit"
    )


def cache_folder(*below: str) -> Path:
    """A folder of the cache, made if it is not there."""
    path = cache_root().joinpath(*below)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The cache {str(path)!r} cannot be made: {error.strerror}. Set ${CACHE} to a folder"
            " that can be written"
        ) from error
    return path


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex. What was computed for a path, size and modification time is kept in
    the cache."""
    path = path.resolve()
    state = path.stat()
    key = hashlib.sha256(
        f"{path}\n{state.st_size}\n{state.st_mtime_ns}\n{state.st_ctime_ns}".encode()
    ).hexdigest()[:32]
    if state.st_size < CHUNK:
        return digest(path)
    kept = cache_folder("hashes") / key
    try:
        return kept.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        found = digest(path)
        if (
            time.time_ns() - state.st_mtime_ns > 10**9
        ):  # a file still being written may change again within the clock's grain
            note(kept, found)
        return found


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(path: Path, text: str) -> None:
    """Keep what can be found again, atomically. Where it cannot be written, the next run finds it
    again."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="ascii")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


def room(where: Path, needed: int, called: str) -> None:
    """Raise RequestError where a disk has no room for so many bytes and a few to spare."""
    if needed + SPARE > free_bytes(where):
        raise RequestError(
            f"{called} needs {needed / 2**30:.1f} GiB and {SPARE / 2**30:.1f} to spare,"
            f" {_room_of(where)}"
        )


def free_bytes(where: Path) -> int:
    """Bytes free on the disk that holds a folder, or will hold it."""
    return shutil.disk_usage(existing(where)).free


def existing(path: Path) -> Path:
    """The path, or of those above it the first that is there."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def unwritten(called: str, where: Path, error: OSError, needed: int = 0) -> RequestError:
    """What to say where a file cannot be written; a full disk fails late where nobody knew how much
    would come, or something else fills it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full:
        reason = (
            "the disk is full,"
            f" {f'it needs {needed / 2**30:.1f} GiB, ' if needed else ''}{_room_of(where)}"
        )
    else:
        reason = (
            f"{error.strerror or type(error).__name__}. Set ${CACHE} to a folder that can be"
            " written"
        )
    return RequestError(f"{called} cannot be written to {str(where)!r}: {reason}")


def _room_of(where: Path) -> str:
    return (
        f"{str(where)!r} has {free_bytes(where) / 2**30:.1f} GiB free: make room, or set ${CACHE}"
        " to a folder on another disk"
    )
