"""The cache folder: its place, the free room on its disk, and SHA-256 of files, computed once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path

from realkit.base.door import check_path, expanded, worded
from realkit.base.errors import RequestError

CACHE = "REALKIT_CACHE"  # environment: the folder of downloads and conversions
CHUNK = 1 << 20  # bytes; the hashes of smaller files are not kept
SPARE = 200 << 20  # bytes to leave free on the disk
GIB = 2**30


def cache_root() -> Path:
    """The cache folder, which may not exist yet.

    $REALKIT_CACHE, else the one in ~/.cache that earlier versions made on every system, else
    `realkit` in the user's cache folder of this system.
    """
    if own := os.environ.get(CACHE):
        return expanded(own)
    from platformdirs import user_cache_path  # here: a fresh Kaggle session may not have it yet

    earlier = expanded("~/.cache/realkit")
    if earlier.is_dir() and not os.environ.get("XDG_CACHE_HOME"):
        return earlier
    return user_cache_path("realkit", appauthor=False)


def cache_folder(*below: str) -> Path:
    """A folder of the cache, created if it does not exist."""
    path = cache_root().joinpath(*below)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The cache {str(path)!r} cannot be made: {error.strerror}. Set ${CACHE} to a writable"
            " folder"
        ) from error
    return path


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex, kept in the cache by path, size and times of the file."""
    path = path.resolve()
    state = path.stat()
    if state.st_size < CHUNK:
        return digest(path)
    identity = f"{path}\n{state.st_size}\n{state.st_mtime_ns}\n{state.st_ctime_ns}"
    entry = cache_folder("hashes") / hashlib.sha256(identity.encode()).hexdigest()[:32]
    try:
        return entry.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        sha = digest(path)
    # A file still being written may change again within the grain of the clock.
    if time.time_ns() - state.st_mtime_ns > 10**9:
        note(entry, sha)
    return sha


def digest(path: Path) -> str:
    check_path("weights", path)
    with worded(f"{str(path)!r} cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(path: Path, text: str) -> None:
    """Keep what can be computed again, atomically; a disk that refuses is ignored."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="ascii")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


def room(folder: Path, size: int, called: str) -> None:
    """Raise RequestError where a disk has no room for `size` bytes and SPARE more."""
    if size + SPARE > free_bytes(folder):
        raise RequestError(
            f"{called} needs {readable(size)} and {readable(SPARE)} to spare, {_room_of(folder)}"
        )


def readable(size: float) -> str:
    """A number of bytes for a person, in the largest unit that it fills: "3.2 GiB", "57 bytes"."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:.0f} bytes"


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk that holds a folder, or will hold it."""
    return shutil.disk_usage(existing(folder)).free


def existing(path: Path) -> Path:
    """The path itself if it exists, else the nearest folder above it that does."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def unwritten(called: str, folder: Path, error: OSError, size: int = 0) -> RequestError:
    """The error for a file that cannot be written. `size` in bytes is named where it is known.

    A disk fills in the middle of a download whose size no server told, or by other programs.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = f" it needs {readable(size)}," if size else ""
        reason = f"the disk is full,{needed} {_room_of(folder)}"
    else:
        reason = f"{error.strerror or type(error).__name__}. Set ${CACHE} to a writable folder"
    return RequestError(f"{called} cannot be written to {str(folder)!r}: {reason}")


def _room_of(folder: Path) -> str:
    return (
        f"{str(folder)!r} has {readable(free_bytes(folder))} free: make room, or set ${CACHE} to a"
        " folder on another disk"
    )


def link(place: Path, target: Path) -> None:
    """Make or replace a link atomically: another process may be reading it."""
    if place.exists() and place.resolve() == target:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(target)
    except OSError:  # Windows without the right to link
        fresh.hardlink_to(target)
    fresh.replace(place)
