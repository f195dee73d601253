"""Figures of sets, beside the definitions computed pair by pair."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from realkit.base import kernels


def vectors(count, width=8, seed=0, shift=0.0):
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    drawn[:, 0] += shift
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def distance(groups, photographs):
    """The definition: every pair alone."""

    def k(a, b):
        return (1 + float(a @ b)) ** 3

    across = []
    for first, second in itertools.permutations(groups, 2):
        across.append(np.mean([k(a, b) for a in first for b in second]))
    own = [k(a, b) for a, b in itertools.permutations(photographs, 2)]
    toward = [np.mean([k(a, b) for a in group for b in photographs]) for group in groups]
    return 1000 * (np.mean(across) + np.mean(own) - 2 * np.mean(toward))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2, 4), (1,) * 7])
def test_the_mean_of_the_shares_is_the_distance_and_they_are_the_jackknife(sizes):
    groups = [vectors(size, seed=number) for number, size in enumerate(sizes)]
    photographs = vectors(9, seed=99, shift=1.0)
    shares = kernels.distances(groups, photographs)
    whole, count = distance(groups, photographs), len(groups)
    assert shares.mean() == pytest.approx(whole)
    for place in range(count):
        without = distance(groups[:place] + groups[place + 1 :], photographs)
        assert shares[place] == pytest.approx(count * whole - (count - 1) * without)


def test_the_interval_holds_nothing_where_both_sets_are_of_one_kind():
    """Of 100 draws of both sets, as many intervals hold 0 as they promise. Photographs are many:
    the interval is given them."""
    photographs, held = vectors(600, seed=5), 0
    for draw in range(100):
        groups = [vectors(2, seed=1000 + 50 * draw + number) for number in range(12)]
        held += ttest_1samp(kernels.distances(groups, photographs), 0).pvalue >= 0.05
    assert held >= 95 - 2 * math.sqrt(100 * 0.95 * 0.05)


def test_a_set_of_another_kind_is_farther_and_told_apart():
    photographs = vectors(60, seed=1)
    like = [vectors(2, seed=10 + number) for number in range(12)]
    unlike = [vectors(2, seed=10 + number, shift=3.0) for number in range(12)]
    near, far = (kernels.distances(groups, photographs).mean() for groups in (like, unlike))
    assert abs(near) < 0.05 * far
    even, told = (kernels.told_apart(groups, photographs).mean() for groups in (like, unlike))
    assert 35 < even < 65 and told > 85


def test_what_is_told_apart_was_not_seen_before():
    """Pictures that are the photographs themselves are even, however well they could be learnt."""
    shares = []
    for seed in range(20):
        drawn = vectors(40, width=64, seed=seed)
        shares.append(kernels.told_apart(list(drawn[:20, None]), drawn[20:]).mean())
    assert 45 < np.mean(shares) < 55


def test_diversity_and_vendi_of_known_sets():
    one, across = np.eye(4)[[0, 0, 0]], np.eye(4)
    assert kernels.diversity(one) == pytest.approx(0) and kernels.vendi(one) == pytest.approx(1)
    assert kernels.diversity(across) == pytest.approx(100)
    assert kernels.vendi(across) == pytest.approx(4)
    assert kernels.vendi(np.eye(4)[[0, 0, 1, 1]]) == pytest.approx(2)
    assert kernels.diversity(np.eye(4)[[0, 0, 1, 1]]) == pytest.approx(100 * 4 / 6)


def test_too_few_have_no_figure():
    photographs, groups = vectors(5), [vectors(2, seed=1), vectors(2, seed=2)]
    assert np.isnan(kernels.distances(groups, photographs)).all()
    assert np.isnan(kernels.distances([*groups, vectors(1)], photographs[:1])).all()
    assert np.isnan(kernels.told_apart(groups[:1], photographs)).all()
    assert math.isnan(kernels.diversity(vectors(1))) and math.isnan(kernels.vendi(vectors(1)))
