"""The user's photographs, with which sets of pictures are compared: the files of a folder by their
hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from realkit.base.door import expanded
from realkit.base.errors import RequestError, one_line
from realkit.base.pictures import of_other_endings
from realkit.base.warn import warn_once

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def lock(folder: str, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The SHA-256 of each photograph of a folder, by its path below it. Raises RequestError where
    fewer than two differ, or where they are not those locked `before`."""
    place = expanded(folder)
    if not place.is_dir():
        if before:  # moved or offline: what is embedded needs it no more, the rest fails by name
            return dict(before)
        raise RequestError(f"photographs {folder!r}: expected a folder of pictures")
    listed = list(place.rglob("*"))
    files = sorted(filter(partial(_is_photograph, place), listed))
    left_out = of_other_endings(listed, ENDINGS)
    try:
        hashes = {path.relative_to(place).as_posix(): _sha256(path) for path in files}
    except OSError as error:
        raise RequestError(f"photographs {folder!r} cannot be read: {one_line(error)}") from error
    now = set(hashes.values())
    if len(now) < 2:
        raise RequestError(
            f"photographs {folder!r} holds {len(now)} different pictures ({', '.join(ENDINGS)}):"
            f" expected two at least, and better fifty{left_out and f'; {left_out}'}"
        )
    if left_out:
        warn_once(f"photographs {folder!r}: {left_out}")
    if before is not None and now != (then := set(before.values())):
        raise RequestError(
            f"photographs {folder!r} are not those that this results folder has used"
            f" ({len(now - then)} new, {len(then - now)} gone): put them back, or name a new folder"
        )
    return hashes


def count(folder: str | None) -> int:
    """How many photographs a folder has, by their names alone; 0 for None."""
    place = expanded(folder or "")
    if folder is None or not place.is_dir():
        return 0
    return len(list(filter(partial(_is_photograph, place), place.rglob("*"))))


def check_apart(folder: str, results: Path) -> None:
    """Raise RequestError where photographs lie in the results, or these among them."""
    place, out = expanded(folder).resolve(), results.resolve()
    if place == out or place in out.parents or out in place.parents:
        raise RequestError(
            f"photographs {folder!r} and the results {str(results)!r} lie in each other: pictures"
            " would count as photographs. Give them folders of their own"
        )


def _is_photograph(place: Path, path: Path) -> bool:
    """Whether a path is a picture, and not a hidden file of the system or an editor."""
    hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
    return path.suffix.lower() in ENDINGS and not hidden and path.is_file()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
