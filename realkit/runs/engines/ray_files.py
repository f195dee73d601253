"""Files that a machine of a cluster cannot come by itself, brought to it once: by contents, into
its cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from realkit.base import cache
from realkit.base.errors import RequestError
from realkit.weights import pickles, resolve
from realkit.weights.folders import canonical
from realkit.weights.lock import Lock

PIECE = 64 * 2**20  # bytes sent at a time


def lacking(locks: list[Lock]) -> list[Lock]:
    """Those of which this machine cannot come by the contents: not on its disk, and not from where
    they were published. One process a machine looks at a time."""
    return [lock for lock in locks if not _had(lock)]


def pieces(lock: Lock) -> Iterator[tuple[str, bytes]]:
    """The files of a lock, piece after piece: (name, bytes). Raises RequestError where they cannot
    be had here either."""
    with pickles.reading_pickles():
        path = resolve.fetch(lock)
    for file in (
        [path]
        if path.is_file()
        else [path / canonical(name, lock.variant) for name in sorted(lock.files)]
    ):
        with file.open("rb") as opened:
            while True:
                data = opened.read(PIECE)
                yield (file.name if path.is_file() else file.relative_to(path).as_posix()), data
                if len(data) < PIECE:
                    break


def begin(lock: Lock) -> str:
    """A new folder to which a lock's files are brought; its path here."""
    return tempfile.mkdtemp(prefix=f".part-{lock.digest()[:32]}-", dir=cache.cache_folder("staged"))


def receive(place: str, name: str, data: bytes) -> None:
    """Append a piece to a file that is being brought to `place`."""
    path = Path(place) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)


def complete(lock: Lock, place: str, sent: dict[str, str]) -> None:
    """Put what was brought where hub.fetch finds it. `sent` holds the SHA-256 of each file. Raises
    RequestError where it is not what was sent."""
    part = Path(place)
    try:
        for name, sha in sent.items():
            if not (part / name).is_file() or cache.sha256(part / name) != sha:
                raise RequestError(
                    f"{name!r} of {lock.ref!r} did not arrive as it was sent: run again"
                )
        if not resolve.staged(
            lock
        ).is_dir():  # machines may share a folder: another's may be there by now
            with suppress(OSError):  # or comes in between
                part.chmod(0o755)
                part.rename(resolve.staged(lock))
        if not resolve.staged(lock).is_dir():
            raise RequestError(
                f"{str(resolve.staged(lock))!r} cannot be written: make room in the cache of that"
                " machine, or set $REALKIT_CACHE there"
            )
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _had(lock: Lock) -> bool:
    with (
        FileLock(cache.cache_folder("staged") / f"{lock.digest()[:32]}.lock"),
        pickles.reading_pickles(),
    ):
        if resolve.staged(lock).is_dir():
            return True
        try:
            resolve.verify(lock)
            resolve.fetch(lock)
        except RequestError:
            return False
        return True
