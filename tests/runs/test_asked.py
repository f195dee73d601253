"""`ok` is all that was asked for: by a run, in a folder, and in folders of before."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.apps.cli.main import main
from realkit.runs import asked
from realkit.runs.combine import merge
from realkit.runs.store import Store
from realkit.runs.writer import Desk
from tests.conftest import SMALL
from tests.cuts import thinned

OLD = Path(__file__).parents[1] / "data" / "folder-1"
CHEAP = {
    "models": "rehearsal/base", "samplers": "Euler", "prompts": "a red cube", "seeds": 2,
    "steps": 1, "size": 64, "guidance": 1, "scorers": ["colour-cast", "cast-green-red"],
}  # fmt: skip


@pytest.fixture
def cheap(tmp_path):
    rk.run(CHEAP, tmp_path / "out")
    return tmp_path / "out"


def without(folder: Path, drop) -> None:
    """Remove rows from a folder's rows.jsonl."""
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if not drop(row)))


def test_a_lost_score_is_missing_and_is_made_again(cheap):
    store = Store(cheap)
    image = store.cells.read()[0]["ids"]["image"]
    without(cheap, lambda row: row.get("scorer") == "colour-cast" and row["parent"] == image)
    table = rk.read(cheap).table()
    assert table["status"].tolist() == ["pending", "ok"]
    assert table["missing"].tolist()[0] == "score colour-cast"
    assert table["missing"].isna().tolist() == [False, True]
    rows = len(store.rows.read())
    assert rk.run(CHEAP, cheap).table()["status"].tolist() == ["ok", "ok"]
    assert [row["stage"] for row in store.rows.read()[rows:]] == ["score"]


def test_a_folder_without_a_single_score_is_pending(cheap):
    without(cheap, lambda row: row["stage"] == "score")
    table = rk.read(cheap).table()
    assert set(table["status"]) == {"pending"}
    assert set(table["missing"]) == {"score cast-green-red, score colour-cast"}


def test_missing_names_every_stage_in_its_order(cheap):
    without(cheap, lambda row: row["stage"] in ("decode", "score"))
    assert rk.read(cheap).table()["missing"][0].split(", ")[0] == "decode"
    without(cheap, lambda row: True)
    assert rk.read(cheap).table()["missing"][0].split(", ")[:2] == ["denoise", "decode"]


def test_a_picture_whose_file_is_gone_is_not_ok(cheap):
    (cheap / rk.read(cheap).table()["image"][1]).unlink()
    table = rk.read(cheap).table()
    assert table["status"].tolist() == ["ok", "pending"]
    assert table["missing"][1] == "the picture's file" and table["image"].isna()[1]


def test_a_scorer_of_a_later_run_leaves_the_cells_of_others_ok(cheap):
    later = CHEAP | {"seeds": [7], "scorers": ["rehearsal/clip"]}
    assert rk.run(later, cheap).table()["status"].tolist() == ["ok"]
    table = rk.read(cheap).table()
    assert table["status"].tolist() == ["ok"] * 3
    without(cheap, lambda row: row.get("scorer") == "rehearsal/clip")
    assert rk.read(cheap).table()["status"].tolist() == ["ok", "ok", "pending"]


def test_a_score_that_only_an_earlier_run_asked_for_counts_in_the_folder_not_in_the_run(cheap):
    without(cheap, lambda row: row.get("scorer") == "colour-cast")
    run = rk.run(CHEAP | {"scorers": ["cast-green-red"]}, cheap)
    assert run.table()["status"].tolist() == ["ok", "ok"] and run.table()["missing"].isna().all()
    assert rk.read(cheap).table()["status"].tolist() == ["pending", "pending"]


@pytest.mark.parametrize("stage", thinned(["denoise", "decode", "upscale", "score"], ["score"]))
def test_a_stop_in_any_stage_is_pending_with_exit_code_1_and_finishes(tmp_path, monkeypatch, stage):
    sweep, out, put = tmp_path / "sweep.yaml", tmp_path / "out", Desk.put
    sweep.write_text(rk.Sweep(**CHEAP | {"upscalers": "lanczos", "target": 96}).to_yaml())

    def told(desk, name, result):
        put(desk, name, result)
        if name == stage:
            os.kill(os.getpid(), signal.SIGTERM)

    command = ["run", str(sweep), "--out", str(out), "--batch", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "put", told)
        stopped = CliRunner().invoke(main, command)
    assert stopped.exit_code == 1, stopped.output
    table = rk.read(out).table()
    assert "pending" in set(table["status"]) and table["missing"].notna().any()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and "2 cells ok" in again.output, again.output


def test_a_folder_of_before_is_judged_by_its_sweep_and_its_rows(tmp_path):
    folder = shutil.copytree(OLD, tmp_path / "old")
    assert set(rk.read(folder).table()["status"]) == {"ok"}
    last = rk.Sweep.from_yaml(folder / "sweep.yaml")
    shown = asked.of_folder(Store(folder))
    of_sweep = [cell for cell, scorers in shown.items() if scorers >= set(last.scorers)]
    assert last.scorers and of_sweep
    without(folder, lambda row: row.get("scorer") == last.scorers[0])
    statuses = rk.read(folder).table().set_index("cell")["status"]
    assert {statuses[cell] for cell in of_sweep} >= {"pending"}


def test_merged_folders_ask_for_what_each_was_asked_for(cheap, tmp_path):
    rk.run(CHEAP | {"seeds": [9], "scorers": ["rehearsal/clip"]}, tmp_path / "other")
    before = rk.read(tmp_path / "other").table()
    merge(cheap, tmp_path / "other")
    runs = (tmp_path / "other" / "runs.jsonl").read_bytes()
    table = rk.read(tmp_path / "other").table()
    assert table["status"].tolist() == ["ok"] * 3 and len(before) == 1
    without(tmp_path / "other", lambda row: row.get("scorer") == "colour-cast")
    assert rk.read(tmp_path / "other").table()["status"].tolist().count("pending") == 2
    merge(cheap, tmp_path / "other")
    assert (tmp_path / "other" / "runs.jsonl").read_bytes() == runs
    assert rk.read(tmp_path / "other").table()["status"].tolist() == ["ok"] * 3


def test_a_run_says_what_it_was_asked_for_before_it_works(cheap):
    record = Store(cheap).asked()[0]
    ids = [cell["id"] for cell in Store(cheap).cells.read()]
    assert record["asked"] == {"cells": ids, "scorers": ["colour-cast", "cast-green-red"]}
    assert record["format"] == 2 and record["versions"]


def test_versions_of_a_run_that_made_nothing_bind_nobody(cheap):
    store = Store(cheap)
    nothing = store.machines()[0] | {"run": "none", "versions": {"torch": "0.1"}}
    store.runs.append([nothing])
    lines = store.runs.path.read_bytes().splitlines(keepends=True)
    store.runs.path.write_bytes(b"".join([lines[-1], *lines[:-1]]))
    assert rk.run(CHEAP, cheap).table()["status"].tolist() == ["ok", "ok"]


def test_of_small_every_cell_has_all_it_was_asked_for(finished):
    table = finished.table()
    assert set(table["status"]) == {"ok"} and table["missing"].isna().all()
    assert table[SMALL["scorers"]].notna().all().all()


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_a_lost_row_of_any_stage_is_made_again(cheap, stage):
    without(cheap, lambda row: row["stage"] == stage)
    assert set(rk.read(cheap).table()["status"]) == {"pending"}
    assert rk.run(CHEAP, cheap).table()["status"].tolist() == ["ok", "ok"]


def test_a_score_of_another_picture_is_no_score_of_this_one(cheap):
    path = cheap / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    scores = [row for row in rows if row.get("scorer") == "colour-cast"]
    right = rk.read(cheap).table()["colour-cast"].tolist()
    scores[0]["parent"] = scores[1]["parent"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = rk.run(CHEAP, cheap).table()
    assert again["status"].tolist() == ["ok", "ok"] and again["colour-cast"].tolist() == right


def test_an_emptied_picture_is_not_ok(cheap):
    (cheap / rk.read(cheap).table()["image"][0]).write_bytes(b"")
    assert rk.read(cheap).table()["status"].tolist() == ["pending", "ok"]
