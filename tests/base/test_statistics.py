"""The interval of a mean: by hand where the bootstrap is silent, its coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from realkit.base import statistics
from realkit.base.statistics import clusters_needed, family, mean_interval, smallest_effect

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


def test_a_contrast_alone_has_the_interval_of_its_mean():
    values = np.random.default_rng(3).normal(1, 1, 9)
    (contrast,) = family(values[:, None])
    assert (contrast.mean, contrast.low, contrast.high, contrast.clusters) == mean_interval(values)


def test_few_clusters_are_corrected_by_holm():
    """Three contrasts without skew: the p of Student's t, times 3, 2 and 1."""
    steady = np.array([-1.0, 1, -1, 1, -1, 1])
    values = np.stack([steady + 3, steady + 2, steady + 0.1], 1)
    found = family(values)
    alone = [family(values[:, [k]])[0] for k in range(3)]
    expected = [3 * alone[0].p, 2 * alone[1].p, alone[2].p]
    assert [contrast.p for contrast in found] == pytest.approx(expected)
    student = stdtrit(5, 1 - 0.05 / 2 / np.array([3, 2, 1]))
    half = student / stdtrit(5, 0.975) * [one.high - one.mean for one in alone]
    assert [one.high - one.mean for one in found] == pytest.approx(half)


def test_many_clusters_are_corrected_by_the_largest_of_all():
    """Equal contrasts count as one; unrelated ones nearly as Bonferroni has it."""
    values = np.random.default_rng(4).normal(0.4, 1, (30, 1))
    (alone,) = family(values)
    twins = family(np.repeat(values, 6, axis=1))
    assert twins[0].high - twins[0].low == pytest.approx(alone.high - alone.low, rel=0.08)
    many = family(np.random.default_rng(5).normal(0, 1, (30, 20)))
    bonferroni = stdtrit(29, 1 - 0.025 / 20) / stdtrit(29, 0.975)
    for contrast, one in zip(many, np.random.default_rng(5).normal(0, 1, (30, 20)).T, strict=True):
        own = mean_interval(one)
        factor = (contrast.high - contrast.low) / (own.high - own.low)
        assert factor == pytest.approx(bonferroni, rel=0.08)


def test_an_interval_holds_zero_where_its_p_says_so():
    rng = np.random.default_rng(6)
    for count in (5, 7, 8, 15):
        for contrast in family(rng.normal(rng.normal(0, 1, 10), 1, (count, 10))):
            assert (contrast.low <= 0 <= contrast.high) == (contrast.p > 0.05), (count, contrast)


def test_missing_clusters_and_equal_values_in_a_family():
    values = np.random.default_rng(7).normal(0, 1, (10, 4))
    values[3:, 1], values[:, 2], values[1:, 3] = np.nan, 2.0, np.nan
    found = family(values)
    assert [contrast.clusters for contrast in found] == [10, 3, 10, 1]
    assert (found[2].low, found[2].high) == (2.0, 2.0) and math.isnan(found[3].low)
    assert clusters_needed(found[3]) is None and math.isnan(smallest_effect(found[3]))


def test_as_many_clusters_as_needed_settle_it_four_times_in_five():
    rng = np.random.default_rng(8)
    contrast = family(rng.normal(0.5, 1, (12, 1)))[0]._replace(mean=0.5, deviation=1.0, width=1.0)
    needed = clusters_needed(contrast)
    samples = [mean_interval(rng.normal(0.5, 1, needed)) for _ in range(300)]
    assert 0.7 < np.mean([sample.low > 0 for sample in samples]) < 0.9
    assert smallest_effect(contrast._replace(clusters=needed)) == pytest.approx(0.5, rel=0.03)
    assert clusters_needed(contrast._replace(mean=0.0)) is None
    assert clusters_needed(contrast._replace(mean=0.0), 0.5) == needed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "lognormal"])
@pytest.mark.parametrize("count", [6, 8])
def test_a_family_without_a_difference_has_one_seldom(monkeypatch, name, count):
    """All pairs of ten equal arms: any false verdict in at most 5 % of 200 sweeps, and error."""
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    rng = np.random.default_rng(count)
    first, second = np.triu_indices(10, 1)
    false = 0
    for _ in range(200):
        arms = np.stack([DISTRIBUTIONS[name](rng, count) for _ in range(10)], 1)
        contrasts = family(arms[:, first] - arms[:, second])
        false += any(contrast.low > 0 or contrast.high < 0 for contrast in contrasts)
    assert false <= 200 * 0.05 + 2 * math.sqrt(200 * 0.05 * 0.95)
