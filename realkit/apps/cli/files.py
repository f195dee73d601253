"""The files that a command reads and writes, checked before any work."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realkit.base import cache, pictures, saving
from realkit.base.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = tuple(saving.FORMATS)


def read_picture(path: Path) -> Image:
    return pictures.read(path)


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


def check_room(path: Path, size: tuple[int, int]) -> None:
    """Raise RequestError where the disk has no room for a picture of `size` pixels."""
    from realkit.sweeps.cost import BYTES_A_PIXEL

    needed, free = BYTES_A_PIXEL * size[0] * size[1], cache.free_bytes(path.parent)
    if needed > free:
        raise RequestError(
            f"{size[0]}×{size[1]} needs about {needed / 2**20:.1f} MiB in {str(path.parent)!r},"
            f" {free / 2**20:.1f} MiB are free: free some first"
        )


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format of its name, with what made it, and print where."""
    click.echo(saving.save(picture, path, overwrite=True))
