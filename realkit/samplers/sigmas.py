"""Noise schedules: n steps → n noise levels sigma, descending, of a model trained on given levels.
All float64.

The levels are those of stable-diffusion-webui 1.10 (modules/sd_schedulers.py), in k-diffusion's
terms: sigma = √((1 - ᾱ) / ᾱ). `trained` is ascending, (T,), one level a training timestep.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]
RHO = 7.0  # arXiv 2206.00364, equation 5
BETA_SHAPE = 0.6  # both parameters of the Beta distribution, arXiv 2407.12173


def of_timestep(t: Levels, trained: Levels) -> Levels:
    """Levels at fractional timesteps: log-linear between the trained ones (k-diffusion,
    DiscreteSchedule.t_to_sigma)."""
    return np.exp(np.interp(t, np.arange(len(trained)), np.log(trained)))


def timestep_of(sigma: Levels, trained: Levels) -> Levels:
    """The inverse, held within the trained range."""
    return np.interp(np.log(sigma), np.log(trained), np.arange(len(trained)))


def uniform(n: int, trained: Levels) -> Levels:
    """The plain schedule: evenly spaced timesteps from the last trained one to the first."""
    return of_timestep(np.linspace(len(trained) - 1, 0, n), trained)


def sgm_uniform(n: int, trained: Levels) -> Levels:
    """Evenly spaced timesteps without the first: the step to zero is as long as the others."""
    return of_timestep(np.linspace(len(trained) - 1, 0, n + 1)[:-1], trained)


def trailing(n: int, trained: Levels) -> Levels:
    """Whole timesteps from the last one, evenly spaced to zero (arXiv 2305.08891, table 2)."""
    return trained[np.round(np.arange(len(trained), 0, -len(trained) / n)).astype(int)[:n] - 1]


def karras(n: int, trained: Levels) -> Levels:
    """Evenly spaced in sigma to the power 1/7 (arXiv 2206.00364, equation 5)."""
    low, high = trained[0] ** (1 / RHO), trained[-1] ** (1 / RHO)
    return (high + np.linspace(0, 1, n) * (low - high)) ** RHO


def exponential(n: int, trained: Levels) -> Levels:
    """Evenly spaced in log sigma."""
    return np.exp(np.linspace(np.log(trained[-1]), np.log(trained[0]), n))


def beta(n: int, trained: Levels) -> Levels:
    """Spaced by quantiles of a Beta distribution: dense at both ends (arXiv 2407.12173)."""
    from scipy.stats import beta as distribution

    share = distribution.ppf(1 - np.linspace(0, 1, n), BETA_SHAPE, BETA_SHAPE)
    return trained[0] + share * (trained[-1] - trained[0])


SCHEDULES: dict[str, Callable[[int, Levels], Levels]] = {
    "uniform": uniform, "karras": karras, "exponential": exponential, "beta": beta,
    "sgm_uniform": sgm_uniform,
    "trailing": trailing,
}  # fmt: skip
