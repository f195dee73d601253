"""The sampler laboratory: convergence on a mixture of Gaussians with a closed-form denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realkit.base.door import door, worded
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import opened
from realkit.base.suggest import fold, instead
from realkit.catalog.lookup import find
from realkit.samplers.build import KIND_NAMES, build
from realkit.samplers.noise import SOURCES
from realkit.samplers.sigmas import karras
from realkit.samplers.solvers import SOLVERS
from realkit.samplers.table import LABELS, SAMPLERS, Sampler

if TYPE_CHECKING:
    import pandas as pd
    import torch

    Settings = dict[str, Any]

MEANS = ((-0.9, 0.3), (0.7, 0.9), (0.4, -0.8))
SCALES = (0.25, 0.35, 0.2)  # standard deviation of each, the same in every direction
SHARES = (0.3, 0.3, 0.4)
FINE = {  # Stable Diffusion's schedule in 12.8 times as many timesteps
    "num_train_timesteps": 12_800, "beta_start": 0.00085 / 12.8, "beta_end": 0.012 / 12.8,
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
}  # fmt: skip
KEYS = ("model", "prompt", "seed")  # that a picture shares with its reference
MOST_POINTS, MOST_STEPS = 100_000, 12_800
LEVELS = np.array([0.02, 14.6])  # of the runs: smallest and largest sigma


def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x₀ | x = x₀ + sigma·ε] for points (N, 2): each Gaussian's posterior mean, weighted by its
    responsibility."""
    import torch

    means, spread = torch.tensor(MEANS, dtype=x.dtype), torch.tensor(SCALES, dtype=x.dtype) ** 2
    shares = torch.tensor(SHARES, dtype=x.dtype)
    wide = spread + sigma**2
    away = x[:, None] - means
    weight = torch.softmax(shares.log() - wide.log() - (away**2).sum(-1) / (2 * wide), 1)
    return (weight[..., None] * (means + away * (spread / wide)[:, None])).sum(1)


def moments() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (2,) and covariance (2, 2) of the mixture."""
    means, shares = np.array(MEANS), np.array(SHARES)
    mean = shares @ means
    away = means - mean
    return mean, (away * shares[:, None]).T @ away + np.eye(2) * (shares @ np.array(SCALES) ** 2)


@dataclass(frozen=True)
class End:
    """The points at the end of a run, (N, 2) float64, and its denoiser calls."""

    points: torch.Tensor
    calls: int


@door
def run(
    name: str,
    steps: int,
    *,
    points: int = 64,
    seed: int = 0,
    to_zero: bool = False,
    **settings: object,
) -> End:
    """Carry N points of pure noise down to the smallest level, or with `to_zero` to the end, in
    float64.

    Our solvers run on Karras' levels between LEVELS. diffusers' schedulers run on Stable
    Diffusion's schedule in FINE timesteps, so that there is room for a ten times finer run. They
    stop at an eighth of the timesteps (sigma 0.40): their last steps span so much of log sigma that
    no order shows there. `settings` change those of the table, such as eta. Raises RequestError for
    a sampler of other models than diffusion's.
    """
    import torch

    name = find(SAMPLERS, name)
    spec = SAMPLERS[name]
    _check_counts(name, steps, points, seed)
    if spec.model != "diffusion" or spec.most_steps < 1000:
        kind = KIND_NAMES.get(spec.model, "consistency")
        raise RequestError(f"Sampler {name!r} is for {kind} models: it has no order on this target")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, 2, generator=generator, dtype=torch.float64)
    with worded(f"Sampler {name!r} with {shown(settings)} does not run"):
        if spec.solver:
            return _solve(spec, x, steps, generator, to_zero, settings)
        return _schedule(name, x, steps, generator, to_zero, settings)


def _check_counts(name: str, steps: int, points: int, seed: int) -> None:
    """Raise RequestError for numbers beyond what a run takes seconds for."""
    if not 1 <= steps <= MOST_STEPS:
        raise RequestError(
            f"steps {shown(steps)} with sampler {name!r}: expected 1 to {MOST_STEPS:,}"
        )
    if not 1 <= points <= MOST_POINTS:
        raise RequestError(f"points {shown(points)}: expected 1 to {MOST_POINTS:,}")
    if not 0 <= seed < 2**63:
        raise RequestError(f"seed {shown(seed)}: expected 0 to 2**63 - 1")


def _solve(
    spec: Sampler, x: torch.Tensor, steps: int, generator: Any, to_zero: bool, settings: Settings
) -> End:
    """A run of one of our solvers."""
    solver = SOLVERS[spec.solver]
    x = x * LEVELS[-1]
    settings = spec.settings | settings
    levels = karras(steps + (not to_zero), LEVELS).tolist() + [0.0] * to_zero
    if solver.span:
        levels = [levels[0], LEVELS[0]]
    if solver.takes_steps:
        settings["steps"] = steps
    draw = SOURCES[spec.noise](x[None], [generator], levels) if spec.stochastic else _no_noise
    return _drive(solver(x, levels, lambda now, then: draw(now, then).reshape(x.shape), **settings))


def _drive(steps: Any) -> End:
    """Answer a solver's calls with the ideal denoiser until it returns."""
    (x, sigma), calls = next(steps), 0
    try:
        while True:
            calls += 1
            x, sigma = steps.send((denoise(x, sigma), x))
    except StopIteration as stop:
        return End(stop.value, calls)


def _no_noise(now: float, then: float) -> torch.Tensor:
    raise AssertionError("a deterministic solver drew noise")


def _schedule(
    name: str, x: torch.Tensor, steps: int, generator: Any, to_zero: bool, settings: Settings
) -> End:
    """A run of one of diffusers' schedulers."""
    import torch

    scheduler = build(name, FINE)
    # Differences of neighbours would drown in float32, in ᾱ and in levels alike.
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod.numpy()

    def level(timestep: Any) -> float:
        return ((1 - alphas[int(timestep)]) / alphas[int(timestep)]) ** 0.5

    if hasattr(scheduler, "sigmas"):
        levels = [level(timestep) for timestep in scheduler.timesteps]
        scheduler.sigmas = torch.tensor([*levels, scheduler.sigmas[-1].item()], dtype=torch.float64)
    if "generator" in inspect.signature(scheduler.step).parameters:
        settings = {"generator": generator} | settings
    highest, first = level(-1), level(scheduler.timesteps[0])
    if first < highest:
        # "leading" timesteps begin below the last trained one, at another level for each number of
        # steps: a fine run of DPM++ 2M brings the points there.
        between = np.geomspace(highest, first, 65).tolist()
        start = _drive(SOLVERS["dpmpp_2m"](x * highest, between, _no_noise)).points
        x = start * alphas[int(scheduler.timesteps[0])] ** 0.5
    for calls, timestep in enumerate(scheduler.timesteps):
        alpha = alphas[int(timestep)].item()
        if not to_zero and timestep <= scheduler.config.num_train_timesteps // 8 + 1:
            return End(x / alpha**0.5, calls)
        clean = denoise(x / alpha**0.5, level(timestep))
        noise = (x / alpha**0.5 - clean) / level(timestep)
        x = scheduler.step(noise, timestep, x, **settings).prev_sample
    return End(x, len(scheduler.timesteps))


@door
def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square distance between paired points (N, 2)."""
    with worded("The points cannot be compared, expected two tensors (N, 2)"):
        return float(((a - b) ** 2).sum(1).mean().sqrt())


@door
def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The slope of error against steps on log axes: 2 where twice the steps quarter the error."""
    if len(steps) != len(errors) or len(steps) < 2:
        raise RequestError(
            f"{len(steps)} numbers of steps and {len(errors)} errors: expected as many, two or more"
        )
    if not all(0 < number < np.inf for number in (*steps, *errors)):
        raise RequestError(
            f"steps {shown(steps)}, errors {shown(errors)}: expected numbers above 0"
        )
    return float(-np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


@door
def with_schedule(name: str, schedule: str) -> str:
    """The table's name of a sampler with a schedule ("Karras"), or without where the sampler has
    no such one. Raises RequestError for a schedule that no sampler has."""
    name = find(SAMPLERS, name)
    known = dict.fromkeys(LABELS.get(spec.schedule, spec.schedule) for spec in SAMPLERS.values())
    if not isinstance(schedule, str) or fold(schedule) not in map(fold, ("uniform", *known)):
        end = instead(schedule, filter(None, known))
        raise RequestError(f"Unknown schedule {shown(schedule)}{end}")
    try:
        return find(SAMPLERS, f"{name} {schedule}")
    except RequestError:
        return name


@door
def converge(samplers: str | list[str], window: int | list[int], points: int = 64) -> pd.DataFrame:
    """One line a sampler and number of steps: sampler, steps, calls, error, spread_error.

    `error` is `error()` against a ten times finer run, in the mixture's own units. `spread_error`
    is the largest deviation of the covariance of 20·`points` points at the end of the path from the
    mixture's. An adaptive sampler has one line, for its own steps, against a fine DPM++ 2M.
    """
    import pandas as pd

    rows = []
    samplers = [samplers] if isinstance(samplers, str) else samplers
    window = [window] if isinstance(window, int) else window
    if not window or not samplers:
        raise RequestError("Nothing to run: expected samplers, and a window such as [8, 16, 32]")
    for name in samplers:
        name = find(SAMPLERS, name)
        adaptive = SAMPLERS[name].adaptive
        for steps in window[:1] if adaptive else window:
            if adaptive:
                coarse, fine = (
                    run(name, steps, points=1),
                    run("DPM++ 2M", 10 * window[-1], points=1),
                )
            else:
                coarse, fine = run(name, steps, points=points), run(name, 10 * steps, points=points)
            end = run(name, steps, points=20 * points, to_zero=True)
            spread = np.cov(end.points.numpy().T)
            row = {
                "sampler": name,
                "steps": steps,
                "calls": coarse.calls,
                "error": error(coarse.points, fine.points),
                "spread_error": float(np.abs(spread - moments()[1]).max()),
            }
            rows.append(row)
    return pd.DataFrame(rows)


@door
def orders(table: pd.DataFrame) -> pd.Series:
    """The measured order of each sampler of a table from `converge`; near zero where more steps do
    not lead to one end."""
    import pandas as pd

    for column in ("sampler", "steps", "error"):
        if not isinstance(table, pd.DataFrame) or column not in table:
            raise RequestError(f"No column {column!r}: expected the table that converge returned")
    slopes = {}
    for name, lines in table.groupby("sampler", sort=False):
        if len(lines) > 1:
            slopes[str(name)] = order(lines["steps"].tolist(), lines["error"].tolist())
    return pd.Series(slopes, name="order", dtype=float)


@door
def distance_to(df: pd.DataFrame, reference: pd.DataFrame, folder: str | Path) -> pd.Series:
    """Root mean square difference, in 8-bit levels, of each cell's picture to the reference picture
    of its model, prompt and seed."""
    import pandas as pd

    for table in (df, reference):
        for name in ("image", *KEYS):
            if not isinstance(table, pd.DataFrame) or name not in table:
                raise RequestError(f"No column {name!r}: expected two tables of runs")

    def pixels(row: Any) -> NDArray[np.float64]:
        with opened(Path(folder) / str(row["image"])) as image:
            return np.asarray(image.convert("RGB"), np.float64)

    def key(row: Any) -> tuple[Any, ...]:
        return tuple(row[name] for name in KEYS)

    references = {key(row): pixels(row) for _, row in reference.iterrows()}
    distances = []
    for _, row in df.iterrows():
        if key(row) not in references:
            raise RequestError(f"No reference picture of {shown(key(row))}: sweep it too")
        picture, wanted = pixels(row), references[key(row)]
        if picture.shape != wanted.shape:
            raise RequestError(
                f"The picture of {shown(key(row))} has another size than its reference: expected"
                " pictures of one size"
            )
        difference = picture - wanted
        distances.append(float(np.sqrt(np.mean(difference**2))))
    return pd.Series(distances, index=df.index, name="distance")
