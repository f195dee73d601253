"""A target whose ideal denoiser is known in closed form: a mixture of Gaussians in the plane. What the sampler laboratory measures against."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realkit.lookup import find
from realkit.samplers import SAMPLERS, Sampler, build
from realkit.schedulers.sigmas import karras
from realkit.schedulers.solvers import SOLVERS

if TYPE_CHECKING:
    import torch

MEANS = ((-0.9, 0.3), (0.7, 0.9), (0.4, -0.8))
SCALES = (0.25, 0.35, 0.2)  # standard deviation of each, the same in every direction
SHARES = (0.3, 0.3, 0.4)
FINE = {  # Stable Diffusion's schedule in 12.8 times as many timesteps
    "num_train_timesteps": 12_800, "beta_start": 0.00085 / 12.8, "beta_end": 0.012 / 12.8, "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
}  # fmt: skip
LEVELS = np.array([0.02, 14.6])  # of the runs: smallest and largest sigma


def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x₀ | x = x₀ + sigma·ε] for points (N, 2): each Gaussian's posterior mean, weighted by its responsibility."""
    import torch

    means, spread = torch.tensor(MEANS, dtype=x.dtype), torch.tensor(SCALES, dtype=x.dtype) ** 2
    wide = spread + sigma**2
    away = x[:, None] - means
    weight = torch.softmax(torch.tensor(SHARES, dtype=x.dtype).log() - wide.log() - (away**2).sum(-1) / (2 * wide), 1)
    return (weight[..., None] * (means + away * (spread / wide)[:, None])).sum(1)


def moments() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (2,) and covariance (2, 2) of the mixture."""
    means, shares = np.array(MEANS), np.array(SHARES)
    mean = shares @ means
    away = means - mean
    return mean, (away * shares[:, None]).T @ away + np.eye(2) * (shares @ np.array(SCALES) ** 2)


@dataclass(frozen=True)
class Path:
    """Where a run ended, (N, 2) float64, and how often it asked the denoiser."""

    end: torch.Tensor
    calls: int


def run(name: str, steps: int, *, points: int = 64, seed: int = 0, to_zero: bool = False, **settings: object) -> Path:
    """Let a sampler of the table carry N points of pure noise down to the smallest level, or with `to_zero` to the end, in float64.

    Our solvers run on Karras' levels between LEVELS; diffusers' schedulers on Stable Diffusion's schedule in FINE timesteps, so that a
    ten times finer run is at hand, down to an eighth of them (sigma 0.35): their last steps span so much of log sigma that no order shows
    there. `settings` change those of the table, such as eta.
    """
    import torch

    spec = SAMPLERS[find(SAMPLERS, name)]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, 2, generator=generator, dtype=torch.float64)
    return _solve(spec, x, steps, generator, to_zero, settings) if spec.solver else _schedule(name, x, steps, generator, to_zero, settings)


def _solve(spec: Sampler, x: torch.Tensor, steps: int, generator: torch.Generator, to_zero: bool, settings: dict[str, object]) -> Path:
    import torch

    x = x * LEVELS[-1]
    settings = spec.settings | settings
    levels = karras(steps + (not to_zero), LEVELS).tolist() + [0.0] * to_zero
    if spec.solver in ("dpm_fast", "dpm_adaptive"):
        levels = [levels[0], LEVELS[0]]
    if spec.solver == "dpm_fast":
        settings["steps"] = steps
    return _drive(SOLVERS[spec.solver](x, levels, lambda now, then: torch.randn(x.shape, generator=generator, dtype=x.dtype), **settings))


def _drive(asking: Any) -> Path:
    wanted, calls = next(asking), 0
    try:
        while True:
            calls += 1
            wanted = asking.send(denoise(*wanted))
    except StopIteration as finished:
        return Path(finished.value, calls)


def _no_noise(now: float, then: float) -> torch.Tensor:
    raise AssertionError("a deterministic solver drew noise")


def _schedule(name: str, x: torch.Tensor, steps: int, generator: torch.Generator, to_zero: bool, settings: dict[str, object]) -> Path:
    scheduler = build(name, FINE)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # differences of neighbours would drown in float32
    scheduler.set_timesteps(steps)
    given = inspect.signature(scheduler.step).parameters
    settings = ({"generator": generator} if "generator" in given else {}) | settings
    alphas = scheduler.alphas_cumprod.numpy()
    highest, first = (((1 - a) / a) ** 0.5 for a in (alphas[-1], alphas[int(scheduler.timesteps[0])]))
    if first < highest:  # "leading" timesteps begin below the last: at different levels for different numbers of steps
        levels = np.geomspace(highest, first, 65).tolist()
        x = _drive(SOLVERS["dpmpp_2m"](x * highest, levels, _no_noise)).end * alphas[int(scheduler.timesteps[0])] ** 0.5
    alpha, calls = 1.0, 0
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[int(t)].item()
        if not to_zero and t <= scheduler.config.num_train_timesteps // 8 + 1:
            return Path(x / alpha**0.5, calls)
        calls, sigma = calls + 1, ((1 - alpha) / alpha) ** 0.5
        noise = (x / alpha**0.5 - denoise(x / alpha**0.5, sigma)) / sigma
        x = scheduler.step(noise, t, x, **settings).prev_sample
    return Path(x, calls)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square distance between paired points (N, 2)."""
    return float(((a - b) ** 2).sum(1).mean().sqrt())


def order(steps: list[int], errors: list[float]) -> float:
    """The slope of error against steps on logarithmic axes: 2 where twice the steps leave a quarter of the error."""
    return float(-np.polyfit(np.log2(steps), np.log2(errors), 1)[0])
