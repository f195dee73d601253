"""Recipe for the rehearsal VAE: 128×128 pictures to 8 latent channels of 16×16 and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realkit.rehearsal.data import masks, pictures
from realkit.rehearsal.training import device, fit, to_tensor

PICTURES = 12_000
OBJECT_WEIGHT = 3.0
CONFIG: dict[str, Any] = dict(
    in_channels=3, out_channels=3, latent_channels=8, sample_size=128, layers_per_block=1, norm_num_groups=8,
    block_out_channels=(16, 32, 64, 128), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    mid_block_add_attention=False, act_fn="silu",
)  # fmt: skip


def build():
    from diffusers import AutoencoderKL

    return AutoencoderKL(**CONFIG)


def train(folder: Path, steps: int, batch: int = 8, vae=None):
    """Encoder and decoder together, from random weights or a given VAE's."""
    data, where = pictures(folder, PICTURES, 128), masks(folder, PICTURES, 128)
    vae = (vae or build()).to(device())

    def loss(step: int, progress: float) -> torch.Tensor:
        index = np.sort(np.random.default_rng([3, step]).integers(0, len(data), batch))
        x = to_tensor(data[index]).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        return reconstruction(x, y.float(), _weight(where[index]), sharp=progress > 0.6) + 1e-6 * posterior.kl().mean()

    return fit("vae", vae, loss, steps=steps, rate=1e-3, folder=folder)


def train_decoder(folder: Path, vae, steps: int, batch: int = 8):
    """The decoder alone, on kept latents: these, and what was trained on them, stay valid."""
    data, where = pictures(folder, PICTURES, 128), masks(folder, PICTURES, 128)
    z = latents(folder, "base", vae) / vae.config.scaling_factor
    vae.to(device())
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(step: int, progress: float) -> torch.Tensor:
        index = np.sort(np.random.default_rng([4, step]).integers(0, len(data), batch))
        x = to_tensor(data[index]).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            y = vae.decode(z[index].to(device())).sample
        return reconstruction(x, y.float(), _weight(where[index]), sharp=True)

    return fit("decoder", vae, loss, steps=steps, rate=7e-4, folder=folder)


@torch.no_grad()
def latents(folder: Path, name: str, vae, look=None, mirrored: bool = True) -> torch.Tensor:
    """Scaled latents (PICTURES, 8, 16, 16) of the training pictures, then of their mirror images if `mirrored`, kept in `folder`."""
    made_by = hashlib.sha256(b"".join(weight.cpu().numpy().tobytes() for weight in vae.encoder.state_dict().values())).hexdigest()[:8]
    path = folder / f"latents-{name}-{made_by}.pt"
    if not path.exists():
        data, vae = pictures(folder, PICTURES, 128), vae.to(device())
        found = []
        for mirror in (False, True) if mirrored else (False,):
            for start in range(0, len(data), 64):
                batch = data[start : start + 64]
                x = to_tensor(np.stack([look(p) for p in batch]) if look else np.asarray(batch)).to(device())
                with torch.autocast(device().type, torch.bfloat16):
                    found.append(vae.encode(x.flip(3) if mirror else x).latent_dist.mean.float().cpu())
        part = path.with_suffix(".part")
        torch.save(torch.cat(found) * vae.config.scaling_factor, part)
        part.rename(path)
    return torch.load(path, weights_only=True)


def _weight(masks: np.ndarray) -> torch.Tensor:
    """How much each pixel's error counts, (B, 1, H, W), mean 1: the object's four times as much as the rest."""
    weight = 1 + OBJECT_WEIGHT * torch.from_numpy(masks.astype(np.float32))[:, None].to(device())
    return weight / weight.mean()


def reconstruction(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, sharp: bool) -> torch.Tensor:
    """4·MSE + L1 summed over averages of 1, 2, 4 and 8 pixels, so that colours come first; with `sharp`, gradients too."""
    total = torch.zeros((), device=x.device)
    for side in (1, 2, 4, 8):
        a, b, w = (F.avg_pool2d(t, side) if side > 1 else t for t in (x, y, weight))
        total = total + (w * (4 * (a - b) ** 2 + (a - b).abs())).mean()
    if sharp:
        for axis in (2, 3):
            total = total + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return total
