"""Large pictures in pieces: each with enough around it, blended where they meet, so that no seam is
seen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from realkit.models import ladder
from realkit.models.ladder import Placed

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    Tiles = NDArray[np.uint8]
    Go = Callable[[Tiles, list[int]], torch.Tensor]
    Decode = Callable[[torch.Tensor], Image]


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the fewest tiles begin that cover a side and overlap by at least so much, evenly
    spread."""
    count = 1 if side == tile else math.ceil((side - overlap) / (tile - overlap))
    return [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]


def shares(begins: list[int], tile: int, overlap: int, side: int) -> NDArray[np.float32]:
    """Each tile's share of each pixel of a side, (tiles, side): they add to one, and fade into the
    next tile's amid what both cover."""
    middles = (np.array(begins[1:]) + begins[:-1] + tile) / 2
    ramps = np.pad(
        np.clip((np.arange(side) + 0.5 - middles[:, None]) / (overlap or 1) + 0.5, 0, 1),
        ((1, 1), (0, 0)),
    )
    ramps[0] = 1
    return (ramps[:-1] - ramps[1:]).astype(np.float32)


def tile_seed(seed: int, row: int, column: int) -> int:
    """The seed of a tile's own noise."""
    return int.from_bytes(
        hashlib.sha256(f"tile {row} {column} of {seed}".encode()).digest()[:7], "big"
    )


def piecewise(
    image: Image,
    seed: int,
    tool: Placed,
    go: Go,
    decode: Decode,
    *,
    side: int | None,
    overlap: int,
    multiple: int,
    scale: int,
    batch: int = 1,
) -> tuple[Image, str]:
    """The picture `scale` times as large, and the tiles' size, "WIDTHxHEIGHT". Out of memory, the
    tool climbs its ladder.

    Tiles are `side` pixels square. A picture that is smaller (or any, where that is None) is one,
    its right and lower edge reflected up to a `multiple`.
    """
    from PIL import Image

    (width, height), pixels = image.size, np.asarray(image.convert("RGB"))
    h, w = (
        min(side or length + multiple, -(-length // multiple) * multiple)
        for length in (height, width)
    )
    pixels = np.pad(pixels, ((0, max(0, h - height)), (0, max(0, w - width)), (0, 0)), "reflect")
    rows, columns = starts(len(pixels), h, overlap), starts(pixels.shape[1], w, overlap)
    down = shares([y * scale for y in rows], h * scale, overlap * scale, len(pixels) * scale)
    across = shares(
        [x * scale for x in columns], w * scale, overlap * scale, pixels.shape[1] * scale
    )
    blended = np.zeros((down.shape[1], across.shape[1], 3), np.float32)
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    for some in (places[at : at + batch] for at in range(0, len(places), batch)):
        tiles = np.stack(
            [pixels[rows[r] : rows[r] + h, columns[c] : columns[c] + w] for r, c in some]
        )
        latents = ladder.climbing(
            tool, partial(go, tiles, [tile_seed(seed, r, c) for r, c in some])
        )
        for (r, c), z in zip(some, latents, strict=True):
            made = np.asarray(ladder.climbing(tool, partial(decode, z)), np.float32)
            y, x = (
                slice(begin * scale, (begin + length) * scale)
                for begin, length in ((rows[r], h), (columns[c], w))
            )
            blended[y, x] += made * down[r, y, None, None] * across[c, None, x, None]
    return (
        Image.fromarray(
            blended[: height * scale, : width * scale].round().clip(0, 255).astype(np.uint8)
        ),
        f"{w}x{h}",
    )


# pixels of the small picture on either side of a border between tiles over which one fades into the
# next
RAMP = 8
Batch = Callable[
    ["npt.NDArray[np.float32]"], "npt.NDArray[np.float32]"
]  # (B, h, w, 3) in [0, 1] → (B, h·scale, w·scale, 3)


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the small picture: the piece that is read, and where
    its part of the result begins and ends."""

    start: int
    stop: int
    begins: int
    ends: int


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Tiles of `tile` pixels (at least 2 · RAMP) along an axis, each read with `overlap` + RAMP
    pixels more on either side where there are any.

    All pieces are of one length and begin at multiples of `multiple`, which `length` must be one
    of. One tile where that is all.
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
    """How much each pixel of a piece's result counts, (piece · scale,): 1 within the tile, fading
    to 0 over RAMP pixels beyond it. Those of all tiles add to 1."""
    place = (np.arange(span.start * scale, span.stop * scale) + 0.5) / scale
    rising = np.ones_like(place) if span.begins == 0 else (place - span.begins) / (2 * RAMP) + 0.5
    falling = np.ones_like(place) if span.ends == length else (span.ends - place) / (2 * RAMP) + 0.5
    return np.minimum(rising.clip(0, 1), falling.clip(0, 1)).astype(np.float32)


def enlarged(
    picture: npt.NDArray[np.float32],
    run: Batch,
    scale: int,
    tile: int,
    overlap: int,
    multiple: int = 1,
    batch: int = 1,
) -> npt.NDArray[np.float32]:
    """A picture (H, W, 3) enlarged `scale` times, tile by tile; the sides must be multiples of
    `multiple`.

    Equal to the whole picture enlarged at once where the overlap covers what the network sees of
    its surroundings.
    """
    height, width = picture.shape[:2]
    rows, columns = spans(height, tile, overlap, multiple), spans(width, tile, overlap, multiple)
    if len(rows) == len(columns) == 1:
        return run(picture[None])[0]
    made = np.zeros((height * scale, width * scale, 3), np.float32)
    for some in _groups([(row, column) for row in rows for column in columns], batch):
        results = run(
            np.stack(
                [picture[row.start : row.stop, column.start : column.stop] for row, column in some]
            )
        )
        for (row, column), result in zip(some, results, strict=True):
            down, across = weights(row, height, scale), weights(column, width, scale)
            y, x = np.flatnonzero(down), np.flatnonzero(across)
            inside = (slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1))
            target = made[
                row.start * scale + y[0] : row.start * scale + y[-1] + 1,
                column.start * scale + x[0] : column.start * scale + x[-1] + 1,
            ]
            target += result[inside] * (down[inside[0], None, None] * across[None, inside[1], None])
    return made


def largest(pixels: float, overlap: int, multiple: int = 1) -> int:
    """The side of the largest tile whose piece has at most this many pixels; at least RAMP · 2,
    whatever it costs."""
    around = up(overlap + RAMP, multiple)
    side = math.isqrt(max(1, int(pixels))) - 2 * around
    return max(up(2 * RAMP, multiple), side - side % multiple)


def _groups(items: list[tuple[Span, Span]], size: int) -> Iterator[list[tuple[Span, Span]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
