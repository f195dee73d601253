"""Large pictures in tiles: each reads enough around it and fades into the next, so that no seam is
seen.

Two layouts give the tiles of an axis: `even_strips` for diffusion, whose tiles keep one size and
share their overlap, and `core_strips` for networks, whose tiles have a core that counts and
surroundings that are only read. `blended` runs both.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from realkit.models import ladder
from realkit.models.ladder import Placed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    Floats = NDArray[np.float32]
    Tiles = NDArray[np.uint8]  # (B, h, w, 3)
    Denoise = Callable[[Tiles, list[int]], torch.Tensor]  # tiles, their seeds → latents (B, C, …)
    Decode = Callable[[torch.Tensor], Image]
    Places = list[tuple[int, int]]  # row and column of each tile

# Pixels of the small picture on either side of a border between cores over which one tile fades
# into the next.
RAMP = 8


class Strip(NamedTuple):
    """A tile along one axis: the pixels of the small picture that it reads, and how much each pixel
    of its result counts, (scale · (stop − start),)."""

    start: int
    stop: int
    weights: Floats


def blended(
    pixels: NDArray[Any],
    run: Callable[[NDArray[Any], Places], Iterable[Floats]],
    rows: list[Strip],
    columns: list[Strip],
    scale: int,
    batch: int = 1,
) -> Floats:
    """The sum of all tiles by their weights: (H, W, 3) → (H · scale, W · scale, 3).

    `run` takes up to `batch` tiles (B, h, w, 3) with their places, and gives each tile's result
    (h · scale, w · scale, 3).
    """
    height, width = pixels.shape[:2]
    total = np.zeros((height * scale, width * scale, 3), np.float32)
    places = list(itertools.product(range(len(rows)), range(len(columns))))
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        cuts = [(rows[row], columns[column]) for row, column in group]
        tiles = np.stack([pixels[y.start : y.stop, x.start : x.stop] for y, x in cuts])
        for (row, column), result in zip(cuts, run(tiles, group), strict=True):
            y, x = _counted(row), _counted(column)
            target = total[_moved(y, row, scale), _moved(x, column, scale)]
            target += result[y, x] * (row.weights[y, None, None] * column.weights[None, x, None])
    return total


def _counted(strip: Strip) -> slice:
    """The pixels of a result between the first and the last that count."""
    places = np.flatnonzero(strip.weights)
    return slice(places[0], places[-1] + 1)


def _moved(pixels: slice, strip: Strip, scale: int) -> slice:
    """Pixels of a strip's result, as pixels of the whole."""
    return slice(pixels.start + strip.start * scale, pixels.stop + strip.start * scale)


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the fewest tiles begin that cover a side and overlap by at least `overlap`, evenly
    spread."""
    count = 1 if side == tile else math.ceil((side - overlap) / (tile - overlap))
    return [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]


def shares(begins: list[int], tile: int, overlap: int, side: int) -> Floats:
    """Each tile's share of each pixel of a side, (tiles, side). Shares of a pixel add to 1; a tile
    fades into the next in the middle of what both cover."""
    middles = (np.array(begins[1:]) + begins[:-1] + tile) / 2
    ramps = (np.arange(side) + 0.5 - middles[:, None]) / (overlap or 1) + 0.5
    ramps = np.pad(np.clip(ramps, 0, 1), ((1, 1), (0, 0)))
    ramps[0] = 1
    return (ramps[:-1] - ramps[1:]).astype(np.float32)


def even_strips(side: int, tile: int, overlap: int, scale: int) -> list[Strip]:
    """Strips of `tile` pixels along a side that overlap by at least `overlap`, where one fades into
    the next."""
    begins = starts(side, tile, overlap)
    each = shares([at * scale for at in begins], tile * scale, overlap * scale, side * scale)
    return [
        Strip(at, at + tile, share[at * scale : (at + tile) * scale])
        for at, share in zip(begins, each, strict=True)
    ]


def tile_seed(seed: int, row: int, column: int) -> int:
    """The seed of a tile's own noise."""
    text = f"tile {row} {column} of {seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def piecewise(
    image: Image,
    seed: int,
    tool: Placed,
    denoise: Denoise,
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

    Tiles are `side` pixels square. A smaller picture (with side None: any) is one tile, its right
    and lower edge reflected up to a `multiple`.
    """
    from PIL import Image

    def run(tiles: Tiles, places: Places) -> Iterable[Floats]:
        seeds = [tile_seed(seed, row, column) for row, column in places]
        for latents in ladder.climbing(tool, partial(denoise, tiles, seeds)):
            yield np.asarray(ladder.climbing(tool, partial(decode, latents)), np.float32)

    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    h, w = (min(side or length + multiple, up(length, multiple)) for length in (height, width))
    margins = ((0, max(0, h - height)), (0, max(0, w - width)), (0, 0))
    pixels = np.pad(pixels, margins, "reflect")
    rows = even_strips(pixels.shape[0], h, overlap, scale)
    columns = even_strips(pixels.shape[1], w, overlap, scale)
    total = blended(pixels, run, rows, columns, scale, batch)[: height * scale, : width * scale]
    return Image.fromarray(total.round().clip(0, 255).astype(np.uint8)), f"{w}x{h}"


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels of the small picture: what it reads, and where its core, the
    part that counts, begins and ends."""

    start: int
    stop: int
    begins: int
    ends: int


def spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Tiles with cores of `tile` pixels (at least 2 · RAMP) along an axis, each reading `overlap` +
    RAMP pixels more on either side, up to the picture's edge.

    All read equally many pixels, from multiples of `multiple` on; so must be `length`. One tile
    where that covers the axis.
    """
    tile = core(tile, multiple)
    around = up(overlap + RAMP, multiple)
    piece = min(length, tile + 2 * around)
    if tile >= length or piece == length:
        return [Span(0, length, 0, length)]
    tiles = []
    for begins in range(0, length, tile):
        start = min(max(0, begins - around), length - piece)
        tiles.append(Span(start, start + piece, begins, min(length, begins + tile)))
    return tiles


def core(tile: int, multiple: int) -> int:
    """The side of a core where `tile` is asked for: at least 2 · RAMP, and a multiple."""
    return up(max(2 * RAMP, tile), multiple)


def side_used(lengths: Sequence[int], tile: int, overlap: int, multiple: int = 1) -> int | None:
    """The side of the cores that a picture of these sides is cut into; None where one tile reads
    all of it."""
    counts = [len(spans(length, tile, overlap, multiple)) for length in lengths]
    return core(tile, multiple) if max(counts) > 1 else None


def weights(span: Span, length: int, scale: int) -> Floats:
    """How much each pixel of a span's result counts: 1 within the core, fading to 0 over RAMP
    pixels beyond it. The weights of all spans add to 1."""
    place = (np.arange(span.start * scale, span.stop * scale) + 0.5) / scale
    weight = np.ones_like(place)
    if span.begins > 0:
        weight = np.minimum(weight, ((place - span.begins) / (2 * RAMP) + 0.5).clip(0, 1))
    if span.ends < length:
        weight = np.minimum(weight, ((span.ends - place) / (2 * RAMP) + 0.5).clip(0, 1))
    return weight.astype(np.float32)


def core_strips(length: int, tile: int, overlap: int, multiple: int, scale: int) -> list[Strip]:
    """The strips of `spans`, with their weights."""
    return [
        Strip(span.start, span.stop, weights(span, length, scale))
        for span in spans(length, tile, overlap, multiple)
    ]


def enlarged(
    picture: Floats,
    run: Callable[[Floats], Floats],
    scale: int,
    tile: int,
    overlap: int,
    multiple: int = 1,
    batch: int = 1,
) -> Floats:
    """A picture (H, W, 3) in [0, 1] enlarged `scale` times by `run`, (B, h, w, 3) → (B, h · scale,
    w · scale, 3), tile by tile. Sides must be multiples of `multiple`.

    Equal to the whole picture enlarged at once where the overlap covers what the network sees of
    its surroundings.
    """
    rows, columns = (
        core_strips(length, tile, overlap, multiple, scale) for length in picture.shape[:2]
    )
    if len(rows) == len(columns) == 1:
        return run(picture[None])[0]
    return blended(picture, lambda tiles, _: run(tiles), rows, columns, scale, batch)


def largest(pixels: float, overlap: int, multiple: int = 1) -> int:
    """The side of the largest core whose tile reads at most this many pixels; at least RAMP · 2,
    whatever it costs."""
    around = up(overlap + RAMP, multiple)
    side = math.isqrt(max(1, int(pixels))) - 2 * around
    return max(up(2 * RAMP, multiple), side - side % multiple)


def up(value: int, multiple: int) -> int:
    """The next multiple from a value on."""
    return -(-value // multiple) * multiple
