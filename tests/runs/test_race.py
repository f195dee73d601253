"""Races: what is made, what is skipped, and what a race resumes from."""

import json
import os
import shutil
import signal

import pandas as pd
import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.apps.cli.main import main
from realkit.runs import loop
from realkit.runs.combine import merge
from realkit.runs.looks import races
from realkit.runs.rounds import Race
from realkit.runs.store import Store
from realkit.runs.writer import Desk

WORDS = ("red", "blue", "green", "grey", "white", "black", "brown", "pink", "orange", "cyan")
SWEEP = {
    "models": "rehearsal/turbo", "samplers": "Euler", "prompts": [f"a {w} cube" for w in WORDS[:8]],
    "steps": [1, 2, 3], "size": 64, "guidance": 1,
}  # fmt: skip


class Sure:
    """A judge that decides the contrasts it is told to, look by look, and notes what it saw."""

    def __init__(self, *looks):
        self.looks, self.seen = list(looks), []

    def __call__(self, table, contrasts, confidence):
        decided = self.looks.pop(0)
        self.seen.append((table, contrasts, confidence))
        records = []
        for a, b in contrasts:
            word = "better" if {a["steps"], b["steps"]} in decided else "undecided"
            records.append({"a": a, "b": b, "verdict": word, "n_pairs": 6})
        return records


def raced(folder, *looks, **changes):
    judge = Sure(*looks)
    run = loop.run(SWEEP | changes, folder, race=Race(("steps",), "nfe", judge))
    return run, judge


def decisions(folder):
    lines = (folder / "decisions.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("at", "run")} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A race whose arm of one step is decided at the first of two looks. Copy it to write to it."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    raced(folder, [{1, 2}, {1, 3}], [{2, 3}])
    return folder


@pytest.mark.slow
def test_a_race_by_calls_ends_at_its_first_look_and_says_what_it_saved(tmp_path):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(rk.Sweep(**SWEEP).to_yaml())
    command = [
        "run",
        str(sweep),
        "--out",
        str(tmp_path / "out"),
        "--decide",
        "nfe",
        "--by",
        "steps",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "18 cells ok, 6 cells skipped" in result.output
    assert "18 of 24 pictures of the full grid were made" in result.output
    assert "3 of 3 pairs decided in 1 look at up to 6 of 8 prompts" in result.output
    assert "1 is better than 2 by 1 (1 to 1); than 3 by 2 (2 to 2)." in result.output
    table = rk.read(tmp_path / "out").table()
    skipped = table[table["status"] == "skipped"]
    assert set(skipped["missing"]) == {"decided"} and skipped["error"].isna().all()
    assert len(skipped) == 6 and skipped["image"].isna().all()
    stored = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert stored["status"].tolist() == table["status"].tolist()
    answer = rk.compare(tmp_path / "out", by="steps", metric="nfe")
    assert any("A race skipped 6 cells here" in line for line in answer.sentences)


def test_rounds_are_blocks_of_prompts_and_a_decided_arm_leaves_them(whole):
    records = decisions(whole)
    assert [len(record["prompts"]) for record in records] == [6, 2]
    assert sorted(records[0]["prompts"] + records[1]["prompts"]) == sorted(SWEEP["prompts"])
    assert records[0]["prompts"] != SWEEP["prompts"][:6]  # drawn, not the first of the suite
    assert {record["confidence"] for record in records} == {0.985}
    assert [len(record["contrasts"]) for record in records] == [3, 1]
    table = rk.read(whole).table()
    assert table.groupby("steps")["status"].agg(lambda cells: (cells == "ok").sum()).to_dict() == {
        1: 6, 2: 8, 3: 8,
    }  # fmt: skip
    batches: dict[int, set[int]] = {}
    for cell in Store(whole).cells.read():
        late = cell["cell"]["prompt"] in records[1]["prompts"]
        batches.setdefault(cell["batch"], set()).add(late)
    assert all(len(rounds) == 1 for rounds in batches.values())


@pytest.mark.slow
def test_a_look_sees_the_cells_of_its_rounds_alone(tmp_path):
    loop.run(SWEEP, tmp_path)  # all that the race would make is there
    _, judge = raced(tmp_path, [{1, 2}, {1, 3}], [{2, 3}])
    assert [len(table) for table, *_ in judge.seen] == [18, 22]
    table = judge.seen[1][0]
    assert (table["steps"] == 1).sum() == 6
    assert set(rk.read(tmp_path).table()["status"]) == {"ok"}  # a plain run asked for the rest


@pytest.mark.slow
def test_a_finished_race_does_nothing_again_and_a_run_without_it_makes_the_rest(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    rows = (folder / "rows.jsonl").read_bytes()
    again, judge = raced(folder)
    assert not judge.seen and (folder / "rows.jsonl").read_bytes() == rows
    assert again.table()["status"].value_counts().to_dict() == {"ok": 22, "skipped": 2}
    assert rk.run(SWEEP, folder).table()["status"].tolist() == ["ok"] * 24
    assert rk.read(folder).table()["status"].tolist() == ["ok"] * 24
    assert raced(folder)[0].table()["status"].tolist() == ["ok"] * 24


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 19])  # pictures made: in the first round, in the second
def test_a_stopped_race_goes_on_and_equals_an_undisturbed_one(whole, tmp_path, monkeypatch, at):
    put, made = Desk.put, []

    def told(desk, stage, result):
        put(desk, stage, result)
        made.extend(result.job.artifacts if stage == "decode" else ())
        if len(made) > at and stage == "decode":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Desk, "put", told)
        stopped, first = raced(tmp_path, [{1, 2}, {1, 3}], [{2, 3}])
    assert stopped.stopped and "pending" in set(stopped.table()["status"])
    resumed, _ = raced(tmp_path, *([[{1, 2}, {1, 3}], [{2, 3}]][len(first.seen) :]))
    assert not resumed.stopped and decisions(tmp_path) == decisions(whole)
    made = [frame[frame["status"] == "ok"] for frame in map(_told, (tmp_path, whole))]
    pd.testing.assert_frame_equal(*made)


def _told(folder):
    """The table of what was made, without times."""
    table = rk.read(folder).table()
    assert set(table["status"]) == {"ok", "skipped"}
    return table[["cell", "status", "batch", "nfe", "image"]]


@pytest.mark.slow
def test_prompts_that_are_added_continue_a_race_with_what_is_left_of_its_rate(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    prompts = [f"a {word} cube" for word in WORDS]
    run, judge = raced(folder, prompts=prompts)
    assert not judge.seen  # all is decided: what is new is not needed
    assert run.table()["status"].value_counts().to_dict() == {"ok": 22, "skipped": 8}
    other = tmp_path / "other"
    raced(other, [{1, 2}, {1, 3}], [])
    run, judge = raced(other, [], prompts=prompts)
    ((table, contrasts, confidence),) = judge.seen
    assert contrasts == [({"steps": 2}, {"steps": 3})]
    assert 1 - confidence == pytest.approx(0.6 * (0.05 - 2 * 0.015))
    assert len(table) == 6 + 10 + 10 and len(decisions(other)[-1]["prompts"]) == 2
    assert run.table()["status"].value_counts().to_dict() == {"ok": 26, "skipped": 4}


@pytest.mark.slow
def test_a_prompt_that_a_look_saw_cannot_go_and_another_race_is_its_own(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(rk.RequestError, match="which the sweep lacks: put it back, or race in"):
        raced(folder, prompts=SWEEP["prompts"][:7])
    rk.run(SWEEP | {"steps": [2, 3]}, folder, decide="nfe", by="steps")
    assert len(races(Store(folder))) == 2
    assert set(rk.read(folder).table()["status"]) == {"ok", "skipped"}


@pytest.mark.slow
def test_an_arm_whose_cells_all_fail_keeps_no_other_in_the_race(tmp_path, monkeypatch):
    from realkit.models.model import Model

    whole_denoise = Model.denoise

    def fails(self, requests, **more):
        if requests[0].steps == 3:
            raise RuntimeError("no luck")
        return whole_denoise(self, requests, **more)

    monkeypatch.setattr(Model, "denoise", fails)
    run = rk.run(SWEEP, tmp_path, decide="nfe", by="steps")
    counts = run.table().groupby("steps")["status"].value_counts().to_dict()
    assert counts == {
        (1, "ok"): 6, (1, "pending"): 2, (2, "ok"): 6, (2, "pending"): 2,
        (3, "failed"): 6, (3, "pending"): 2,
    }  # fmt: skip


def test_merged_folders_keep_the_looks_of_a_race(whole, tmp_path):
    out, early = tmp_path / "merged", shutil.copytree(whole, tmp_path / "early")
    lines = (early / "decisions.jsonl").read_text().splitlines(keepends=True)
    (early / "decisions.jsonl").write_text(lines[0])
    merge(early, out)
    assert decisions(out) == decisions(whole)[:1]
    merge(whole, out)
    merge(whole, out)
    assert decisions(out) == decisions(whole)
    assert rk.read(out).table()["status"].value_counts().to_dict() == {"ok": 22, "skipped": 2}


HARM = {
    "an arm of another axis": lambda look: look["contrasts"][0].update(a={"sampler": "Euler"}),
    "an unknown verdict": lambda look: look["contrasts"][0].update(verdict="good"),
    "a list for an arm": lambda look: look["contrasts"][0].update(b=["steps"]),
    "a value that is no setting": lambda look: look["contrasts"][0].update(a={"steps": [1]}),
    "no contrasts": lambda look: look.pop("contrasts"),
    "no axis": lambda look: look.update(by=[]),
    "an impossible confidence": lambda look: look.update(confidence=1.5),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_look_is_one_line(whole, tmp_path, harm):
    folder = shutil.copytree(whole, tmp_path / "out")
    looks = [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]
    HARM[harm](looks[1])
    (folder / "decisions.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    with pytest.raises(rk.RequestError, match=r"decisions\.jsonl line 2 is damaged") as caught:
        rk.read(folder).table()
    assert "\n" not in str(caught.value)
