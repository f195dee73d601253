"""The interval of a mean: by hand where the bootstrap is silent, its coverage by simulation."""

import math

import numpy as np
import pytest

from realkit.base import statistics
from realkit.base.statistics import mean_interval

DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "t, 3 degrees": lambda rng, n: rng.standard_t(3, n),
    "exponential": lambda rng, n: rng.exponential(1, n) - 1,
    "lognormal": lambda rng, n: rng.lognormal(0, 1, n) - math.exp(0.5),
}
COVERAGE = {
    5: (96.6, 98.2, 93.7, 90.5),
    8: (96.2, 97.2, 94.2, 89.9),
    20: (96.2, 95.3, 94.7, 93.5),
}  # percent, of a larger simulation that this one repeats


def test_two_values_have_the_interval_of_student():
    found = mean_interval([1.0, 3.0])
    assert found == pytest.approx(
        (2.0, 2 - 12.7062, 2 + 12.7062, 2), abs=1e-3
    )  # t at one degree of freedom


def test_an_interval_is_never_narrower_than_student_and_leans_to_the_long_tail():
    values = np.array([0.9, 1.1, 1.0, 1.8, 1.3, 37.8])
    half = 2.5706 * values.std(ddof=1) / math.sqrt(6)  # t at five degrees of freedom
    found = mean_interval(values)
    assert found.low <= found.mean - half + 1e-3 and found.high > found.mean + 2 * half
    mirrored = mean_interval(-values)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), rel=1e-6)


def test_a_few_nearly_equal_values_and_one_far_have_an_interval_of_use():
    values = np.array([80.0, 80.1, 80.2, 20.0])
    half = 3.1824 * values.std(ddof=1) / 2  # t at three degrees of freedom
    found = mean_interval(values)
    assert found.mean - found.low == pytest.approx(3 * half, rel=1e-3)


def test_a_cluster_counts_once_whatever_its_size():
    uneven = mean_interval([1.0, 1.0, 1.0, 3.0, 8.0], ["a", "a", "a", "b", "c"])
    assert uneven == mean_interval([1.0, 3.0, 8.0]) and uneven.clusters == 3


def test_one_cluster_has_a_mean_and_no_interval():
    found = mean_interval([1.0, 2.0], ["a", "a"])
    assert (
        found.mean == 1.5
        and math.isnan(found.low)
        and math.isnan(found.high)
        and found.clusters == 1
    )
    assert math.isnan(mean_interval([]).mean) and mean_interval([]).clusters == 0


def test_equal_values_have_an_interval_without_width():
    assert mean_interval([2.0] * 5) == (2.0, 2.0, 2.0, 5)


def test_many_clusters_take_less_memory_and_the_width_of_the_normal(monkeypatch):
    monkeypatch.setattr(statistics, "DRAWN_VALUES", 1_000_000)
    found = mean_interval(np.random.default_rng(2).normal(0, 1, 2000))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(2000), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("count", COVERAGE)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_an_interval_covers_as_often_as_it_says(monkeypatch, name, count):
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    rng = np.random.default_rng(count)
    intervals = [mean_interval(DISTRIBUTIONS[name](rng, count)) for _ in range(2000)]
    covered = 100 * np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert covered == pytest.approx(COVERAGE[count][list(DISTRIBUTIONS).index(name)], abs=2)
