"""Settings of equal cost: of planted sweeps, whose choice is known by hand, and of a real one."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

import realkit as rk
from realkit.apps.cli.main import main

METRIC = "rehearsal/clip"
TERMS = {"batch": 4, "rung": "resident", "card": "T4"}


def swept(seconds, steps=(5, 10, 20, 40), gains=None, prompts=8, **more):
    """A sweep of arms × steps: an arm takes `seconds` a step, and has 3 points more each time that
    its steps double, besides its own gain."""
    rng = np.random.default_rng(0)
    level = rng.normal(50, 10, prompts)
    rows = []
    for arm, each in seconds.items():
        for count in steps:
            for prompt in range(prompts):
                score = level[prompt] + (gains or {}).get(arm, 0.0) + 3 * np.log2(count)
                row = {"model": "m", "sampler": arm, "steps": count, "guidance": 5.0, "seed": 0}
                row |= {"prompt": f"p{prompt}", "nfe": count, "seconds": each * count} | TERMS
                row |= {METRIC: score + rng.normal(0, 0.3), "status": "ok"}
                rows.append(row | more)
    return pd.DataFrame(rows)


def steps_of(rows, *by):
    """The steps that each arm got."""
    return {arm: set(part["steps"]) for arm, part in rows.groupby(list(by) or "sampler")}


@pytest.fixture
def sweep():
    """B is 2 points better than A at equal steps, and takes four times as long: 6 points."""
    return swept({"A": 0.1, "B": 0.4}, gains={"B": 2.0})


def test_an_arm_that_is_better_at_equal_steps_is_worse_in_equal_time(sweep):
    assert rk.compare(sweep, "sampler", METRIC).iloc[0].verdict == "worse"
    rows = rk.at_equal(sweep, "sampler", most=2)
    assert steps_of(rows) == {"A": {20}, "B": {5}} and len(rows) == 16
    assert rows.groupby("sampler")["cost"].first().tolist() == [2.0, 2.0]
    assert rows[["cost_bound", "below_bound"]].to_numpy().tolist() == [[2.0, 0.0]] * 16
    found = rk.compare(rows, "sampler", METRIC).iloc[0]
    assert found.verdict == "better" and found.effect == pytest.approx(4, abs=0.4)


def test_the_bound_by_default_is_the_largest_cost_that_every_arm_reaches(sweep):
    rows = rk.at_equal(sweep, "sampler")
    assert steps_of(rows) == {"A": {40}, "B": {10}}
    assert rows.attrs["sentences"] == [
        "At equal seconds by sampler: at most 4 seconds, which each reaches within 5 %.",
        "  A: 40 steps, 4 seconds, at the bound; it has no dearer setting.",
        "  B: 10 steps, 4 seconds, at the bound; 20 steps are 100 % above it.",
        "A setting's cost is the median of its cells. No score had a part in the choice.",
    ]
    assert str(rows).startswith("At equal seconds")


def test_a_setting_above_the_bound_is_never_taken_and_the_rest_is_said(sweep):
    rows = rk.at_equal(sweep, "sampler", most=3.99)
    assert steps_of(rows) == {"A": {20}, "B": {5}}
    assert rows["below_bound"].unique().tolist() == pytest.approx([1 - 2 / 3.99])
    says = "  A: 20 steps, 2 seconds, 50 % below the bound; 40 steps are 0.251 % above it."
    assert says in rows.attrs["sentences"]


def test_the_verdict_is_that_of_the_chosen_cells(sweep):
    rows = rk.at_equal(sweep, "sampler", most=2)
    of_a, of_b = (sweep["sampler"] == "A"), (sweep["sampler"] == "B")
    by_hand = sweep[(of_a & (sweep["steps"] == 20)) | (of_b & (sweep["steps"] == 5))]
    found, expected = rk.compare(rows, "sampler", METRIC), rk.compare(by_hand, "sampler", METRIC)
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected))
    assert found.sentences == expected.sentences
    assert "  Also different: steps (20 for A; 5 for B)." in found.sentences


def test_the_choice_is_blind_to_every_score(sweep):
    rows = rk.at_equal(sweep, "sampler")
    shuffled = sweep.assign(**{METRIC: sweep[METRIC].sample(frac=1, random_state=1).to_numpy()})
    again = rk.at_equal(shuffled, "sampler")
    assert again[["sampler", "steps", "prompt"]].equals(rows[["sampler", "steps", "prompt"]])


def test_nfe_and_joules_bound_as_well(sweep):
    sweep["nfe"] = sweep["steps"].where(sweep["sampler"] == "A", 2 * sweep["steps"] - 1)
    rows = rk.at_equal(sweep, "sampler", cost="nfe", most=20)
    assert steps_of(rows) == {"A": {20}, "B": {10}}
    assert rows.groupby("sampler")["below_bound"].first().tolist() == pytest.approx([0, 0.05])
    sweep["joules"] = 50 * sweep["seconds"]
    assert steps_of(rk.at_equal(sweep, "sampler", "joules", 100)) == {"A": {20}, "B": {5}}


def test_the_noise_of_a_clock_takes_no_arm_a_setting_away():
    frame = swept({"A": 0.100, "B": 0.102, "C": 0.098})
    rows = rk.at_equal(frame, "sampler")
    assert steps_of(rows) == {"A": {40}, "B": {40}, "C": {40}}
    assert rows["cost_bound"].unique().tolist() == [pytest.approx(4.08)]
    assert steps_of(rk.at_equal(frame, "sampler", most=4.0)) == {"A": {40}, "B": {20}, "C": {40}}


def test_times_that_lie_across_the_bound_are_said_to_decide_little(sweep):
    noisy = (sweep["sampler"] == "A") & (sweep["steps"] == 40)
    assert not any("Not sure" in line for line in rk.at_equal(sweep, "sampler", most=3).sentences)
    sweep.loc[noisy, "seconds"] *= np.where(sweep.loc[noisy, "prompt"] < "p3", 0.6, 1.1)
    rows = rk.at_equal(sweep, "sampler", most=3)
    assert steps_of(rows) == {"A": {20}, "B": {5}}
    assert (
        "  Not sure: of A at 40 steps, a quarter of the cells or more are across the bound by"
        " over 5 %. More batches would tell, or a bound on nfe."
    ) in rows.sentences


def test_each_value_of_the_other_axes_has_its_own_bound_and_all_cells_are_paired(sweep):
    slow = swept({"A": 1.0, "B": 1.0}, model="n")
    frame = pd.concat([sweep, slow], ignore_index=True)
    rows = rk.at_equal(frame, "sampler")
    assert steps_of(rows, "model", "sampler") == {
        ("m", "A"): {40}, ("m", "B"): {10}, ("n", "A"): {40}, ("n", "B"): {40},
    }  # fmt: skip
    assert rows.groupby("model")["cost_bound"].unique().map(list).to_dict() == {"m": [4], "n": [40]}
    found = rk.compare(rows, "sampler", METRIC).iloc[0]
    assert (found.n_pairs, found.left_out) == (16, 0)
    within = rk.compare(rows, "sampler", METRIC, within="model")
    assert within["n_pairs"].tolist() == [8, 8]
    # They are equal by sampler: models have bounds of their own, and that is said.
    by_model = rk.compare(rows, "model", METRIC)
    assert "  Also different: cost_bound (4 for m; 40 for n)." in by_model.sentences


def test_one_bound_for_two_models_leaves_out_the_place_that_has_no_second_arm(sweep):
    slow = swept({"A": 0.3, "B": 1.0}, model="n")
    rows = rk.at_equal(pd.concat([sweep, slow]), "sampler", most=2)
    assert set(rows["model"]) == {"m"}
    lines = rows.attrs["sentences"]
    place = lines.index("At equal seconds by sampler, model n: at most 2 seconds.")
    assert lines[place + 2 : place + 4] == [
        "  Left out: B, whose cheapest setting is 5 steps, 5 seconds.",
        "  Nothing is compared here: fewer than two are within the bound.",
    ]


def test_settings_linked_to_the_arms_make_no_bound_of_their_own():
    base = swept({"Euler": 0.1}, model="base")
    turbo = swept({"Euler": 0.05}, steps=(2, 4, 8), model="turbo", guidance=0.0)
    rows = rk.at_equal(pd.concat([base, turbo]), "model", most=0.5)
    assert steps_of(rows, "model") == {("base",): {5}, ("turbo",): {8}}
    assert any("turbo (guidance 0): 8 steps" in line for line in rows.attrs["sentences"])
    found = rk.compare(rows, "model", METRIC)
    assert found.iloc[0].n_pairs == 8
    assert "Also different: steps (5 for base; 8 for turbo)." in str(found)
    assert "Also different: guidance (5 for base; 0 for turbo)." in str(found)


def test_several_axes_are_taken_together(sweep):
    other = swept({"A": 0.2, "B": 0.8}, model="n")
    rows = rk.at_equal(pd.concat([sweep, other]), ["model", "sampler"], most=4)
    assert steps_of(rows, "model", "sampler") == {
        ("m", "A"): {40}, ("m", "B"): {10}, ("n", "A"): {20}, ("n", "B"): {5},
    }  # fmt: skip
    assert rk.compare(rows, ["model", "sampler"], METRIC)["n_pairs"].tolist() == [8] * 6


def test_an_arm_whose_cheapest_setting_is_above_the_bound_is_left_out_and_named():
    frame = swept({"A": 0.1, "B": 0.2, "slow": 1.0})
    rows = rk.at_equal(frame, "sampler", most=2)
    assert steps_of(rows) == {"A": {20}, "B": {10}}
    says = "  Left out: slow, whose cheapest setting is 5 steps, 5 seconds."
    assert says in rows.attrs["sentences"]
    with pytest.raises(rk.RequestError) as error:
        rk.at_equal(frame, "sampler", most=0.7)
    assert str(error.value) == (
        "No two of sampler have a setting within 0.7 seconds, all else equal: A 0.5 to 4, B 1 to 8,"
        " slow 5 to 40 seconds. Give another most, or sweep more steps"
    )
    apart = frame[(frame["sampler"] != "slow") & (frame["steps"] == 5) | (frame["seconds"] > 30)]
    with pytest.raises(rk.RequestError, match="a bound that all of them reach, all else equal"):
        rk.at_equal(apart[apart["sampler"] != "A"], "sampler")


def test_cells_without_a_cost_are_no_part_of_its_median_and_stay_in_the_table(sweep):
    bare = (sweep["sampler"] == "A") & (sweep["prompt"].isin(["p0", "p1"]))
    sweep.loc[bare, ["seconds", METRIC]] = [np.nan, np.nan]
    sweep.loc[bare & (sweep["prompt"] == "p1"), "seconds"] = np.inf
    sweep["image_width"] = np.where(bare, np.nan, 64)
    rows = rk.at_equal(sweep, "sampler", most=2)
    assert steps_of(rows) == {"A": {20}, "B": {5}} and len(rows) == 16
    assert rows["cost"].unique().tolist() == [2.0] and rows["image_width"].isna().sum() == 2
    found = rk.compare(rows, "sampler", METRIC).iloc[0]
    assert (found.n_pairs, found.left_out > 0) == (6, True)


def test_an_arm_without_any_cost_is_left_out_and_named():
    frame = swept({"A": 0.1, "B": 0.2, "C": 0.1})
    frame["seconds"] = frame["seconds"].where(frame["sampler"] != "C").astype(object)
    frame.loc[0, "seconds"] = "failed"
    rows = rk.at_equal(frame, "sampler")
    assert set(rows["sampler"]) == {"A", "B"}
    assert "Left out: C, without a number in seconds." in rows.attrs["sentences"]
    with pytest.raises(rk.RequestError, match="No cell of the table has a number above 0 in 'sec"):
        rk.at_equal(frame.assign(seconds=np.nan), "sampler")


def test_times_of_unequal_batches_are_not_pooled(sweep):
    odd = sweep["prompt"] == "p7"
    sweep.loc[odd, ["batch", "seconds"]] = [1, 100.0]  # of each setting: the last batch is smaller
    rows = rk.at_equal(sweep, "sampler", most=2)
    assert steps_of(rows) == {"A": {20}, "B": {5}} and rows["cost"].unique().tolist() == [2.0]
    assert "  Costs are those of batch 4, rung resident, card T4." in rows.attrs["sentences"]
    assert rk.compare(rows, "sampler", METRIC).iloc[0].n_pairs == 8  # scores may be pooled


def test_a_setting_of_other_terms_alone_is_left_out_and_named(sweep):
    other = (sweep["sampler"] == "A") & (sweep["steps"] == 20)
    sweep.loc[other, "batch"] = 8
    rows = rk.at_equal(sweep, "sampler", most=2)
    assert steps_of(rows) == {"A": {10}, "B": {5}}
    assert any("1 setting of A, with no cost on these terms" in line for line in rows.sentences)
    assert steps_of(rk.at_equal(sweep, "sampler", "nfe", 20)) == {"A": {20}, "B": {20}}
    sweep.loc[sweep["sampler"] == "A", "card"] = "P100"
    with pytest.raises(rk.RequestError, match=r"alike.*: card P100 \(A\), T4 \(B\)\. Run"):
        rk.at_equal(sweep, "sampler", most=2)


def test_figures_and_groups_take_the_rows(sweep):
    sweep.attrs["folder"] = "results/x"
    rows = rk.at_equal(sweep, "sampler", most=2)
    assert rows.attrs["folder"] == "results/x"
    grouped = rk.aggregate(rows, ["sampler", "steps"])
    assert grouped["seconds"].tolist() == [2.0, 2.0] and grouped["cells"].tolist() == [8, 8]
    rk.plots.pareto(rows, x="cost", y=METRIC)
    rk.plots.pareto(rows, x="seconds", y=METRIC)
    plt.close("all")
    rows = rk.at_equal(rows, "sampler", most=2)
    assert steps_of(rows) == {"A": {20}, "B": {5}}


def test_rows_beside_others_are_paired_by_their_steps(sweep):
    rows = rk.at_equal(sweep[sweep["prompt"] != "p0"], "sampler", most=2)
    both = pd.concat([rows, sweep[sweep["prompt"] == "p0"]], ignore_index=True)
    assert rk.compare(both, "sampler", METRIC).iloc[0].n_pairs == 4


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (lambda frame: frame.iloc[:0], {}, "The table has no rows"),
        (lambda frame: frame, {"by": "samplr"}, "no column 'samplr'"),
        (lambda frame: frame, {"by": "steps"}, "by 'steps': expected an axis such as model"),
        (lambda frame: frame, {"by": ["sampler", "prompt"]}, "by 'prompt': expected an axis"),
        (lambda frame: frame, {"by": []}, r"by \[\]: expected a column's name"),
        (lambda frame: frame, {"cost": "joules"}, "no column 'joules'"),
        (lambda frame: frame, {"cost": METRIC}, "is no cost: expected one of nfe, seconds"),
        (lambda frame: frame, {"cost": None}, "cost None: expected a column's name"),
        (lambda frame: frame, {"most": 0}, "most 0: expected a number above 0"),
        (lambda frame: frame, {"most": float("nan")}, "most nan: expected a number above 0"),
        (lambda frame: frame, {"most": "2"}, "most '2': expected a number"),
        (lambda frame: frame, {"most": True}, "most True: expected a number"),
        (lambda frame: frame.drop(columns="steps"), {}, "no column 'steps'"),
        (lambda frame: frame[frame["sampler"] == "A"], {}, "The table has 1 value of sampler"),
    ],
)  # fmt: skip
def test_a_table_without_an_answer_is_one_line(sweep, change, arguments, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.at_equal(change(sweep), **{"by": "sampler"} | arguments)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_real_sweep_at_equal_nfe(tmp_path):
    sweep = rk.Sweep(
        models="rehearsal/base", samplers=["Euler", "Heun"], steps=[2, 3, 5], guidance=1, size=64,
        prompts="suite:rehearsal-12", seeds=1, scorers=["rehearsal/clip"],
    )  # fmt: skip
    folder = rk.run(sweep, tmp_path).folder
    table = rk.read(folder).table()
    assert table.groupby(["sampler", "steps"])["nfe"].first().tolist() == [2, 3, 5, 3, 5, 9]
    rows = rk.at_equal(folder, "sampler", cost="nfe")
    assert steps_of(rows) == {"Euler": {5}, "Heun": {3}} and set(rows["nfe"]) == {5}
    found = rk.compare(rows, "sampler", METRIC)
    assert found.iloc[0].n_pairs == 12 and found.iloc[0].n_prompts == 12
    rk.plots.grid(rows, rows="prompt", cols="sampler")
    plt.close("all")
    command = ["compare", str(folder), "--by", "sampler", "--metric", METRIC, "--at-equal", "nfe"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "\n".join([*rows.sentences, str(found), ""])
    result = CliRunner().invoke(main, [*command, "--most", "3", "--csv"])
    assert result.stdout.startswith("a,b,metric,") and "Euler: 3 steps, 3 nfe" in result.stderr
    result = CliRunner().invoke(main, [*command[:-2], "--most", "3"])
    assert result.exit_code == 2 and result.stderr.startswith("realkit: --most bounds a cost")
    result = CliRunner().invoke(main, [*command, "--most", "1"])
    assert (
        result.exit_code == 2 and "No two of sampler have a setting within 1 nfe" in result.stderr
    )
    seconds = rk.at_equal(folder, "sampler")
    assert (seconds["cost"] <= seconds["cost_bound"]).all() and len(seconds) == 24


def test_arms_on_different_cards_are_told_with_their_cards():
    rows = []
    for sampler, card in (("Euler", "Tesla T4"), ("Heun", "NVIDIA A100")):
        for steps in (5, 10):
            asked = {"model": "m", "sampler": sampler, "prompt": "a", "seed": 0, "steps": steps}
            rows.append({**asked, "seconds": 0.1 * steps, "card": card, "batch": 1})
    frame = pd.DataFrame(rows)
    says = r"card Tesla T4 \(Euler\), NVIDIA A100 \(Heun\)\. Run them on one"
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.at_equal(frame, "sampler", "seconds")
    assert "batch 1" not in str(error.value)  # which is the same
    frame["card"] = "Tesla T4"
    assert len(rk.at_equal(frame, "sampler", "seconds"))
