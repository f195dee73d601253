"""The files that a command reads and writes, checked before any work."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realkit.base import cache, pictures, saving
from realkit.base.door import check_path
from realkit.base.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = tuple(saving.FORMATS)


class Place(click.Path):
    """A path that a disk can hold, as an argument."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        check_path(param.human_readable_name, value)
        return super().convert(value, param, ctx)


PATH = Place()


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


def check_derived(path: Path, suffix: str, magic: bytes) -> None:
    """Raise RequestError where `path` cannot be written, does not end in `suffix`, or is a file
    that does not begin with `magic`, as what the kit replaces there would."""
    check_writable(path, suffix)
    if path.exists() and not _begins(path, magic):
        raise RequestError(
            f"Cannot write {str(path)!r}: it exists, and is no {suffix} file. Give another name"
        )


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def unused(path: Path, given: bool) -> Path:
    """A path that no file has yet: `path`, else, where a person did not give it, the same name with
    a number. Raises RequestError for an existing file that a person gave: nothing is overwritten.
    """
    if given and path.exists():
        raise RequestError(
            f"Cannot write {str(path)!r}: it exists. Give another name, or remove it"
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
    """Write a picture in the format of its name, with what made it, and print where."""
    click.echo(saving.save(picture, path, overwrite=True))
