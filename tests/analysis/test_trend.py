"""Slopes and rank correlations of planted trends."""

import numpy as np
import pandas as pd
import pytest

import realkit as rk

METRIC = "rehearsal/clip"


def table(slope, spread=0.5, prompts=10, doses=(1.0, 3.0, 5.0, 8.0), **more):
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(prompts):
        for seed in range(2):
            level = rng.normal(50, 10)
            for dose in doses:
                value = level + slope * dose + rng.normal(0, spread)
                rows.append({"prompt": f"p{prompt}", "seed": seed, "guidance": dose,
                             "sampler": "Euler", METRIC: value, "status": "ok"} | more)  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("slope", "word"), [(0.8, "rises"), (-0.5, "falls"), (0.0, "undecided")])
def test_a_planted_slope_lies_within_its_interval(slope, word):
    row = rk.trend(table(slope), "guidance").iloc[0]
    assert row.slope_low <= slope <= row.slope_high and row.verdict == word
    assert (row.doses, row.n_prompts) == (4, 10) and -1 <= row.rank_correlation <= 1


def test_it_is_that_of_numpy_and_pandas():
    frame = table(0.8, prompts=6)
    groups = frame.groupby(["prompt", "seed"])
    slopes = groups.apply(lambda part: np.polyfit(part["guidance"], part[METRIC], 1)[0])
    ranks = groups.apply(lambda part: part["guidance"].corr(part[METRIC], method="spearman"))
    row = rk.trend(frame, "guidance").iloc[0]
    assert row.slope == pytest.approx(slopes.mean())
    assert row.rank_correlation == pytest.approx(ranks.mean())


def test_seconds_rise_in_percent_and_few_prompts_decide_nothing():
    frame = table(0.0, prompts=3)
    frame["seconds"] = np.exp(0.1 * frame["guidance"])
    found = rk.trend(frame, "guidance", "seconds")
    assert found.iloc[0].slope == pytest.approx(10.5, abs=0.1)
    assert found.iloc[0].verdict == "undecided" and "(1 batch): undecided" in str(found)


@pytest.mark.parametrize(
    ("change", "axis", "says"),
    [
        (lambda frame: frame, "strength", "no column 'strength': expected"),
        (lambda frame: frame, "sampler", "has 0 numbers in 'sampler'"),
        (lambda frame: frame[frame["guidance"] < 4], "guidance", "has 2 numbers in 'guidance'"),
        (
            lambda frame: frame.assign(seed=range(len(frame))),
            "guidance",
            "No prompt and seed has 3",
        ),
    ],
)
def test_a_table_without_a_trend_is_one_line(change, axis, says):
    with pytest.raises(rk.RequestError, match=says):
        rk.trend(change(table(1.0)), axis)


def test_equal_values_follow_no_way():
    row = rk.trend(table(0.0).assign(**{METRIC: 5.0}), "guidance").iloc[0]
    assert (row.slope, row.rank_correlation, row.verdict) == (pytest.approx(0), 0, "undecided")
