"""Recipe for `rehearsal/esrgan-x4`: an RRDBNet of few blocks, in the ESRGAN format that spandrel reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from realkit.rehearsal.data import pictures
from realkit.rehearsal.training import device, fit

PICTURES, SIZE, SCALE = 320, 512, 4
FILTERS, BLOCKS = 32, 3
CROP = 36  # of the small picture
EDGE = 12  # pixels of an enlarged crop whose surroundings the network does not see


def build():
    """The network with random weights, but for the paths of the three colours, which begin as bilinear interpolation."""
    from spandrel.architectures.ESRGAN import ESRGAN

    model = ESRGAN(num_filters=FILTERS, num_blocks=BLOCKS, scale=SCALE)
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4  # after doubling each pixel this is bilinear interpolation
    point = torch.tensor([0.0, 1.0, 0.0])
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    first, *_, trunk, double, quadruple, high, last = convolutions
    with torch.no_grad():
        trunk.weight.zero_()
        trunk.bias.zero_()
        last.weight.zero_()
        for layer, kernel in ((first, point), (double, tent), (quadruple, tent), (high, point), (last, point)):
            layer.weight[:3] = 0
            layer.bias[:3] = 0
            for colour in range(3):
                layer.weight[colour, colour] = torch.outer(kernel, kernel)
    return model


def shrink(x: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] at a quarter of the size, bicubic and antialiased, in 8-bit steps."""
    small = F.interpolate(x, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255


def train(folder: Path, steps: int, batch: int = 8, rate: float = 5e-4, start: Path | None = None):
    """Charbonnier loss between enlarged crops and the truth; of four crops drawn, the busiest is taken."""
    data = pictures(folder, PICTURES, SIZE)
    model = build().to(device())
    if start:
        model.load_state_dict(load_file(start))

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([13, step])
        x = torch.from_numpy(np.stack([_busy_crop(data, rng) for _ in range(batch)])).permute(0, 3, 1, 2).float() / 255
        x = x.flip(3) if rng.random() < 0.5 else x
        x = (x.transpose(2, 3) if rng.random() < 0.5 else x).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            enlarged = model(shrink(x))
        inside = (..., slice(EDGE, -EDGE), slice(EDGE, -EDGE))
        return ((enlarged.float()[inside] - x[inside]) ** 2 + 1e-6).sqrt().mean()

    return fit("esrgan-x4", model, loss, steps=steps, rate=rate, folder=folder)


def _busy_crop(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = CROP * SCALE
    found = []
    for _ in range(4):
        index, top, left = rng.integers(0, (len(data), SIZE - side, SIZE - side))
        found.append(data[index, top : top + side, left : left + side])
    return max(found, key=lambda crop: float(np.abs(np.diff(crop[::2, ::2].astype(np.int16), axis=0)).mean()))
