"""The recipes for the rehearsal upscalers: three architectures in miniature.

spandrel loads `rehearsal/esrgan-x4`, an RRDBNet, and `rehearsal/compact-x4`, an SRVGGNetCompact.
transformers loads `rehearsal/swin2sr-x4`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from realkit.apps.training.training import device, fit
from realkit.rehearsal.data import pictures

PICTURES, SIZE, SCALE = 320, 512, 4
TENT = torch.tensor([1.0, 2.0, 1.0]) / 4  # after doubling each pixel this is bilinear interpolation
FLAT = 2  # crops of a batch that show one colour
# The share of the training in bfloat16. Its rounding is half a level of 255: more than the error on
# smooth floors, so the rest runs in float32.
COARSE = 0.6
POINT = torch.tensor([0.0, 1.0, 0.0])


class Recipe(NamedTuple):
    """How to build a network, the side of the small crops it learns on, and its learning rate."""

    build: Callable[[], nn.Module]
    crop: int
    rate: float


def esrgan():
    """RRDBNet with random weights; its three colours begin as bilinear interpolation."""
    from spandrel.architectures.ESRGAN import ESRGAN

    model = ESRGAN(num_filters=32, num_blocks=3, scale=SCALE)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    first, *_, trunk, double, quadruple, high, last = convolutions
    with torch.no_grad():
        trunk.weight.zero_()
        trunk.bias.zero_()
        last.weight.zero_()
        for layer, kernel in (
            (first, POINT),
            (double, TENT),
            (quadruple, TENT),
            (high, POINT),
            (last, POINT),
        ):
            layer.weight[:3] = 0
            layer.bias[:3] = 0
            for colour in range(3):
                layer.weight[colour, colour] = torch.outer(kernel, kernel)
    return model


def compact():
    """SRVGGNetCompact with random weights; its three colours begin as bilinear interpolation."""
    from spandrel.architectures.Compact import Compact

    model = Compact(num_feat=48, num_conv=10, upscale=SCALE)
    first, *inner, last = [module for module in model.body if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer in (first, *inner):
            layer.weight[:3] = 0
            layer.bias[:3] = 0
            for colour in range(3):
                layer.weight[colour, colour, 1, 1] = 1
        _interpolate(last)
        for colour in range(3):  # the network itself adds each pixel repeated
            last.weight[colour * SCALE**2 : (colour + 1) * SCALE**2, colour, 1, 1] -= 1
    return model


def swin2sr():
    """Swin2SR that begins as bilinear interpolation: its body adds nothing at first."""
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(
        embed_dim=30,
        depths=[2, 2],
        num_heads=[3, 3],
        upscale=SCALE,
        image_size=64,
        drop_path_rate=0.0,
        upsampler="pixelshuffledirect",
    )
    model = Swin2SRForImageSuperResolution(config)
    first, after = model.swin2sr.first_convolution, model.swin2sr.conv_after_body
    with torch.no_grad():
        after.weight.zero_()
        after.bias.zero_()
        first.weight[:3] = 0
        first.bias[:3] = 0
        for colour in range(3):
            first.weight[colour, colour, 1, 1] = 1
        _interpolate(model.upsample.conv)
    return model


def _interpolate(layer):
    """Set a 3×3 convolution before a pixel shuffle to interpolate its first three channels.

    The interpolation is bilinear; other channels get weight 0.
    """
    # The place of each new pixel, from the middle of the old one, gives its taps, (SCALE, 3).
    place = (torch.arange(SCALE) + 0.5) / SCALE - 0.5
    taps = torch.stack([(-place).clamp(min=0), 1 - place.abs(), place.clamp(min=0)], 1)
    layer.weight.zero_()
    layer.bias.zero_()
    for colour in range(3):
        layer.weight[colour * SCALE**2 : (colour + 1) * SCALE**2, colour] = torch.einsum(
            "ai,bj->abij", taps, taps
        ).reshape(-1, 3, 3)


RECIPES = {
    "esrgan-x4": Recipe(esrgan, 36, 5e-4),
    "compact-x4": Recipe(compact, 36, 1e-3),
    "swin2sr-x4": Recipe(swin2sr, 40, 1e-3),
}


def shrink(x: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] at a quarter of the size: bicubic, antialiased, 8 bits."""
    small = F.interpolate(x, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255


def train(
    name: str, folder: Path, steps: int, batch: int = 8, start: Path | None = None
) -> nn.Module:
    """Minimise the Charbonnier loss between upscaled crops and the truth, borders included.

    Of four crops drawn, the busiest is used.
    """
    recipe = RECIPES[name]
    data = pictures(folder, PICTURES, SIZE)
    model = recipe.build().to(device())
    if start:
        model.load_state_dict(load_file(start))

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([13, step])
        x = (
            torch.from_numpy(
                np.stack([_busy_crop(data, recipe.crop * SCALE, rng) for _ in range(batch)])
            )
            .permute(0, 3, 1, 2)
            .float()
            / 255
        )
        for single in x[:FLAT]:  # of one colour, to its very border
            single[:] = torch.from_numpy(rng.choice([0, 1, rng.random()], 3)).float()[:, None, None]
        x = x.flip(3) if rng.random() < 0.5 else x
        x = (x.transpose(2, 3) if rng.random() < 0.5 else x).to(device())
        with torch.autocast(device().type, torch.bfloat16, enabled=progress < COARSE):
            enlarged = model(shrink(x))
        enlarged = getattr(enlarged, "reconstruction", enlarged).float()
        return ((enlarged - x) ** 2 + 1e-6).sqrt().mean()

    return fit(name, model, loss, steps=steps, rate=recipe.rate, folder=folder)


def _busy_crop(data: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    found = []
    for _ in range(4):
        index, top, left = rng.integers(0, (len(data), SIZE - side, SIZE - side))
        found.append(data[index, top : top + side, left : left + side])
    return max(
        found,
        key=lambda crop: float(np.abs(np.diff(crop[::2, ::2].astype(np.int16), axis=0)).mean()),
    )
