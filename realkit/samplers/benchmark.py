"""The sampler laboratory: convergence on a target whose ideal denoiser is known in closed form, a
mixture of Gaussians in the plane."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.samplers.build import build
from realkit.samplers.noise import SOURCES
from realkit.samplers.sigmas import karras
from realkit.samplers.solvers import SOLVERS
from realkit.samplers.table import SAMPLERS, Sampler

if TYPE_CHECKING:
    import pandas as pd
    import torch

MEANS = ((-0.9, 0.3), (0.7, 0.9), (0.4, -0.8))
SCALES = (0.25, 0.35, 0.2)  # standard deviation of each, the same in every direction
SHARES = (0.3, 0.3, 0.4)
FINE = {  # Stable Diffusion's schedule in 12.8 times as many timesteps
    "num_train_timesteps": 12_800, "beta_start": 0.00085 / 12.8, "beta_end": 0.012 / 12.8,
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
}  # fmt: skip
LEVELS = np.array([0.02, 14.6])  # of the runs: smallest and largest sigma


def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x₀ | x = x₀ + sigma·ε] for points (N, 2): each Gaussian's posterior mean, weighted by its
    responsibility."""
    import torch

    means, spread = torch.tensor(MEANS, dtype=x.dtype), torch.tensor(SCALES, dtype=x.dtype) ** 2
    wide = spread + sigma**2
    away = x[:, None] - means
    weight = torch.softmax(
        torch.tensor(SHARES, dtype=x.dtype).log() - wide.log() - (away**2).sum(-1) / (2 * wide), 1
    )
    return (weight[..., None] * (means + away * (spread / wide)[:, None])).sum(1)


def moments() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (2,) and covariance (2, 2) of the mixture."""
    means, shares = np.array(MEANS), np.array(SHARES)
    mean = shares @ means
    away = means - mean
    return mean, (away * shares[:, None]).T @ away + np.eye(2) * (shares @ np.array(SCALES) ** 2)


@dataclass(frozen=True)
class End:
    """Where a run brought its points, (N, 2) float64, and how often it asked the denoiser."""

    points: torch.Tensor
    calls: int


def run(
    name: str,
    steps: int,
    *,
    points: int = 64,
    seed: int = 0,
    to_zero: bool = False,
    **settings: object,
) -> End:
    """Let a sampler of the table carry N points of pure noise down to the smallest level, or with
    `to_zero` to the end, in float64.

    Our solvers run on Karras' levels between LEVELS; diffusers' schedulers on Stable Diffusion's
    schedule in FINE timesteps, so that a ten times finer run is at hand, down to an eighth of them
    (sigma 0.40): their last steps span so much of log sigma that no order shows there. `settings`
    change those of the table, such as eta.
    """
    import torch

    spec = SAMPLERS[find(SAMPLERS, name)]
    if spec.model != "diffusion" or spec.most_steps < 1000:
        kind = {"flow": "rectified-flow", "wuerstchen": "Stable Cascade"}.get(
            spec.model, "consistency"
        )
        raise RequestError(f"Sampler {name!r} is for {kind} models: it has no order on this target")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, 2, generator=generator, dtype=torch.float64)
    return (
        _solve(spec, x, steps, generator, to_zero, settings)
        if spec.solver
        else _schedule(name, x, steps, generator, to_zero, settings)
    )


def _solve(
    spec: Sampler,
    x: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    to_zero: bool,
    settings: dict[str, object],
) -> End:

    x = x * LEVELS[-1]
    settings = spec.settings | settings
    levels = karras(steps + (not to_zero), LEVELS).tolist() + [0.0] * to_zero
    if spec.solver in ("dpm_fast", "dpm_adaptive"):
        levels = [levels[0], LEVELS[0]]
    if spec.solver == "dpm_fast":
        settings["steps"] = steps
    draw = SOURCES[spec.noise](x[None], [generator], levels) if spec.stochastic else _no_noise
    return _drive(
        SOLVERS[spec.solver](
            x, levels, lambda now, then: draw(now, then).reshape(x.shape), **settings
        )
    )


def _drive(asking: Any) -> End:
    wanted, calls = next(asking), 0
    try:
        while True:
            calls += 1
            wanted = asking.send((denoise(*wanted), wanted[0]))
    except StopIteration as finished:
        return End(finished.value, calls)


def _no_noise(now: float, then: float) -> torch.Tensor:
    raise AssertionError("a deterministic solver drew noise")


def _schedule(
    name: str,
    x: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    to_zero: bool,
    settings: dict[str, object],
) -> End:
    import torch

    scheduler = build(name, FINE)
    scheduler.alphas_cumprod = (
        scheduler.alphas_cumprod.double()
    )  # differences of neighbours would drown in float32
    scheduler.set_timesteps(steps)
    given = inspect.signature(scheduler.step).parameters
    settings = ({"generator": generator} if "generator" in given else {}) | settings
    alphas = scheduler.alphas_cumprod.numpy()
    if hasattr(scheduler, "sigmas"):  # the same for levels
        exact = [((1 - alphas[int(t)]) / alphas[int(t)]) ** 0.5 for t in scheduler.timesteps]
        scheduler.sigmas = torch.tensor([*exact, scheduler.sigmas[-1].item()], dtype=torch.float64)
    highest, first = (
        ((1 - a) / a) ** 0.5 for a in (alphas[-1], alphas[int(scheduler.timesteps[0])])
    )
    if (
        first < highest
        # "leading" timesteps begin below the last: at different levels for different numbers of
        # steps
    ):
        levels = np.geomspace(highest, first, 65).tolist()
        x = (
            _drive(SOLVERS["dpmpp_2m"](x * highest, levels, _no_noise)).points
            * alphas[int(scheduler.timesteps[0])] ** 0.5
        )
    alpha, calls = 1.0, 0
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[int(t)].item()
        if not to_zero and t <= scheduler.config.num_train_timesteps // 8 + 1:
            return End(x / alpha**0.5, calls)
        calls, sigma = calls + 1, ((1 - alpha) / alpha) ** 0.5
        noise = (x / alpha**0.5 - denoise(x / alpha**0.5, sigma)) / sigma
        x = scheduler.step(noise, t, x, **settings).prev_sample
    return End(x, calls)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square distance between paired points (N, 2)."""
    return float(((a - b) ** 2).sum(1).mean().sqrt())


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The slope of error against steps on logarithmic axes: 2 where twice the steps leave a quarter
    of the error."""
    return float(-np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def with_schedule(name: str, schedule: str) -> str:
    """The table's name of a sampler with a schedule such as "Karras", or without where it has none
    such."""
    name = find(SAMPLERS, name)
    try:
        return find(SAMPLERS, f"{name} {schedule}")
    except RequestError:
        return name


def converge(samplers: list[str], window: list[int], points: int = 64) -> pd.DataFrame:
    """A line a sampler and number of steps: calls, the distance to a ten times finer run, and how
    far the points' spread is off.

    `error` is `error()` against the finer run, in the mixture's own units; `spread_error` the
    largest deviation of the covariance of 20·`points` points at the end of the path from the
    mixture's. An adaptive sampler has one line, for its own steps.
    """
    import pandas as pd

    rows = []
    for name in (find(SAMPLERS, name) for name in samplers):
        adaptive = SAMPLERS[name].adaptive
        for steps in window[:1] if adaptive else window:
            coarse = run(name, steps, points=1 if adaptive else points)
            fine = run(
                "DPM++ 2M" if adaptive else name,
                10 * window[-1] if adaptive else 10 * steps,
                points=1 if adaptive else points,
            )
            spread = np.cov(run(name, steps, points=20 * points, to_zero=True).points.numpy().T)
            off = float(np.abs(spread - moments()[1]).max())
            rows.append(
                {
                    "sampler": name,
                    "steps": steps,
                    "calls": coarse.calls,
                    "error": error(coarse.points, fine.points),
                    "spread_error": off,
                }
            )
    return pd.DataFrame(rows)


def orders(table: pd.DataFrame) -> pd.Series:
    """The measured order of each sampler of a table from `converge`; near zero where more steps do
    not lead to one end."""
    import pandas as pd

    parts = {
        str(name): part for name, part in table.groupby("sampler", sort=False) if len(part) > 1
    }
    return pd.Series(
        {
            name: order(part["steps"].tolist(), part["error"].tolist())
            for name, part in parts.items()
        },
        name="order",
        dtype=float,
    )


def distance_to(df: pd.DataFrame, reference: pd.DataFrame, folder: str | Path) -> pd.Series:
    """Root mean square difference, in 8-bit levels, of each cell's picture to the reference picture
    of its model, prompt and seed."""
    import pandas as pd
    from PIL import Image

    def pixels(name: str) -> NDArray[np.float64]:
        return np.asarray(Image.open(Path(folder) / name).convert("RGB"), np.float64)

    key = ["model", "prompt", "seed"]
    true = {
        tuple(row[name] for name in key): pixels(row["image"]) for _, row in reference.iterrows()
    }
    found = [
        float(
            np.sqrt(np.mean((pixels(row["image"]) - true[tuple(row[name] for name in key)]) ** 2))
        )
        for _, row in df.iterrows()
    ]
    return pd.Series(found, index=df.index, name="distance")
