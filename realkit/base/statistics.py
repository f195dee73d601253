"""Intervals of means: the arithmetic that plots, verdicts and benchmarks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TAILS = (0.025, 0.975)  # of a 95 % interval
DRAWS = 10_000  # bootstrap samples
WIDEST = 3.0  # times Student's t: the bootstrap-t's cap
DRAWN_VALUES = 10_000_000  # at most this many at once; beyond 1,000 clusters fewer draws suffice


class Interval(NamedTuple):
    """A mean with its 95 % interval; `low` and `high` are nan for fewer than two clusters."""

    mean: float
    low: float
    high: float
    clusters: int


def mean_interval(values: ArrayLike, clusters: ArrayLike | None = None) -> Interval:
    """The mean of (N,) finite values over clusters, with its 95 % interval.

    `clusters` names the cluster of each value, such as its prompt; each counts once, by its own
    mean. Without it every value is a cluster. For a paired comparison the values are differences.

    Each end is the wider of Student's t and the bootstrap-t (Efron 1982; Hall 1988, Theoretical
    comparison of bootstrap confidence intervals). Percentile and BCa bootstraps cover 84 % at 5
    normal differences. This one covers 96 %, and 90 % at 5 lognormal ones (simulated in
    tests/base/test_statistics.py). The bootstrap-t is capped at 3 times Student's t: of 4 values, 3
    nearly equal, it can be 1,000 times as wide. A fixed seed makes equal values give equal
    intervals.
    """
    means = _cluster_means(np.asarray(values, float), clusters)
    count = len(means)
    mean = float(means.mean()) if count else float("nan")
    if count < 2:
        return Interval(mean, float("nan"), float("nan"), count)
    standard_error = means.std(ddof=1) / np.sqrt(count)
    student = stdtrit(count - 1, TAILS[1])
    lower, upper = _bootstrap_t(means)
    below, above = np.clip((upper, -lower), student, WIDEST * student) * standard_error
    return Interval(mean, float(mean - below), float(mean + above), count)


def _cluster_means(values: NDArray[np.float64], clusters: ArrayLike | None) -> NDArray[np.float64]:
    if clusters is None:
        return values
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, values) / np.bincount(index)


def _bootstrap_t(means: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of (resampled mean - mean) / resampled standard error."""
    count = len(means)
    draws = min(DRAWS, DRAWN_VALUES // count)
    samples = np.random.default_rng(0).choice(means, (draws, count))
    # A sample of one value drawn again and again has no standard error: one in n^(n-1) samples.
    samples = samples[np.ptp(samples, axis=1) > 0]
    if not len(samples):
        return 0.0, 0.0
    errors = samples.std(axis=1, ddof=1) / np.sqrt(count)
    lower, upper = np.quantile((samples.mean(axis=1) - means.mean()) / errors, TAILS)
    return float(lower), float(upper)
