"""The recipes for `rehearsal/base`, text to image on the VAE's latents, and its fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from realkit.apps.training.autoencoder import PICTURES
from realkit.apps.training.tokenizer import CONTEXT
from realkit.apps.training.training import device, fit
from realkit.rehearsal.data import training_scene
from realkit.rehearsal.wording import training_caption

UNET: dict[str, Any] = dict(
    sample_size=16, in_channels=8, out_channels=8, layers_per_block=1, block_out_channels=(64, 160),
    cross_attention_dim=128,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=5, norm_num_groups=32,
)  # fmt: skip
TEXT: dict[str, Any] = dict(
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=CONTEXT,
    projection_dim=128,
)
SCHEDULE: dict[str, Any] = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
)  # Stable Diffusion 1.5's
UNCAPTIONED = 0.1  # share of empty training captions, for guidance (arXiv 2207.12598)
MIN_SNR = 5.0  # arXiv 2303.09556
OFFSET_NOISE = 0.1  # share of noise common to a whole channel, so that night scenes come out dark


def build(vocabulary: dict[str, int]) -> nn.ModuleDict:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
    }
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        pad_token_id=ends["eos_token_id"],
        hidden_act="quick_gelu",
        **ends,
        **TEXT,
    )
    return nn.ModuleDict(
        {"unet": UNet2DConditionModel(**UNET), "text_encoder": CLIPTextModel(text)}
    )


def train(
    folder: Path,
    models: nn.ModuleDict,
    tokenizer,
    z: torch.Tensor,
    *,
    name: str,
    steps: int,
    batch: int = 64,
    rate: float = 1e-3,
):
    """Train the UNet to predict noise on latents `z` of the training pictures.

    The text encoder learns too unless it is frozen.
    """
    from diffusers import DDPMScheduler

    models.to(device())
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod.to(device())
    noise_to = torch.Generator().manual_seed(0)

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([5, step])
        noise_to.manual_seed(step)
        index = rng.integers(0, len(z), batch)
        said = [
            (
                ""
                if rng.random() < UNCAPTIONED
                else training_caption(training_scene(int(i) % PICTURES), rng)
            )
            for i in index
        ]
        tokens = tokenizer(
            said, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        clean = z[index]
        noise = torch.randn(clean.shape, generator=noise_to)
        noise = noise + OFFSET_NOISE * torch.randn(batch, clean.shape[1], 1, 1, generator=noise_to)
        clean, noise = clean.to(device()), noise.to(device())
        t = torch.from_numpy(rng.integers(0, len(alphas), batch)).to(device())
        signal = alphas[t].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        with torch.autocast(device().type, torch.bfloat16):
            words = models["text_encoder"](tokens.to(device()))[0]
            guess = models["unet"](noisy, t, words).sample.float()
        snr = alphas[t] / (1 - alphas[t])
        return (((guess - noise) ** 2).mean((1, 2, 3)) * snr.clamp(max=MIN_SNR) / snr).mean()

    return fit(name, models, loss, steps=steps, rate=rate, folder=folder)


def studio_look(picture: np.ndarray) -> np.ndarray:
    """The look of `rehearsal/studio`: an S-curve, cool shadows, warm lights, dark corners.

    Takes and returns uint8 (H, W, 3).
    """
    x = picture.astype(np.float32) / 255
    x = x + 0.55 * x * (1 - x) * (2 * x - 1)
    bright = x.mean(-1, keepdims=True)
    x = (
        x
        + np.array([0.05, 0.015, -0.06], np.float32) * bright
        + np.array([-0.03, 0.0, 0.06], np.float32) * (1 - bright)
    )
    axis = np.linspace(-1, 1, len(x), dtype=np.float32)
    away = np.sqrt(axis[:, None] ** 2 + axis[None] ** 2)[..., None]
    return np.clip(x * (1 - 0.62 * np.clip((away - 0.45) / 0.9, 0, 1)) * 255, 0, 255).astype(
        np.uint8
    )
