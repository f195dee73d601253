"""Recipe for `rehearsal/esrgan-x4`: an RRDBNet of few blocks, in the ESRGAN format that spandrel reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from realkit.rehearsal.data import pictures
from realkit.rehearsal.training import device, fit

PICTURES, SIZE, SCALE = 320, 512, 4
FILTERS, BLOCKS = 32, 3
CROP = 36  # of the small picture


def build():
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(num_filters=FILTERS, num_blocks=BLOCKS, scale=SCALE)


def shrink(x: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] at a quarter of the size, bicubic and antialiased, in 8-bit steps."""
    small = F.interpolate(x, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255


def train(folder: Path, steps: int, batch: int = 8, rate: float = 8e-4, start: Path | None = None):
    """L1 between enlarged crops and the truth."""
    data = pictures(folder, PICTURES, SIZE)
    model = build().to(device())
    if start:
        model.load_state_dict(load_file(start))
    side = CROP * SCALE

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([13, step])
        crops = []
        for index in rng.integers(0, len(data), batch):
            top, left = rng.integers(0, SIZE - side, 2)
            crops.append(data[index, top : top + side, left : left + side])
        x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        x = x.flip(3) if rng.random() < 0.5 else x
        x = (x.transpose(2, 3) if rng.random() < 0.5 else x).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            enlarged = model(shrink(x))
        return F.l1_loss(enlarged.float(), x)

    return fit("esrgan-x4", model, loss, steps=steps, rate=rate, folder=folder)
