"""The user's photographs, with which sets of pictures are compared: the files of a folder by their
hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from realkit.base.errors import RequestError, one_line

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def lock(folder: str, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The SHA-256 of each photograph of a folder, by its path below it. Raises RequestError where
    fewer than two differ, or where they are not those locked `before`."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise RequestError(f"photographs {folder!r}: expected a folder of pictures")
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS)
    try:
        hashes = {path.relative_to(place).as_posix(): _sha256(path) for path in files}
    except OSError as error:
        raise RequestError(f"photographs {folder!r} cannot be read: {one_line(error)}") from error
    now = set(hashes.values())
    if len(now) < 2:
        raise RequestError(
            f"photographs {folder!r} holds {len(now)} different pictures ({', '.join(ENDINGS)}):"
            " expected two at least, and better fifty"
        )
    if before is not None and now != (then := set(before.values())):
        raise RequestError(
            f"photographs {folder!r} are not those that this results folder has used"
            f" ({len(now - then)} new, {len(then - now)} gone): put them back, or name a new folder"
        )
    return hashes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
