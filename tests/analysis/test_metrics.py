"""What is shown of shares stays within what they can be."""

import math

import numpy as np
import pandas as pd
import pytest

import realkit as rk
from realkit.analysis.metrics import Metric, metric_of, range_of
from realkit.base.statistics import mean_interval


@pytest.fixture
def frame():
    """Two samplers whose percentages are near 100 and near 0: plain intervals pass both."""
    rows = []
    for sampler, values in (("Euler", [100, 100, 100, 62]), ("Heun", [0, 0, 0, 38])):
        for number, value in enumerate(values):
            asked = {"model": "m", "sampler": sampler, "prompt": f"p{number}", "seed": 0}
            rows.append({**asked, "steps": 20, "clip-rank-people": float(value), "status": "ok"})
    return pd.DataFrame(rows).assign(seconds=1.0)


def test_an_interval_of_shares_never_passes_0_or_100_percent(frame):
    plain = mean_interval(frame["clip-rank-people"][:4])
    assert plain.high > 100  # the mean of four: its arithmetic knows no bound
    table = rk.aggregate(frame, "sampler").set_index("sampler")
    assert table["clip-rank-people_high"]["Euler"] == 100
    assert table["clip-rank-people_low"]["Heun"] == 0
    assert 0 < table["clip-rank-people_low"]["Euler"] < table["clip-rank-people"]["Euler"] < 100


def test_a_difference_of_shares_is_at_most_100_points(frame):
    verdict = rk.compare(frame, "sampler", "clip-rank-people").iloc[0]
    assert verdict["effect"] == 81 and verdict["high"] == 100
    assert verdict["low"] == pytest.approx(20.5, abs=0.1)  # inside, it is as it was


def test_a_part_of_an_interval_keeps_what_is_not_there():
    assert mean_interval([1.0]).within(0, 1)[:1] == (1.0,)
    assert math.isnan(mean_interval([1.0]).within(0, 1).low)
    assert math.isnan(Metric("clip", "higher").effect(float("nan")))
    assert Metric("unknown", "higher").effect(1e9) == 1e9
    assert range_of("unknown") == (-math.inf, math.inf) and range_of("wins") == (0, 1)


def test_relative_and_unbounded_metrics_are_as_they_were(frame):
    seconds = metric_of(frame, "seconds", None)
    assert seconds.effect(np.log(2)) == pytest.approx(100)
