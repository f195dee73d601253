"""The files that a command reads and writes, checked before any work."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realkit.base import cache
from realkit.base.errors import RequestError, one_line
from realkit.base.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg")  # formats to write


def read_picture(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise RequestError(f"No picture at {str(path)!r}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"Cannot read the picture {str(path)!r}: {one_line(error)}") from error


def check_writable(path: Path, *suffixes: str) -> None:
    """Raise RequestError where `path` cannot be written, or does not end in one of `suffixes`."""
    where = f"Cannot write {str(path)!r}"
    try:
        if path.is_dir():
            raise RequestError(f"{where}: it is a folder, expected a file")
        if suffixes and path.suffix.lower() not in suffixes:
            raise RequestError(f"{where}: expected a name that ends in {' or '.join(suffixes)}")
        if not path.parent.is_dir():
            raise RequestError(f"{where}: its folder does not exist")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise RequestError(f"{where}: {error.strerror}. Give another folder") from error


def unused(path: Path, given: bool) -> Path:
    """A path that no file has yet: `path`, else, where a person did not give it, the same name with
    a number. Raises RequestError for an existing file that a person gave: nothing is overwritten.
    """
    if given and path.exists():
        raise RequestError(
            f"{str(path)!r} exists, and is not overwritten: give another name, or remove it"
        )
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not place.exists())


def check_room(path: Path, size: tuple[int, int]) -> None:
    """Raise RequestError where the disk has no room for a picture of `size` pixels."""
    from realkit.sweeps.cost import BYTES_A_PIXEL

    needed, free = BYTES_A_PIXEL * size[0] * size[1], cache.free_bytes(path.parent)
    if needed > free:
        raise RequestError(
            f"{size[0]}×{size[1]} needs about {cache.readable(needed)} in {str(path.parent)!r},"
            f" {cache.readable(free)} are free: free some first"
        )


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format of its name, and print where. A PNG holds what made it."""
    from realkit.base.pictures import opaque
    from realkit.models import provenance

    if path.suffix.lower() == ".png":
        write_atomically(path, lambda file: provenance.save(picture, file))
    else:
        write_atomically(path, lambda file: opaque(picture).save(file, "JPEG", quality=95))
    click.echo(path)
