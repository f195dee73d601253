"""`rk.save`: a picture with all that it says of itself, as a file of the format of its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realkit.base import metadata, pictures
from realkit.base.door import check_kind, expanded
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import write_atomically
from realkit.base.metadata import Metadata
from realkit.base.warn import warn_once

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}
# Kinds of pixels that a format holds as they are; others are converted to RGB, RGBA for
# transparency.
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WebP": ("RGB", "RGBA"),
}
MOST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65_500, "WebP": 16_383}  # pixels
QUALITY = 95  # of JPEG and WebP


def save(
    image: Image, path: str | Path, *, overwrite: bool = False, quality: int | None = None
) -> Path:
    """Write a picture as PNG, JPEG or WebP, by the ending of `path`, with all that it says of
    itself: A1111's parameters where the web interfaces read them, our record, what other programs
    wrote, EXIF, resolution and colour profile. Return the path.

    `quality`, 1 to 100, is of JPEG and WebP (95); a WebP of 100 is without loss. JPEG shows what is
    transparent on white. A file that exists is replaced with `overwrite=True` only; one that would
    stay the same is left alone. What a format cannot hold is said on stderr.

    Raises RequestError before anything is written.
    """
    pictures.check_picture(image)
    check_kind("overwrite", overwrite, bool)
    path = checked_path(path)
    kind = FORMATS[path.suffix.lower()]
    quality = _checked_quality(quality, kind)
    if max(image.size) > MOST_SIDE[kind]:
        raise RequestError(
            f"Cannot write {str(path)!r}: {kind} holds {MOST_SIDE[kind]} pixels a side, the picture"
            f" has {image.width}×{image.height}. Save it as PNG"
        )
    data = encoded(image, kind, quality)
    if path.exists() and not overwrite:
        if _holds(path, data):
            return path
        raise RequestError(
            f"Cannot write {str(path)!r}: it exists. Give another name, or overwrite=True"
        )
    write_atomically(path, lambda file: file.write(data))
    return path


def checked_path(path: str | Path) -> Path:
    """A path that a picture can be written to. Raises RequestError for an unknown ending, and where
    its folder is missing."""
    if not isinstance(path, (str, Path)):
        raise RequestError(f"path {shown(path)}: expected a text or a pathlib.Path")
    where = f"Cannot write {str(path)!r:.300}"
    try:
        path = expanded(path)
        if "\0" in str(path):
            raise ValueError("a path holds no zero byte")
        if path.suffix.lower() not in FORMATS:
            raise RequestError(f"{where}: expected a name that ends in {', '.join(FORMATS)}")
        if path.is_dir():
            raise RequestError(f"{where}: it is a folder, expected a file")
        if not path.parent.is_dir():
            raise RequestError(f"{where}: its folder does not exist")
    except RequestError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, no home folder
        raise RequestError(f"{where}: {one_line(error, 200)}") from error
    return path


def _checked_quality(quality: int | None, kind: str) -> int:
    if quality is None:
        return QUALITY
    if kind == "PNG":
        raise RequestError(f"quality {shown(quality)}: PNG is without loss, leave it out")
    if type(quality) is not int or not 1 <= quality <= 100:
        raise RequestError(f"quality {shown(quality)}: expected 1 to 100")
    return quality


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def encoded(image: Image, kind: str, quality: int = QUALITY) -> bytes:
    """A picture as the bytes of a file of this format, of FORMATS."""
    about = metadata.of(image)
    metadata.say_lost(about)
    with pictures.reading("The picture cannot be written"):
        image, about = _fitting(pictures.sound(image), about, kind)
        if kind == "PNG":
            return metadata.png(image, about)
        write = metadata.jpeg if kind == "JPEG" else metadata.webp
        return write(image, about, quality)


def _fitting(image: Image, about: Metadata, kind: str) -> tuple[Image, Metadata]:
    """A picture that the format holds, and what that changes of its metadata."""
    from PIL import Image

    if kind == "PNG" and image.mode.startswith("I"):
        return image.convert("I").convert("I;16"), about
    clear = kind == "JPEG" and image.has_transparency_data
    if image.mode in MODES[kind] and not clear:
        return image, about
    image, profile = pictures.in_own_space(image)
    about = replace(about, profile=profile).upright(image.size)
    if kind == "JPEG" and image.mode == "RGBA":
        warn_once("realkit: JPEG has no transparency: the picture is shown on white")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return image, about
