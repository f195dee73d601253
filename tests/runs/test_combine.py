"""One results folder merged into another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.runs.combine import merge
from tests.runs.conftest import SWEEP


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_that_is_not_there_becomes_the_same(halves, tmp_path):
    (halves[1] / "grid.png").write_bytes(b"plot")
    try:
        assert merge(halves[1], tmp_path / "new" / "out") == len(lines(halves[1] / "rows.jsonl"))
        merged = tmp_path / "new" / "out"
        assert (
            rk.read(merged).table().equals(rk.read(halves[1]).table())
            and (merged / "grid.png").read_bytes() == b"plot"
        )
    finally:
        (halves[1] / "grid.png").unlink()
    for name in ("cells.jsonl", "runs.jsonl"):
        assert lines(merged / name) == lines(halves[1] / name)
    assert (merged / "sweep.yaml").read_text() == (halves[1] / "sweep.yaml").read_text()
    assert {path.name for path in merged.iterdir()} - {".lock", "grid.png"} == {
        path.name for path in halves[1].iterdir()
    } - {".lock"}


def test_both_are_there_once_and_the_first_stays_as_it_was(halves, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(halves[0], out)
    merge(halves[1], out)
    table, cells = rk.read(out).table(), lines(out / "cells.jsonl")
    assert len(table) == 5 and (table.status == "ok").all() and table["colour-cast"].notna().all()
    ids = [row["id"] for row in lines(out / "rows.jsonl")]
    assert len(ids) == len(set(ids)) and cells[:2] == lines(halves[0] / "cells.jsonl")
    batches = {
        seed: {line["batch"] for line in cells if line["cell"]["seed"] == seed}
        for seed in (0, 1, 2)
    }
    assert (
        batches[0] == batches[1] and not batches[2] & batches[0]
    )  # seed 1 keeps the batch that it was made in here
    assert set(json.loads((out / "sweep.lock.json").read_text())["upscalers"]) == {"lanczos"}
    before = {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.suffix in (".jsonl", ".json", ".csv")
    }
    assert merge(halves[1], out) == 0 and before == {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.suffix in (".jsonl", ".json", ".csv")
    }
    run = rk.run(
        SWEEP | {"seeds": 3, "upscalers": [None, "lanczos"], "target": 200}, out
    )  # goes on with both
    assert [row["stage"] for row in lines(out / "rows.jsonl")[len(ids) :]] == [
        "upscale",
        "score",
    ] and (run.table().status == "ok").all()


def test_failed_rows_come_too_but_displace_nothing(halves, tmp_path):
    failing = tmp_path / "failing"
    shutil.copytree(halves[1], failing)
    last = lines(failing / "rows.jsonl")[-1]
    with (failing / "rows.jsonl").open("a") as file:
        file.write(
            json.dumps(last | {"status": "failed", "error": "gone", "error_type": "X"}) + "\n"
        )
    merge(failing, tmp_path / "new")
    assert rk.read(tmp_path / "new").failed == 1 and list(
        rk.read(tmp_path / "new").table().error.dropna()
    ) == ["score: X: gone"]
    shutil.copytree(halves[1], tmp_path / "out")
    assert merge(failing, tmp_path / "out") == 0 and rk.read(tmp_path / "out").failed == 0
    merge(halves[1], tmp_path / "new")  # and give way to what was made after all
    assert rk.read(tmp_path / "new").failed == 0


def test_damaged_pictures_are_not_taken(halves, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(halves[0], damaged)
    pictures = sorted((damaged / "images").iterdir())
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(pictures[0])
    (damaged / "latents" / next((damaged / "latents").iterdir()).name).write_bytes(
        b"<html>gone</html>"
    )
    merge(damaged, tmp_path / "out")
    assert not (tmp_path / "out" / "images" / pictures[0].name).exists()
    assert sorted(rk.read(tmp_path / "out").table().status) == ["ok", "pending"]
    rk.run(SWEEP, tmp_path / "out")
    assert set(rk.read(tmp_path / "out").table().status) == {"ok"}


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (
            "sweep.lock.json",
            lambda lock: lock["models"]["rehearsal/base"]["main"]["files"].update(
                {"x.safetensors": "0" * 64}
            ),
            "'rehearsal/base' means other files",
        ),
        ("sweep.lock.json", lambda lock: lock.update(id_version=999), "id version 999"),
        ("sweep.lock.json", lambda lock: lock.pop("id_version"), "is damaged"),
        ("runs.jsonl", lambda run: run.update(versions={"torch": "0.1"}), "other versions"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_is_written(
    halves, tmp_path, file, change, says
):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(halves[0], out)
    shutil.copytree(halves[1], other)
    data = json.loads(
        (other / file).read_text().splitlines()[0]
        if file.endswith("l")
        else (other / file).read_text()
    )
    change(data)
    (other / file).write_text(json.dumps(data) + "\n")
    before = {
        path: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    with pytest.raises(rk.RequestError, match=says) as error:
        merge(other, out)
    assert "\n" not in str(error.value)
    assert before == {
        path: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_what_is_no_results_folder_is_refused(tmp_path, halves):
    with pytest.raises(rk.RequestError, match="no such folder"):
        merge(tmp_path / "none", tmp_path / "out")
    with pytest.raises(rk.RequestError, match="unzip it"):
        merge(shutil.make_archive(str(tmp_path / "packed"), "zip", halves[0]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
