"""A stated answer to every table: never a crash, and nothing dropped in silence."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

import realkit as rk
from realkit.apps.cli.main import main
from tests.analysis.test_compare import METRIC, table, timed

CALLS = {
    "compare": lambda df: rk.compare(df, "sampler"),
    "aggregate": lambda df: rk.aggregate(df, "sampler"),
    "trend": lambda df: rk.trend(df, "steps"),
    "at_equal": lambda df: rk.at_equal(df, "sampler"),
    "pareto": lambda df: rk.plots.pareto(df, x="nfe", y=METRIC),
    "verdicts": rk.plots.verdicts,
}
NO_TABLE = {
    "a list": ([1, 2], "is no table: expected a dataframe"),
    "nothing": (None, "None is no table"),
    "no columns": (pd.DataFrame(), "no column"),
    "levels": (pd.DataFrame({("a", "b"): [1]}), "columns have several levels"),
    "twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "has the column 'a' twice"),
    "numbered": (pd.DataFrame({3: [1]}), "no column"),
}


@pytest.fixture
def frame():
    """Three arms of growing effect and cost."""
    frame = table({"A": 0.0, "B": 5.0, "C": 5.0}, prompts=8)
    places = frame["sampler"].map({"A": 0, "B": 1, "C": 2})
    frame = frame.assign(nfe=10 + 10 * places, seconds=1.0 + places, card="T4", rung="resident")
    yield frame
    plt.close("all")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", NO_TABLE)
def test_what_is_no_table_is_one_line(call, case):
    given, says = NO_TABLE[case]
    with pytest.raises(rk.RequestError, match=says) as error:
        CALLS[call](given)
    assert "\n" not in str(error.value)


def test_gaps_are_counted_wherever_means_are_shown(frame):
    gaps = frame[METRIC].astype(object).where(frame.index % 5 != 0, None)
    gaps[frame.index == 1], gaps[frame.index == 2] = np.inf, "failed"
    found = rk.aggregate(frame.assign(**{METRIC: gaps}), "sampler")
    assert found["cells"].tolist() == [16] * 3 and found[f"{METRIC}_cells"].tolist() == [10, 13, 13]
    assert np.isfinite(found[[METRIC, f"{METRIC}_low", f"{METRIC}_high"]]).all(axis=None)
    assert f"{METRIC}_cells" not in rk.aggregate(frame, "sampler")
    numbers = frame.assign(**{METRIC: frame[METRIC].where(frame.index % 5 != 0)})
    notes = rk.plots.pareto(numbers, x="nfe", y=METRIC).get_supxlabel()
    assert f"Left out: 10 of 48 cells: 10 without a number in nfe or {METRIC}." in notes
    assert "Left out: up to 7 cells of a pair" in str(rk.compare(numbers, "sampler", METRIC))


def test_cells_of_an_unknown_prompt_are_left_out(frame):
    unknown = frame.assign(prompt=frame["prompt"].where(frame["prompt"] != "p0"))
    found = rk.compare(unknown, "sampler", METRIC).iloc[0]
    assert (found.n_prompts, found.left_out) == (7, 2)
    assert rk.aggregate(unknown, "sampler")[f"{METRIC}_cells"].tolist() == [14] * 3
    rk.plots.pareto(unknown, x="nfe", y=METRIC)


def test_times_of_no_use_leave_the_scores_alone(frame):
    for seconds in (0.0, -1.0, np.nan):
        found = rk.compare(frame.assign(seconds=seconds), "sampler")
        assert set(found["metric"]) == {METRIC}
    with pytest.raises(rk.RequestError, match="a number above 0 in 'seconds'"):
        rk.compare(frame.assign(seconds=0.0), "sampler", "seconds")


def test_one_is_one_in_every_sentence(frame):
    one = frame[frame["prompt"] == "p0"]
    said = str(rk.compare(one, "sampler", METRIC))
    assert "3 pairs are undecided: 1 prompt, and fewer than 6 decide nothing" in said
    with pytest.raises(rk.RequestError, match="has 1 number in 'steps'"):
        rk.trend(frame, "steps")


def test_prompts_that_were_not_read_whole_are_said(frame):
    unread = frame["prompt"].map({"p0": "9 tokens cut"})
    cut = frame["prompt"].map({"p1": 3, "p2": 4, "p3": 0})
    said = str(rk.compare(frame.assign(unread=unread, score_cut_tokens=cut), "sampler", METRIC))
    told = "1 prompt by a model (unread), 2 prompts by a scorer (score_cut_tokens)"
    assert f"Not read whole: {told}." in said
    assert "Not read whole" not in str(rk.compare(frame.assign(unread=None), "sampler", METRIC))


def test_a_trend_counts_what_it_leaves_out_and_never_pools_times():
    frame = table({10: 0.0, 20: 2.0, 30: 4.0}, prompts=8, axis="steps")
    frame.loc[(frame["prompt"] == "p0") & (frame["steps"] == 10), METRIC] = np.nan
    said = str(rk.trend(frame, "steps", METRIC))
    assert "(7 prompts): rises" in said and "Left out: 6 cells without a value" in said
    times = frame.assign(seconds=frame["steps"] / 10, card="T4", denoise_s=frame["steps"] / 10)
    found = rk.trend(times, "steps", "seconds").iloc[0]
    assert (found.n_prompts, found.n_units, found.verdict) == (8, 1, "undecided")
    with pytest.raises(rk.RequestError, match="No prompt and seed has 3 values of 'steps'"):
        rk.trend(times.assign(card=times["steps"].map(str)), "steps", "seconds")
    for wrong, says in ((dict(axis="seed"), "axis 'seed'"), (dict(confidence=2), "confidence 2")):
        with pytest.raises(rk.RequestError, match=says):
            rk.trend(frame, **{"axis": "steps"} | wrong)


@pytest.mark.parametrize("name", ["card", "rung", "batch"])
def test_pareto_refuses_times_of_unlike_cards_and_rungs(name):
    frame = timed({"A": 1.0, "B": 2.0}).assign(model="m", **{METRIC: 50.0})
    rk.plots.pareto(frame, y=METRIC)
    frame.loc[frame.index % 2 == 0, name] = 7 if name == "batch" else "other"
    with pytest.raises(rk.RequestError, match=f"seconds was measured at different {name}"):
        rk.plots.pareto(frame, y=METRIC)
    plt.close("all")


def test_pareto_says_who_is_on_the_front_as_compare_does(frame):
    """A is cheapest, B better for more; C costs more than B, and is no better."""
    from realkit.analysis import pareto

    done = frame.assign(sampler=frame["sampler"])
    metric = pareto.metric_of(done, METRIC, None)
    points = pareto._points(done, "nfe", METRIC, "sampler", "sampler", "prompt")
    standing = pareto._standing(done, "nfe", metric, points, ["sampler"], "prompt")
    assert standing == {"A": pareto.ON, "B": pareto.ON, "C": pareto.PERHAPS}
    worse = done.assign(**{METRIC: done[METRIC] - 20 * (done["sampler"] == "C")})
    points = pareto._points(worse, "nfe", METRIC, "sampler", "sampler", "prompt")
    assert (
        pareto._standing(worse, "nfe", metric, points, ["sampler"], "prompt")["C"] == pareto.BEHIND
    )
    # Seconds that differ by less than their noise put nobody surely on the front
    rng = np.random.default_rng(0)
    timed = worse.assign(seconds=rng.lognormal(0, 0.1, len(worse)), batch=1, denoise_s=rng.random())
    points = pareto._points(timed, "seconds", METRIC, "sampler", "sampler", "prompt")
    found = pareto._standing(timed, "seconds", metric, points, ["sampler"], "prompt")
    assert found["A"] == pareto.PERHAPS and found["B"] != pareto.BEHIND
    legend = rk.plots.pareto(worse, x="nfe", y=METRIC).axes[0].get_legend_handles_labels()[1]
    assert legend[-2:] == [pareto.ON, pareto.BEHIND]


def test_the_front_of_a_score_that_should_be_low_is_low(frame):
    low = frame.assign(**{"colour-cast": frame["nfe"] * 1.0})
    (front,) = [
        line
        for line in rk.plots.pareto(low, x="nfe", y="colour-cast").axes[0].lines
        if line.get_label() == "front"
    ]
    assert front.get_ydata().tolist() == [10.0]
    with pytest.raises(rk.RequestError, match="'guidance' has no better direction"):
        rk.plots.pareto(low, x="nfe", y="guidance")


def test_a_folder_without_cells_or_votes_is_one_line(tmp_path):
    for name in ("cells.jsonl", "rows.jsonl"):
        (tmp_path / name).touch()
    call = CliRunner().invoke
    for command in (["compare"], ["table"], ["votes"], ["vote"]):
        result = call(main, [*command, str(tmp_path), "--by", "sampler"])
        assert result.exit_code == 2 and "The table has no rows" in result.stderr, command
        assert result.stderr.count("\n") == 1
    assert call(main, ["table", str(tmp_path)]).stdout == "the table has no cells\n"
    for wrong in ("", [], 3):
        with pytest.raises(rk.RequestError, match=r"expected a column's name|has no column ''"):
            rk.votes(tmp_path, wrong)
