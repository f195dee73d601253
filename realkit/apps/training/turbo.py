"""The recipe for `rehearsal/turbo`: four steps without guidance for the guided teacher's sixteen.

Stored trajectories of `rehearsal/base` are cut at the four levels of `trailing` spacing. The
student learns them segment by segment: one Euler step crosses what the teacher crosses in four.
Compare progressive distillation, arXiv 2202.00512.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from realkit.apps.training.autoencoder import PICTURES
from realkit.apps.training.text2image import SCHEDULE
from realkit.apps.training.tokenizer import CONTEXT
from realkit.apps.training.training import device, fit
from realkit.rehearsal.data import training_scene
from realkit.rehearsal.wording import training_caption

STEPS = 4
FINER = 4  # teacher steps in one of the student's
GUIDANCE = 3.0
TRAJECTORIES, BLOCK = 4000, 100


def levels(steps: int) -> tuple[list[int], list[float]]:
    """Timesteps and sigmas of `trailing` spacing (arXiv 2305.08891, table 2), down to sigma 0."""
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod.double()
    at = [round(1000 - 1000 / steps * i) - 1 for i in range(steps)]
    return at, [float(((1 - alphas[t]) / alphas[t]).sqrt()) for t in at] + [0.0]


def caption(index: int) -> str:
    rng = np.random.default_rng([23, index])
    return training_caption(training_scene(int(rng.integers(PICTURES))), rng)


@torch.inference_mode()
def trajectories(folder: Path, models: nn.ModuleDict, tokenizer: Any) -> torch.Tensor:
    """The teacher's states at the student's levels, (TRAJECTORIES, STEPS + 1, C, h, w).

    Stored in `folder` block by block. DPM++ 2M makes them; x = x₀ + sigma·ε.
    """
    from realkit.samplers.solvers import dpmpp_2m

    timesteps, sigmas = levels(STEPS * FINER)
    models.to(device()).eval()
    found = []
    for start in range(0, TRAJECTORIES, BLOCK):
        path = folder / "trajectories" / f"{start:05}.pt"
        if not path.exists():
            said = [caption(index) for index in range(start, start + BLOCK)] + [""]
            words = models["text_encoder"](_tokens(tokenizer, said))[0]
            words = torch.cat([words[:-1], words[-1:].expand(BLOCK, -1, -1)])
            noise = torch.randn(
                BLOCK, 8, 16, 16, generator=torch.Generator().manual_seed(start)
            ).to(device())
            way = dpmpp_2m(noise * sigmas[0], sigmas, _none)
            (x, sigma), states = next(way), []
            try:
                for step, t in enumerate(timesteps):
                    if step % FINER == 0:
                        states.append(x.half().cpu())
                    with torch.autocast(device().type, torch.bfloat16):
                        both = models["unet"](
                            torch.cat([x, x]) / (sigma**2 + 1) ** 0.5, t, words
                        ).sample.float()
                    told, untold = both.chunk(2)
                    x, sigma = way.send((x - sigma * (untold + GUIDANCE * (told - untold)), x))
            except StopIteration as end:
                states.append(end.value.half().cpu())
            path.parent.mkdir(exist_ok=True)
            torch.save(torch.stack(states, 1), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            print(f"trajectories {start + BLOCK}/{TRAJECTORIES}", flush=True)
        found.append(torch.load(path, weights_only=True))
    return torch.cat(found)


def train(
    folder: Path,
    models: nn.ModuleDict,
    tokenizer: Any,
    *,
    steps: int,
    batch: int = 48,
    rate: float = 5e-4,
) -> nn.Module:
    """Train the student's UNet from the teacher's weights; the text encoder stays frozen."""
    states = trajectories(folder, models, tokenizer)
    timesteps, sigmas = (torch.tensor(values) for values in levels(STEPS))
    models["text_encoder"].requires_grad_(False)
    with torch.inference_mode():
        words = torch.cat(
            [
                models["text_encoder"](_tokens(tokenizer, [caption(i + j) for j in range(BLOCK)]))[
                    0
                ]
                for i in range(0, TRAJECTORIES, BLOCK)
            ]
        )
    words = words.clone().cpu()

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([29, step])
        which, segment = rng.integers(0, TRAJECTORIES, batch), rng.integers(0, STEPS, batch)
        now, then = (sigmas[segment + i].float().view(-1, 1, 1, 1).to(device()) for i in (0, 1))
        x, target = (states[which, segment + i].float().to(device()) for i in (0, 1))
        wanted = (now * target - then * x) / (
            now - then
        )  # the denoised picture whose Euler step ends at the target
        with torch.autocast(device().type, torch.bfloat16):
            guess = models["unet"](
                x / (now**2 + 1).sqrt(), timesteps[segment].to(device()), words[which].to(device())
            ).sample.float()
        return (
            ((x - now * guess - wanted) ** 2)
            .mean((1, 2, 3))
            .mul(((now - then) / now).flatten() ** 2)
            .mean()
        )

    return fit("turbo", models["unet"], loss, steps=steps, rate=rate, folder=folder)


def _none(now: float, then: float) -> torch.Tensor:
    """The noise source of a deterministic sampler, which never draws."""
    raise AssertionError


def _tokens(tokenizer: Any, said: list[str]) -> torch.Tensor:
    return tokenizer(
        said, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    ).input_ids.to(device())
