"""Strengths from votes between two pictures, with ties: Davidson's model (JASA 65, 1970).

P(i wins over j) = πᵢ / Z, P(j wins) = πⱼ / Z, P(tie) = ν √(πᵢ πⱼ) / Z, Z their sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import stdtrit

RESAMPLES = 300
# A weak pull to equal strengths, by a normal prior of this deviation: an arm that won every vote
# would have an infinite one.
PRIOR = 5.0
OUTCOMES = {"a": 0, "b": 1, "tie": 2}


class Strengths(NamedTuple):
    """Log strengths (K,), their mean 0, with 95 % intervals; ties as log ν."""

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    ties: float


def strengths(
    arms: NDArray[np.int64],
    outcomes: NDArray[np.int64],
    clusters: tuple[NDArray[np.int64], ...],
    confidence: float = 0.95,
) -> Strengths:
    """The strengths of K arms from N votes: `arms` (N, 2) the two compared, `outcomes` (N,) 0 where
    the first won, 1 the second, 2 a tie.

    `clusters` name the prompt of each vote, and its voter: the interval is Student's over bootstrap
    resamples of each kind of cluster together (Owen, Annals of Applied Statistics 1, 2007); a kind
    of one cluster is not resampled. Intervals are nan for one prompt.
    """
    count = int(arms.max()) + 1
    values, ties = _fitted(arms, outcomes, np.ones(len(arms)), count)
    kinds = [np.unique(cluster, return_inverse=True)[1] for cluster in clusters]
    kinds = [kind for kind in kinds if kind.max() > 0]
    if not len(clusters[0]) or np.ptp(clusters[0]) == 0:
        unknown = np.full(count, np.nan)
        return Strengths(values, unknown, unknown, ties)
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(RESAMPLES):
        weights = np.ones(len(arms))
        for kind in kinds:
            drawn = np.bincount(rng.integers(0, kind.max() + 1, kind.max() + 1))
            weights *= np.pad(drawn, (0, kind.max() + 1 - len(drawn)))[kind]
        samples.append(_fitted(arms, outcomes, weights, count)[0])
    prompts = len(np.unique(clusters[0]))
    half = stdtrit(prompts - 1, (1 + confidence) / 2) * np.std(samples, axis=0, ddof=1)
    return Strengths(values, values - half, values + half, ties)


def _fitted(
    arms: NDArray[np.int64], outcomes: NDArray[np.int64], weights: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], float]:
    """The strengths of the largest likelihood, mean 0, and log ν."""
    first, second = arms.T
    chosen = np.eye(3)[outcomes]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta, ties = parameters[:-1], parameters[-1]
        one, two = theta[first], theta[second]
        scores = np.stack([one, two, ties + (one + two) / 2], 1)
        largest = scores.max(1, keepdims=True)
        shares = np.exp(scores - largest)
        totals = shares.sum(1, keepdims=True)
        shares /= totals
        likelihood = (scores * chosen).sum(1) - largest[:, 0] - np.log(totals[:, 0])
        residuals = weights[:, None] * (shares - chosen)
        gradient = np.zeros_like(parameters)
        np.add.at(gradient, first, residuals[:, 0] + residuals[:, 2] / 2)
        np.add.at(gradient, second, residuals[:, 1] + residuals[:, 2] / 2)
        gradient[-1] = residuals[:, 2].sum()
        pull = parameters / PRIOR**2
        return float(-(weights * likelihood).sum() + (parameters * pull).sum() / 2), gradient + pull

    fit = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B")
    return fit.x[:-1] - fit.x[:-1].mean(), float(fit.x[-1])
