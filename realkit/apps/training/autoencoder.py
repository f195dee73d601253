"""The recipe for the rehearsal VAE: 128×128 pictures to 8 latent channels of 16×16 and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from realkit.apps.training.training import device, fit, to_tensor
from realkit.rehearsal.data import masks, pictures

PICTURES = 12_000
OBJECT_WEIGHT = 3.0
COLOUR = 0.02  # what one CIELAB unit of error adds to the loss
XYZ = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
XYZ = XYZ / torch.tensor([[0.95047], [1.0], [1.08883]])  # sRGB's primaries, relative to D65's white
CONFIG: dict[str, Any] = dict(
    in_channels=3, out_channels=3, latent_channels=8, sample_size=128, layers_per_block=1,
    norm_num_groups=8,
    block_out_channels=(16, 32, 64, 128), down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    mid_block_add_attention=False, act_fn="silu",
)  # fmt: skip


def build():
    from diffusers import AutoencoderKL

    return AutoencoderKL(**CONFIG)


def train(folder: Path, steps: int, batch: int = 8, vae=None):
    """Train encoder and decoder from random weights, or at a lower rate from a given VAE's."""
    rate = 6e-4 if vae else 1e-3
    data, where = pictures(folder, PICTURES, 128), masks(folder, PICTURES, 128)
    vae = (vae or build()).to(device())

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([3, step])
        index = np.sort(rng.integers(0, len(data), batch))
        x, weight = to_tensor(data[index]).to(device()), _weight(where[index])
        if rng.random() < 0.5:
            x, weight = x.flip(3), weight.flip(3)
        with torch.autocast(device().type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        return (
            reconstruction(x, y.float(), weight, sharp=progress > 0.6)
            + 1e-6 * posterior.kl().mean()
        )

    return fit("vae", vae, loss, steps=steps, rate=rate, folder=folder)


def train_decoder(folder: Path, vae, steps: int, batch: int = 8):
    """Train the decoder alone, so that stored latents and models trained on them stay valid."""
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
    """Scaled latents (N, 8, 16, 16) of the training pictures, stored in `folder`.

    The mirror images follow where `mirrored`. `look` changes each picture first.
    """
    made_by = hashlib.sha256(
        b"".join(weight.cpu().numpy().tobytes() for weight in vae.encoder.state_dict().values())
    ).hexdigest()[:8]
    path = folder / f"latents-{name}-{made_by}.pt"
    if not path.exists():
        data, vae = pictures(folder, PICTURES, 128), vae.to(device())
        found = []
        for mirror in (False, True) if mirrored else (False,):
            for start in range(0, len(data), 64):
                batch = data[start : start + 64]
                x = to_tensor(np.stack([look(p) for p in batch]) if look else np.asarray(batch)).to(
                    device()
                )
                with torch.autocast(device().type, torch.bfloat16):
                    found.append(
                        vae.encode(x.flip(3) if mirror else x).latent_dist.mean.float().cpu()
                    )
        part = path.with_suffix(".part")
        torch.save(torch.cat(found) * vae.config.scaling_factor, part)
        part.rename(path)
    return torch.load(path, weights_only=True)


def _weight(masks: np.ndarray) -> torch.Tensor:
    """Weights of the pixels' errors, (B, 1, H, W), of mean 1: the object's count four times."""
    weight = 1 + OBJECT_WEIGHT * torch.from_numpy(masks.astype(np.float32))[:, None].to(device())
    return weight / weight.mean()


def reconstruction(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, sharp: bool
) -> torch.Tensor:
    """The loss: 4·MSE + L1 over averages of 1, 2, 4 and 8 pixels, so that colours are learnt first.

    A share of CIELAB distance is added; with `sharp`, the error of gradients too.
    """
    total = torch.zeros((), device=x.device)
    for side in (1, 2, 4, 8):
        a, b, w = (F.avg_pool2d(t, side) if side > 1 else t for t in (x, y, weight))
        total = total + (w * (4 * (a - b) ** 2 + (a - b).abs())).mean()
    total = (
        total + COLOUR * (weight[:, 0] * ((lab(x) - lab(y)) ** 2).sum(1).add(1e-2).sqrt()).mean()
    )
    if sharp:
        for axis in (2, 3):
            total = total + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return total


def lab(x: torch.Tensor) -> torch.Tensor:
    """sRGB (B, 3, H, W) in [-1, 1] to CIELAB under D65, differentiable everywhere.

    The formulas are those of IEC 61966-2-1 and CIE 15.
    """
    srgb = ((x + 1) / 2).clamp(0, 1)
    linear = torch.where(
        srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    )
    xyz = torch.einsum("ij,bjhw->bihw", XYZ.to(x.device), linear)
    f = torch.where(
        xyz > 216 / 24389, xyz.clamp(min=216 / 24389) ** (1 / 3), (24389 / 27 * xyz + 16) / 116
    )
    return torch.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1
    )
