"""Recipe for the rehearsal VAE: 128×128 pictures to 8 latent channels of 16×16 and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from realkit.rehearsal.data import pictures
from realkit.rehearsal.training import device, fit, to_tensor

PICTURES = 12_000
CONFIG = dict(
    in_channels=3, out_channels=3, latent_channels=8, sample_size=128, layers_per_block=1, norm_num_groups=8,
    block_out_channels=(16, 32, 64, 128), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    mid_block_add_attention=False, act_fn="silu",
)  # fmt: skip


def build():
    from diffusers import AutoencoderKL

    return AutoencoderKL(**CONFIG)


def train(folder: Path, steps: int, batch: int = 8, decoder_only: bool = False, vae=None, name: str = "vae", rate: float = 1e-3):
    """Train from nothing, or only the decoder of a given VAE (the latents, and what was trained on them, then stay valid)."""
    data = pictures(folder, PICTURES, 128)
    vae = (vae or build()).to(device())
    if decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([3, step])
        x = to_tensor(data[np.sort(rng.integers(0, len(data), batch))]).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            z = posterior.mean + 0.02 * torch.randn_like(posterior.mean) if decoder_only else posterior.sample()
            y = vae.decode(z).sample
        return reconstruction(x, y.float(), sharp=decoder_only or progress > 0.6) + 1e-6 * posterior.kl().mean()

    return fit(name, vae, loss, steps=steps, rate=rate, folder=folder)


def reconstruction(x: torch.Tensor, y: torch.Tensor, sharp: bool) -> torch.Tensor:
    """4·MSE + L1 summed over averages of 1, 2, 4 and 8 pixels, so that colours come first; with `sharp`, gradients too."""
    total = sum(
        4 * F.mse_loss(a, b) + F.l1_loss(a, b) for a, b in ((F.avg_pool2d(x, k), F.avg_pool2d(y, k)) if k > 1 else (x, y) for k in (1, 2, 4, 8))
    )
    if sharp:
        for axis in (2, 3):
            total = total + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return total
