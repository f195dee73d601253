"""Looks of a race: where they are, and that together they are as sure as one."""

import numpy as np
import pytest

from realkit.base.racing import FIRST, GROWTHS, SHARE, confidence, looks
from realkit.base.statistics import family, joint


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("prompts", [6, 7, 8, 12, 13, 20, 50, 101, 5000])
def test_looks_begin_at_six_prompts_and_end_at_all(prompts, growth):
    at = looks(prompts, growth=growth)
    assert at == sorted(set(at)) and at[-1] == prompts and at[0] >= FIRST
    assert len(at) == 1 or at[0] == FIRST


def test_looks_grow_by_about_half_and_a_race_of_seven_looks_once():
    assert looks(20) == [6, 9, 13, 20] and looks(12) == [6, 8, 12] and looks(7) == [7]
    assert looks(50, growth=4) == [6, 17, 50]


def test_a_plan_continues_after_an_earlier_one():
    assert looks(20, 12) == [20] and looks(50, 20) == [32, 50] and looks(13, 12) == [13]
    assert looks(20, 20) == [] and looks(12, 20) == []


def test_looks_together_are_wrong_no_more_often_than_stated_whatever_is_added():
    spent = 0.0
    for count in (4, 1, 3, 7):  # a plan, and what was added to it
        spent += count * (1 - confidence(count, spent))
        assert spent < 0.05
    assert 4 * (1 - confidence(4)) == pytest.approx(SHARE * 0.05)
    assert confidence(2, 0.03) == pytest.approx(1 - SHARE * 0.02 / 2)


def test_a_rarer_error_needs_more_clusters_to_be_corrected_jointly():
    assert [joint(level) for level in (0.9, 0.95, 0.99, 0.995)] == [8, 8, 11, 12]
    assert all(2 ** (joint(level) - 1) * (1 - level) >= 6 for level in (0.95, 0.99, 0.995, 0.9999))
    values = np.random.default_rng(0).normal(0.7, 1, (10, 3))  # a flip has 512 outcomes
    of_family = min(contrast.p for contrast in family(values, 0.99))
    alone = min(family(values[:, [column]], 0.99)[0].p for column in range(3))
    assert of_family == pytest.approx(3 * alone)  # by Holm
