"""Large pictures in pieces: each with enough around it, blended where they meet, so that no seam is seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

RAMP = 8  # pixels of the small picture on either side of a border between tiles over which one fades into the next
Batch = Callable[["npt.NDArray[np.float32]"], "npt.NDArray[np.float32]"]  # (B, h, w, 3) in [0, 1] → (B, h·scale, w·scale, 3)


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the small picture: the piece that is read, and where its part of the result begins and ends."""

    start: int
    stop: int
    begins: int
    ends: int


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Tiles of `tile` pixels (at least 2 · RAMP) along an axis, each read with `overlap` + RAMP pixels more on either side where there are any.

    All pieces are of one length and begin at multiples of `multiple`, which `length` must be one of. One tile where that is all.
    """
    tile = up(max(2 * RAMP, tile), multiple)
    around = up(overlap + RAMP, multiple)
    piece = min(length, tile + 2 * around)
    if tile >= length or piece == length:
        return [Span(0, length, 0, length)]
    found = []
    for begins in range(0, length, tile):
        start = min(max(0, begins - around), length - piece)
        found.append(Span(start, start + piece, begins, min(length, begins + tile)))
    return found


def weights(span: Span, length: int, scale: int) -> npt.NDArray[np.float32]:
    """How much each pixel of a piece's result counts, (piece · scale,): 1 within the tile, fading to 0 over RAMP pixels beyond it. Those of all tiles add to 1."""
    place = (np.arange(span.start * scale, span.stop * scale) + 0.5) / scale
    rising = np.ones_like(place) if span.begins == 0 else (place - span.begins) / (2 * RAMP) + 0.5
    falling = np.ones_like(place) if span.ends == length else (span.ends - place) / (2 * RAMP) + 0.5
    return np.minimum(rising.clip(0, 1), falling.clip(0, 1)).astype(np.float32)


def enlarged(picture: npt.NDArray[np.float32], run: Batch, scale: int, tile: int, overlap: int, multiple: int = 1, batch: int = 1) -> npt.NDArray[np.float32]:
    """A picture (H, W, 3) enlarged `scale` times, tile by tile; the sides must be multiples of `multiple`.

    Equal to the whole picture enlarged at once where the overlap covers what the network sees of its surroundings.
    """
    height, width = picture.shape[:2]
    rows, columns = spans(height, tile, overlap, multiple), spans(width, tile, overlap, multiple)
    if len(rows) == len(columns) == 1:
        return run(picture[None])[0]
    made = np.zeros((height * scale, width * scale, 3), np.float32)
    for some in _groups([(row, column) for row in rows for column in columns], batch):
        results = run(np.stack([picture[row.start : row.stop, column.start : column.stop] for row, column in some]))
        for (row, column), result in zip(some, results, strict=True):
            down, across = weights(row, height, scale), weights(column, width, scale)
            y, x = np.flatnonzero(down), np.flatnonzero(across)
            inside = (slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1))
            target = made[row.start * scale + y[0] : row.start * scale + y[-1] + 1, column.start * scale + x[0] : column.start * scale + x[-1] + 1]
            target += result[inside] * (down[inside[0], None, None] * across[None, inside[1], None])
    return made


def largest(pixels: float, overlap: int, multiple: int = 1) -> int:
    """The side of the largest tile whose piece has at most this many pixels; at least RAMP · 2, whatever it costs."""
    around = up(overlap + RAMP, multiple)
    side = math.isqrt(max(1, int(pixels))) - 2 * around
    return max(up(2 * RAMP, multiple), side - side % multiple)


def _groups(items: list[tuple[Span, Span]], size: int) -> Iterator[list[tuple[Span, Span]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
