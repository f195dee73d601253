"""How many steps of a schedule belong to the first of two legs, told without torch; imports
numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from realkit.samplers import sigmas
from realkit.samplers.table import Sampler


def steps_before(spec: Sampler, steps: int, original: Mapping[str, Any], share: float) -> int:
    """How many of a run's steps have their timestep in this share of the noise schedule, from the
    noisy end: SDXL's two models divide it so. `original` is the model's scheduler config."""
    count = original.get("num_train_timesteps", 1000)
    timesteps = _timesteps(spec, steps, count, original)
    return int((np.round(timesteps, 3) >= count - round(share * count)).sum())


def _timesteps(spec: Sampler, steps: int, count: int, original: Mapping[str, Any]) -> Any:
    if spec.solver or spec.schedule in ("karras", "exponential"):
        trained = _trained(count, original)
        levels = sigmas.SCHEDULES[spec.schedule](steps + spec.discard, trained)[:steps]
        timesteps = sigmas.timestep_of(levels, trained)
        return timesteps if spec.solver else np.round(timesteps)
    spacing = spec.overrides.get("timestep_spacing", "leading")
    if spacing == "linspace":  # as diffusers' multistep schedulers have it
        return np.round(np.linspace(0, count - 1, steps + 1))[:0:-1]
    if spacing == "trailing":
        return np.round(np.arange(count, 0, -count / steps))[:steps] - 1
    return np.arange(steps)[::-1] * (count // steps) + spec.overrides.get("steps_offset", 0)


def _trained(count: int, original: Mapping[str, Any]) -> Any:
    """The level sigma of each training timestep, (count,), ascending: as DDPMScheduler has them."""
    first, last = original.get("beta_start", 1e-4), original.get("beta_end", 0.02)
    if original.get("trained_betas") is not None:
        betas = np.array(original["trained_betas"], float)
    elif original.get("beta_schedule") == "scaled_linear":
        betas = np.linspace(first**0.5, last**0.5, count) ** 2
    else:
        betas = np.linspace(first, last, count)
    alphas = np.cumprod(1 - betas)
    return np.sqrt((1 - alphas) / alphas)
