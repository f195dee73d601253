import itertools

import numpy as np
import pytest

from realkit.upscalers import tiles


@pytest.mark.parametrize("length", [1, 7, 8, 31, 64, 97, 1000])
@pytest.mark.parametrize(
    ("tile", "overlap", "multiple"),
    [(8, 0, 1), (16, 3, 1), (32, 50, 1), (24, 24, 8), (5000, 10, 1)],
)
def test_tiles_cover_everything_and_their_weights_add_to_one(length, tile, overlap, multiple):
    length = -(-length // multiple) * multiple
    found = tiles.spans(length, tile, overlap, multiple)
    assert (
        found[0].begins == 0
        and found[-1].ends == length
        and all(a.ends == b.begins for a, b in itertools.pairwise(found))
    )
    assert len({span.stop - span.start for span in found}) == 1 and all(
        span.start % multiple == 0 and 0 <= span.start < span.stop <= length for span in found
    )
    for span in found:
        assert span.start <= max(0, span.begins - overlap) and span.stop >= min(
            length, span.ends + overlap
        )
    for scale in (1, 3):
        total = np.zeros(length * scale)
        for span in found:
            total[span.start * scale : span.stop * scale] += tiles.weights(span, length, scale)
        assert np.abs(total - 1).max() < 1e-6


def test_what_counts_of_a_tile_has_all_its_surroundings():
    """A pixel counts only where the piece holds `overlap` more around it, or the picture ends."""
    for span in tiles.spans(200, 40, 12):
        places = np.flatnonzero(tiles.weights(span, 200, 1)) + span.start
        assert places[0] - span.start >= 12 or span.start == 0
        assert span.stop - 1 - places[-1] >= 12 or span.stop == 200


@pytest.mark.parametrize("batch", [1, 3])
def test_a_local_operation_is_the_same_in_tiles(batch):
    from scipy.ndimage import uniform_filter

    picture = np.random.default_rng(0).random((77, 131, 3), np.float32)
    run = lambda x: np.stack(  # noqa: E731
        [uniform_filter(p, (9, 9, 1), mode="reflect").repeat(2, 0).repeat(2, 1) for p in x]
    )
    whole = run(picture[None])[0]
    for tile in (8, 17, 40, 64):
        assert np.abs(tiles.enlarged(picture, run, 2, tile, 4, batch=batch) - whole).max() < 1e-6, (
            tile
        )


def test_the_largest_tile_fits():
    for pixels in (5_000, 40_000, 1e6):
        side = tiles.largest(pixels, 10, 8)
        assert side % 8 == 0 and ((side + 2 * 24) ** 2 <= pixels or side == 16)


@pytest.mark.parametrize(
    ("lengths", "tile", "overlap", "multiple", "used"),
    [
        ((64, 64), 64, 8, 1, None),
        ((64, 64), 100, 8, 1, None),
        ((64, 64), 48, 8, 1, None),  # a tile of 48 reads all 64 pixels: it is the whole picture
        ((128, 64), 64, 8, 1, 64),
        ((200, 200), 30, 8, 8, 32),
        ((200, 200), 3, 8, 1, 2 * tiles.RAMP),
    ],
)
def test_the_side_that_is_said_is_the_side_that_is_used(lengths, tile, overlap, multiple, used):
    assert tiles.side_used(lengths, tile, overlap, multiple) == used
    cores = set()
    for length in lengths:
        spans = tiles.spans(length, tile, overlap, multiple)
        cores |= {span.ends - span.begins for span in spans if len(spans) > 1}
    assert max(cores, default=None) == used
