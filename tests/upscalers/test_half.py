"""Upscalers in half precision on a CPU, through the loaders' own path: float32's picture but for
rounding."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from realkit.models.loading import load
from realkit.rehearsal.scenes import render
from realkit.upscalers import stability
from realkit.upscalers.chain import Chain
from realkit.upscalers.redraw import Redraw
from realkit.upscalers.settings import Settings
from realkit.upscalers.upscale import load_upscaler
from tests import miniatures, upscaler_miniatures
from tests.half import FORMATS, LEVELS, apart, permitted, without_upcast

CPU = torch.device("cpu")
PROMPT = "a photo of a red cube"


def scene(side):
    return render("a photo of a shiny red cone on a checkered floor at noon", 4, side)


def same_in_every_format(draw, formats=FORMATS):
    """`draw(number)` gives a picture and how it was made."""
    pictures = {}
    for number in formats:
        pictures[number], used = draw(number)
        assert used["dtype"] == number
        assert apart(pictures[number], pictures["float32"]) < LEVELS[number]


def enlarged(name, number, tile=None):
    """By a network of spandrel's, which is in float16 where half precision is permitted."""
    chain, image = Chain.parse(name), scene(20)
    settings = Settings(tile=tile)
    if number == "float32":
        return load_upscaler(chain, device="cpu")(image, (80, 80), settings)
    with permitted():
        return load_upscaler(chain, device="cpu")(image, (80, 80), settings)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 16])
def test_a_network_of_a_file(tile):
    draw = partial(enlarged, "rehearsal/compact-x4", tile=tile)
    same_in_every_format(draw, ("float32", "float16"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [stability.X4, stability.Latent])
def test_stabilitys_pipelines(kind, tmp_path):
    make = upscaler_miniatures.x4 if kind is stability.X4 else upscaler_miniatures.latent
    folder = without_upcast(make(tmp_path / "upscaler"))

    def draw(number):
        with permitted():
            tool = stability.load_stability(kind, folder, CPU, dtype=number)
        assert str(tool.pipe.vae.dtype) == f"torch.{number}"
        settings = Settings(prompt=PROMPT, steps=2, seed=1, guidance=5.0)
        return tool(scene(32), settings), tool.used

    same_in_every_format(draw)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sd3"])
def test_redraws(kind, tmp_path):
    folder = without_upcast(miniatures.miniature(kind, tmp_path / kind, t5=kind == "sd3"))

    def draw(number):
        with permitted():
            tool = Redraw(load(str(folder), device="cpu", dtype=number))
        settings = Settings(prompt=PROMPT, steps=4, strength=0.5, seed=1, guidance=5.0)
        return tool(scene(64), settings), tool.used

    same_in_every_format(draw)
