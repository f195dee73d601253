"""Verdicts of planted differences, and a stated answer to every table that has none."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.analysis.aggregate import aggregate
from realkit.analysis.headline import headline
from realkit.analysis.metrics import Metric, metric_of
from realkit.analysis.verdicts import judged
from realkit.apps.cli.main import main
from realkit.base.statistics import Contrast, mean_interval

METRIC = "rehearsal/clip"


def table(effects, prompts=12, seeds=2, spread=1.0, axis="sampler", **more):
    """A table whose arms differ by planted effects; prompts and seeds differ far more."""
    rng = np.random.default_rng(0)
    level = {prompt: rng.normal(60, 15) for prompt in range(prompts)}
    rows = []
    for arm, effect in effects.items():
        for prompt in range(prompts):
            own = effect + rng.normal(0, spread)
            for seed in range(seeds):
                value = level[prompt] + 3 * seed + own + rng.normal(0, spread / 3)
                settings = {"model": "m", "sampler": "Euler", "steps": 20, "guidance": 5.0}
                row = settings | {axis: arm, "prompt": f"p{prompt}", "seed": seed, METRIC: value}
                rows.append(row | {"status": "ok"} | more)
    return pd.DataFrame(rows)


def timed(seconds, batches=4, size=4, **more):
    """A table of times: each batch of `size` pictures shares its own."""
    rng = np.random.default_rng(1)
    rows = []
    for arm, mean in seconds.items():
        for batch in range(batches):
            time = mean * np.exp(rng.normal(0, 0.02))
            for seed in range(size):
                rows.append({
                    "sampler": arm, "steps": 20, "prompt": f"p{batch}", "seed": seed, "run": "r",
                    "batch": size, "encode_s": 0.1, "denoise_s": time, "seconds": time + 0.1,
                    "rung": "resident", "device": "cuda", "card": "T4", "status": "ok",
                } | more)  # fmt: skip
    return pd.DataFrame(rows)


def words(found):
    return {(row.a, row.b): row.verdict for row in found.itertuples()}


def test_planted_differences_are_found_and_equal_arms_are_equivalent():
    found = rk.compare(table({"A": 0.0, "B": 5.0, "C": 0.1}, prompts=40), "sampler")
    assert words(found) == {("A", "B"): "worse", ("A", "C"): "equivalent", ("B", "C"): "better"}
    first = found.iloc[0]
    assert first.low < -5 < first.high < 0 and first.metric == METRIC and first.p_adjusted < 0.001
    assert (first.n_prompts, first.n_pairs, first.margin) == (40, 80, 2.0)
    assert found["prompts_needed"].isna().all() and (found["smallest_effect"] > 0).all()


def test_the_effect_is_the_mean_over_prompts_of_paired_differences():
    frame = table({"A": 0.0, "B": 2.0})
    frame = frame.drop(frame[(frame["prompt"] == "p0") & (frame["seed"] == 1)].index)
    wide = frame.pivot(index=["prompt", "seed"], columns="sampler", values=METRIC)
    differences = (wide["A"] - wide["B"]).groupby("prompt").mean()
    found = rk.compare(frame, "sampler").iloc[0]
    assert found.effect == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx(mean_interval(differences)[1:3])
    assert found.n_pairs == 23


def test_many_arms_take_seconds_not_minutes():
    frame = table({f"s{number}": 0.0 for number in range(30)}, seeds=1)
    began = time.perf_counter()
    assert len(rk.compare(frame, "sampler")) == 435
    assert time.perf_counter() - began < 20


def test_a_metric_that_is_better_when_lower_is_judged_so():
    frame = table({"A": 0.0, "B": 5.0}).rename(columns={METRIC: "colour-cast"})
    assert words(rk.compare(frame, "sampler")) == {("A", "B"): "better"}


def test_one_prompt_that_carries_the_difference_decides_nothing():
    frame = table({"A": 0.0, "B": 0.0}, spread=0.01)
    frame.loc[(frame["sampler"] == "B") & (frame["prompt"] == "p3"), METRIC] += 30
    found = rk.compare(frame, "sampler", margin=0.5).iloc[0]
    assert found.verdict == "undecided"
    # However narrow the interval were, one of twelve prompts has 21 of the 32 points.
    differences = {f"p{n}": 1.0 for n in range(11)} | {"p11": 21.0}
    contrast = Contrast(32 / 12, 0.5, 5.0, 0.01, 12, 5.8, 1.0)
    word, reason = judged(contrast, differences, metric_of(frame, METRIC, None))
    assert word == "undecided" and "carries 66% of it, 'p11'" in reason


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_few_prompts_decide_nothing_and_it_is_said_how_many_would(prompts):
    found = rk.compare(table({"A": 0.0, "B": 50.0}, prompts=prompts), "sampler")
    assert found["verdict"].tolist() == ["undecided"]
    if prompts > 1:
        assert found["prompts_needed"].iloc[0] >= 6 and "fewer than 6" in str(found)
    else:
        assert "one prompt has no interval" in str(found)


def test_without_a_margin_nothing_is_equivalent():
    frame = table({"A": 0.0, "B": 0.0}).rename(columns={METRIC: "of my own"})
    assert words(rk.compare(frame, "sampler", "of my own")) == {("A", "B"): "undecided"}
    given = rk.compare(frame, "sampler", "of my own", margin=3.0)
    assert words(given) == {("A", "B"): "equivalent"} and "within 3" in str(given)


def test_all_scores_equal():
    frame = table({"A": 0.0, "B": 0.0}).assign(**{METRIC: 50.0})
    assert words(rk.compare(frame, "sampler")) == {("A", "B"): "equivalent"}
    bare = frame.rename(columns={METRIC: "of my own"})
    found = rk.compare(bare, "sampler", "of my own").iloc[0]
    assert found.verdict == "undecided" and found.reason == "all values are equal: give a margin"
    assert pd.isna(found.prompts_needed)


def test_many_pairs_widen_every_interval():
    frame = table({"A": 0.0, "B": 1.5})
    alone = rk.compare(frame, "sampler").iloc[0]
    more = table({name: 0.0 for name in "CDEFGH"})
    together = rk.compare(pd.concat([frame, more], ignore_index=True), "sampler")
    same = together[(together["a"] == "A") & (together["b"] == "B")].iloc[0]
    assert same.effect == pytest.approx(alone.effect)
    assert same.high - same.low > 1.2 * (alone.high - alone.low) and len(together) == 28


def test_within_gives_each_value_a_family_of_its_own():
    frame = pd.concat([
        table({"A": 0.0, "B": 4.0}), table({"A": 4.0, "B": 0.0}).assign(model="n")
    ], ignore_index=True)  # fmt: skip
    found = rk.compare(frame, "sampler", within="model")
    assert found[["model", "verdict"]].to_numpy().tolist() == [["m", "worse"], ["n", "better"]]
    averaged = rk.compare(frame, "sampler")
    assert averaged["verdict"].tolist() != ["better"] and "turns with model" in str(averaged)


def test_values_of_within_that_compare_nothing_are_said():
    frame = table({"a": 0.0, "b": 5.0, "c": 1.0})
    other = table({"a": 0.0, "c": 5.0}).assign(model="n")
    found = rk.compare(pd.concat([frame, other]), "sampler", within="model", baseline="b")
    assert "By sampler, model n: nothing to compare, or no baseline." in found.sentences
    with pytest.raises(rk.RequestError, match="No two cells can be compared by sampler"):
        alone = [table({name: 0.0}).assign(model=name) for name in "ab"]
        rk.compare(pd.concat(alone), "sampler", within="model")


def test_pairs_that_share_no_cells_are_told_apart_from_undecided_ones():
    frame = table({"A": 0.0, "B": 5.0})
    linked = table({"C": 0.0, "D": 1.0}).assign(steps=[4, 8] * 24)
    found = rk.compare(pd.concat([frame, linked]), "sampler")
    assert "4 pairs could not be compared: they share no equal cells." in found.sentences[0]
    assert "  A and C cannot be compared: no cell of one has the steps" in str(found)
    assert found[found["n_pairs"] == 0]["left_out"].tolist() == [24] * 4


def test_no_sign_turns_where_all_is_noise():
    rng = np.random.default_rng(2)
    parts = []
    for guidance in (1.0, 3.0, 5.0, 7.0):
        frame = table({name: 0.0 for name in "ABCDEF"}, prompts=8, seeds=1)
        parts.append(frame.assign(guidance=guidance))
    for _ in range(8):
        frame = pd.concat(parts, ignore_index=True)
        frame[METRIC] += rng.normal(0, 3, len(frame))
        assert not rk.compare(frame, "sampler")["turns"].any()


def test_numbers_are_equal_however_they_are_written():
    first = table({"A": 0.0})
    second = table({"B": 5.0}).assign(steps=20.0, seed=[0.0, 1.0] * 12)
    frame = pd.concat([first.astype(object), second.astype(object)], ignore_index=True)
    assert rk.compare(frame, "sampler").iloc[0].n_pairs == 24
    frame = table({1.0: 0.0, 5.0: 3.0, None: 1.0}, axis="guidance")
    found = rk.compare(frame, "guidance", baseline="5")
    assert set(found["b"]) == {"5.0"} and set(found["a"]) == {"1.0", "none"}
    found.to_parquet(io.BytesIO())


def test_a_margin_in_percent_is_the_one_that_is_printed():
    metric = Metric("seconds", "lower", relative=True, margin=40.0, unit_of_mean="batch")
    differences = dict(enumerate(np.log([0.7, 0.75, 0.8, 0.72])))
    contrast = Contrast(float(np.log(0.78)), float(np.log(0.61)), float(np.log(1.017)), 0.2, 4,
                        0.1, 1.0)  # fmt: skip
    assert judged(contrast, differences, metric)[0] == "equivalent"


def test_batches_that_share_pictures_are_one_unit():
    frame = timed({"A": 1.0, "B": 2.0}, batches=6, size=2)
    half = frame["prompt"].isin(["p0", "p1", "p2"])
    odd = frame["prompt"].isin(["p1", "p3", "p5"])
    for arm, first in (("A", half), ("B", odd)):
        frame.loc[(frame["sampler"] == arm) & first, "denoise_s"] = 1.0
        frame.loc[(frame["sampler"] == arm) & ~first, "denoise_s"] = 2.0
    found = rk.compare(frame, "sampler", "seconds").iloc[0]
    assert (found.n_units, found.verdict) == (1, "undecided")


def test_a_cell_made_twice_counts_where_it_has_a_value():
    frame = timed({"A": 1.0, "B": 2.0})
    twice = pd.concat([frame.assign(seconds=np.nan), frame], ignore_index=True)
    assert rk.compare(twice, "sampler", "seconds").iloc[0].n_pairs == 16


def test_a_baseline_is_compared_with_each_other():
    frame = table({4: 0.0, 20: 5.0, 30: 5.0}, axis="steps")
    found = rk.compare(frame, "steps", baseline="30")
    assert list(zip(found["a"], found["b"], strict=True)) == [(4, 30), (20, 30)]
    assert list(found["verdict"]) == ["worse", "equivalent"]
    with pytest.raises(rk.RequestError, match="baseline 7 is no steps of the table: expected one"):
        rk.compare(frame, "steps", baseline=7)


def test_settings_that_differ_together_are_said():
    frame = table({"A": 0.0, "B": 5.0})
    frame.loc[frame["sampler"] == "B", "steps"] = 4
    found = rk.compare(frame, "sampler")
    assert words(found) == {("A", "B"): "worse"}
    assert "Also different: steps (20 for A; 4 for B)." in str(found)
    frame.loc[(frame["sampler"] == "B") & (frame["seed"] == 1), "steps"] = 8
    with pytest.raises(rk.RequestError, match="no cell of one has the steps of any cell of the"):
        rk.compare(frame, "sampler")


def test_two_axes_are_taken_together():
    frame = table({"A": 0.0, "B": 5.0})
    both = pd.concat([frame, frame.assign(model="n")], ignore_index=True)
    found = rk.compare(both, ["model", "sampler"])
    assert len(found) == 6 and found.iloc[0].a == "m · A"


def test_missing_cells_and_scores_are_left_out_and_counted():
    frame = table({"A": 0.0, "B": 5.0})
    frame.loc[frame.index[:3], METRIC] = np.nan
    frame = frame.drop(frame.index[-2:])
    found = rk.compare(frame, "sampler")
    assert found.iloc[0].n_pairs == 19 and found.iloc[0].left_out == 5
    assert "Left out: up to 5 cells of a pair" in str(found)
    frame[METRIC] = frame[METRIC].where(frame["sampler"] == "A")
    with pytest.raises(rk.RequestError, match="no two cells of equal prompt, seed, axes have both"):
        rk.compare(frame, "sampler")


def test_times_are_compared_in_percent_by_batch():
    found = rk.compare(timed({"A": 1.0, "B": 2.0}), "sampler", "seconds")
    row = found.iloc[0]
    assert (row.verdict, row.unit, row.n_units, row.n_prompts) == ("better", "batch", 4, 4)
    assert row.effect == pytest.approx(-47.6, abs=2) and row.low < row.effect < row.high < 0
    same = rk.compare(timed({"A": 1.0, "B": 1.001}, batches=8), "sampler", "seconds", margin=10)
    assert words(same) == {("A", "B"): "equivalent"} and "within 10 %" in str(same)


@pytest.mark.parametrize(
    ("name", "value"), [("batch", 8), ("rung", "group-offload"), ("card", "P")]
)
def test_times_of_unequal_terms_are_left_out(name, value):
    frame = timed({"A": 1.0, "B": 2.0})
    frame.loc[(frame["sampler"] == "B") & (frame["prompt"] == "p0"), name] = value
    found = rk.compare(frame, "sampler", "seconds").iloc[0]
    assert (found.n_units, found.left_out) == (3, 8)
    frame.loc[frame["sampler"] == "B", name] = value
    with pytest.raises(rk.RequestError, match="no two cells of equal batch, memory rung and card"):
        rk.compare(frame, "sampler", "seconds")


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (lambda frame: frame.iloc[:0], {}, "The table has no rows"),
        (lambda frame: frame, {"by": "samplr"}, "no column 'samplr'"),
        (lambda frame: frame, {"by": "prompt"}, "by 'prompt': expected an axis"),
        (lambda frame: frame, {"within": "modl"}, "no column 'modl'"),
        (lambda frame: frame, {"metric": "clap"}, "no metric 'clap': expected one of rehearsal/"),
        (lambda frame: frame, {"metric": "sampler"}, "no better direction: expected one of"),
        (lambda frame: frame, {"margin": 0}, "margin 0: expected a number above 0"),
        (lambda frame: frame, {"confidence": 95}, "confidence 95: expected from 0.5"),
        (lambda frame: frame[frame["sampler"] == "A"], {}, "has 1 value of sampler"),
        (lambda frame: frame.assign(**{METRIC: np.nan}), {}, "no number to compare"),
        (lambda frame: frame.drop(columns="seed"), {}, "no column 'seed'"),
        (lambda frame: frame, {"by": []}, r"by \[\]: expected a column's name, or several"),
        (lambda frame: frame, {"by": 3}, "by 3: expected a column's name"),
        (lambda frame: frame, {"metric": 3}, "metric 3: expected a column's name"),
        (lambda frame: frame, {"margin": "1"}, "margin '1': expected a number"),
        (lambda frame: frame, {"margin": True}, "margin True: expected a number"),
        (lambda frame: frame, {"confidence": "0.9"}, "confidence '0.9': expected from"),
        (lambda frame: frame, {"within": ["model"]}, "within .*: expected a column's name"),
        (lambda frame: frame, {"within": "sampler"}, "within 'sampler' is what is compared"),
        (lambda frame: frame, {"baseline": pd.NA}, "baseline <NA> is no sampler of the table"),
        (lambda frame: pd.concat([frame, frame[["model"]]], axis=1), {}, "'model' twice"),
    ],
)  # fmt: skip
def test_a_table_without_an_answer_is_one_line(change, arguments, says):
    frame = change(table({"A": 0.0, "B": 5.0}))
    with pytest.raises(rk.RequestError, match=says):
        rk.compare(frame, **{"by": "sampler"} | arguments)


def test_it_prints_as_sentences_and_as_a_table():
    found = rk.compare(table({"A": 0.0, "<B>": 5.0, "C": 0.5}), "sampler")
    lines = str(found).splitlines()
    assert lines[0].startswith(
        "rehearsal/clip by sampler (12 prompts, higher is better): Best of 3"
    )
    assert lines[1].startswith("  <B> is better than A by 4.84 (")
    assert "19 times in 20" in found.sentences[-2] and lines[-3].split()[:3] == ["A", "<B>", METRIC]
    assert "&lt;B&gt; is better" in found._repr_html_() and "<table" in found._repr_html_()
    assert type(found[found["verdict"] == "better"]) is pd.DataFrame
    assert max(map(len, lines)) < 200


def test_the_figure_shows_each_contrast():
    found = rk.compare(table({"A": 0.0, "B": 5.0, "C": 0.5}), "sampler")
    figure = rk.plots.verdicts(found)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["A − B", "A − C", "B − C"]
    with pytest.raises(rk.RequestError, match=r"no column 'a': give what rk\.compare returned"):
        rk.plots.verdicts(found[["effect"]])


def test_a_group_has_the_interval_that_plots_draw():
    frame = table({"A": 0.0, "B": 5.0}).assign(seconds=1.0, batch=1)
    grouped = aggregate(frame, ["sampler"])
    own = frame[frame["sampler"] == "A"]
    expected = mean_interval(own[METRIC], own["prompt"])
    row = grouped.iloc[0]
    assert (row[METRIC], row[f"{METRIC}_low"], row[f"{METRIC}_high"]) == pytest.approx(expected[:3])
    assert list(grouped["cells"]) == [24, 24] and list(grouped["seconds"]) == [1.0, 1.0]
    frame.loc[0, "batch"] = 2
    assert np.isnan(aggregate(frame, ["sampler"])["seconds"].iloc[0])
    with pytest.raises(rk.RequestError, match="no column 'x'"):
        aggregate(frame, ["x"])


def test_the_headline_of_a_run_is_two_lines():
    frame = table({"A": 0.0, "B": 5.0}).assign(seconds=1.0)
    lines = headline(frame)
    assert len(lines) == 2
    assert lines[0] == "rehearsal/clip by sampler (12 prompts, higher is better): Best of 2: B."
    assert headline(frame[frame["sampler"] == "A"])[0].startswith(
        "Nothing to compare: the run varies"
    )
    assert headline(frame.drop(columns=["seconds", METRIC]))[0].startswith(
        "Nothing to compare: no pi"
    )


def test_the_command_line_says_the_same(finished):
    folder = str(finished.folder)
    said = CliRunner().invoke(main, ["compare", folder, "--by", "sampler"])
    assert said.exit_code == 0 and said.stdout == f"{rk.compare(finished.table(), 'sampler')}\n"
    as_csv = CliRunner().invoke(main, ["compare", folder, "--by", "sampler", "--csv"])
    assert as_csv.stdout.startswith("a,b,metric,effect,low,high,p_adjusted,verdict")
    grouped = CliRunner().invoke(main, ["table", folder, "--by", "model,sampler"])
    assert grouped.exit_code == 0 and "rehearsal/clip_low" in grouped.stdout
    wrong = CliRunner().invoke(main, ["compare", folder, "--by", "colour"])
    assert wrong.exit_code == 2 and wrong.stderr.startswith("realkit: The table has no column")


def test_joules_are_compared_like_seconds_in_percent_and_by_batch():
    frame = timed({"A": 1.0, "B": 1.5})
    frame["denoise_j"] = 40 * frame["denoise_s"]
    found = rk.compare(frame, "sampler", "denoise_j").iloc[0]
    assert (found.verdict, found.unit, found.n_units) == ("better", "batch", 4)
    assert found.effect == pytest.approx(100 * (1 / 1.5 - 1), abs=3)
    unlike = frame.assign(batch=frame["sampler"].map({"A": 4, "B": 8}))
    with pytest.raises(rk.RequestError, match="no two cells of equal batch, memory rung and card"):
        rk.compare(unlike, "sampler", "denoise_j")
    with pytest.raises(
        rk.RequestError, match="No cell of the table has a number above 0 in 'joules'"
    ):
        rk.compare(frame.assign(joules=np.nan), "sampler", "joules")


def test_a_group_has_its_pictures_an_hour_unless_unlike_cells_are_pooled():
    frame = timed({"A": 1.9, "B": 3.5}).assign(joules=80.0)
    found = rk.aggregate(frame, ["sampler"])
    assert found["pictures_an_hour"].tolist() == pytest.approx((3600 / found["seconds"]).tolist())
    assert found["joules"].tolist() == [80.0, 80.0]
    mixed = pd.concat([frame, frame.assign(card="P100")])
    found = rk.aggregate(mixed, ["sampler"])
    assert found[["seconds", "pictures_an_hour", "joules"]].isna().all(axis=None)
    assert "joules" not in rk.aggregate(frame.drop(columns="joules"), ["sampler"])


def sizes():
    """Models of two sizes, whose pictures and formats are known when they are made."""
    df = table({"small": 0.0, "large": 6.0}, axis="model", dtype="float16")
    side = df["model"].map({"small": 512, "large": 1024}).astype(float)
    return df.assign(width=side, height=side, image_width=side, image_height=side)


@pytest.mark.parametrize("lost", [[0], [30], [0, 30], list(range(20))])
def test_cells_that_were_not_made_do_not_part_arms_of_different_sizes(lost):
    df = sizes()
    df.loc[lost, [METRIC, "image_width", "image_height", "dtype"]] = None
    df.loc[lost, "status"] = "pending"
    found = rk.compare(df, "model")
    pairs = {(row.prompt, row.seed) for row in df.loc[lost].itertuples()}
    assert found["n_pairs"].item() == 24 - len(pairs) and found["left_out"].item() == len(pairs)
    if len(lost) < 3:
        assert words(found) == {("small", "large"): "worse"}
    whole = rk.compare(sizes().drop(lost), "model")
    assert found["effect"].item() == pytest.approx(whole["effect"].item())
    assert "dtype" not in headline(df)[0] and headline(df)[0].startswith(f"{METRIC} by model (")


def test_what_was_not_made_is_no_arm_of_its_format():
    df = table({"A": 0.0, "B": 6.0}, axis="dtype")
    df.loc[[0, 1], ["dtype", METRIC]] = None
    assert words(rk.compare(df, "dtype")) == {("A", "B"): "worse"}


def test_texts_that_read_alike_are_two_arms():
    df = table({"a  cube": 0.0, "a cube": 6.0, "b": 0.0}, axis="negative")
    found = rk.compare(df, "negative")
    assert words(found)["'a  cube'", "'a cube'"] == "worse" and set(found["b"]) >= {"b"}
    assert len(aggregate(df, "negative")) == 3


def test_a_score_that_no_cell_has_is_named():
    df = table({"A": 0.0, "B": 6.0}).assign(clip=np.nan, seconds=np.nan)
    assert "Not compared, for no cell has a number: clip." in rk.compare(df, "sampler").sentences


def test_a_long_family_names_what_is_nearest_to_a_verdict_and_says_what_to_do_next():
    """Six arms, fifteen pairs: a page that is read aloud names the three that need the fewest."""
    effects = {"A": 0.0, "B": 1.0, "C": -1.5, "D": 2.0, "E": 0.5, "F": 1.5}
    answer = rk.compare(table(effects, spread=4.0), "sampler")
    undecided = answer[answer.verdict == "undecided"].sort_values("prompts_needed", kind="stable")
    named = [line for line in answer.sentences if " is undecided: " in line]
    assert len(undecided) > 4 and len(named) == 3
    needed = undecided.prompts_needed.tolist()
    for line, count in zip(named, needed, strict=False):
        assert f"about {count:,} prompts would settle it" in line
    told = f"  {len(undecided) - 3} more are undecided: {needed[3]:,} to {needed[-1]:,} prompts"
    assert any(line.startswith(told) for line in answer.sentences)
    assert f"next: with {needed[0]:,} prompts instead of 12, " in answer.sentences[-1]


def test_what_to_do_next_where_nothing_or_too_little_was_compared():
    clear = rk.compare(table({"A": 0.0, "B": 9.0}), "sampler")
    assert "nothing is undecided here" in clear.sentences[-1]
    few = rk.compare(table({"A": 0.0, "B": 1.0}, prompts=4), "sampler")
    assert "fewer than 6 prompts decide nothing" in few.sentences[-1]
    costs = rk.compare(timed({"A": 1.0, "B": 1.0}), "sampler", "seconds", margin=0.001)
    assert "only costs are undecided" in costs.sentences[-1]
