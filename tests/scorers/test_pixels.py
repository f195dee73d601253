"""Measures of levels, by hand and by independent formulas."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import realkit as rk
from realkit.rehearsal.data import held_out
from realkit.rehearsal.scenes import render
from realkit.scorers import pixels

NAMES = [name for name, spec in rk.SCORERS.items() if spec.engine == "pixels"]


def picture(levels):
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def scores(levels):
    return rk.score(picture(levels), "", NAMES)


def test_a_blank_picture_is_flagged_and_a_scene_is_not(scene):
    assert scores(np.full((8, 9, 3), 37.0))["blank"] == 1
    assert scores(np.full((8, 9, 3), 37.0) + np.arange(9)[:, None])["blank"] == 0
    assert rk.score(scene, "", ["blank"]) == {"blank": 0}


def test_clipping_is_the_share_without_detail():
    levels = np.full((10, 10, 3), 128.0)
    levels[0], levels[1, :5], levels[2] = 255, 0, (255, 0, 0)
    assert scores(levels)["clipping"] == pytest.approx(15)


def test_noise_is_found_under_a_slope_and_an_edge():
    levels = np.tile(np.linspace(40, 200, 256), (256, 1))
    levels[:, 128:] += 20
    plain = scores(np.repeat(levels[..., None], 3, 2))["noise-floor"]
    for deviation in (3.0, 10.0):
        noisy = levels + np.random.default_rng(0).normal(0, deviation, levels.shape)
        found = scores(np.repeat(noisy[..., None], 3, 2))["noise-floor"]
        assert found == pytest.approx(deviation, rel=0.1) and plain < 0.5


def test_each_number_is_that_of_an_independent_formula(scene):
    levels = np.asarray(scene, float)
    luma = 0.299 * levels[..., 0] + 0.587 * levels[..., 1] + 0.114 * levels[..., 2]
    kernel = [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    inner = ndimage.convolve(luma, kernel)[1:-1, 1:-1]
    assert pixels.noise(levels) == pytest.approx(np.sqrt(np.pi / 2) * np.abs(inner).mean() / 6)
    slopes = [ndimage.correlate1d(luma, [-0.5, 0, 0.5], axis=axis) for axis in (0, 1)]
    inner = np.hypot(*slopes)[1:-1, 1:-1]
    assert pixels.sharpness(levels) == pytest.approx(inner.mean(), rel=0.05)
    blurred = ndimage.gaussian_filter(levels, (1.5, 1.5, 0))
    assert pixels.sharpness(blurred) < 0.8 * pixels.sharpness(levels)
    assert pixels.noise(blurred) < 0.3 * pixels.noise(levels)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_a_tiny_picture_has_a_number(size):
    assert all(np.isfinite(value) for value in scores(np.full((*size, 3), 255.0)).values())


@pytest.fixture(scope="module")
def scene():
    caption, seed = held_out(1)[0]
    return render(caption, seed)
