"""Several results folders as one table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import realkit as rk
from realkit.runs.combine import merge


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_table_is_that_of_the_merged_folder(halves, tmp_path):
    shutil.copytree(halves[0], tmp_path / "out")
    merge(halves[1], tmp_path / "out")
    merged, table = rk.read(tmp_path / "out").table(), rk.read([*halves]).table()
    assert list(table["folder"]) == [str(halves[0])] * 2 + [str(halves[1])] * 3
    images = [rk.read([*halves]).folder / image for image in table["image"]]
    assert all(image.is_file() for image in images)
    left_out = {"image", "folder"}
    assert list(merged.columns) == [name for name in table if name != "folder"]
    for name in merged.columns.difference(left_out):
        pd.testing.assert_series_equal(table[name], merged[name])
    assert rk.read([halves[0], str(halves[0])]).table().shape == (2, len(table.columns))
    assert rk.compare(table, by="upscaler", metric="colour-cast")["n_pairs"].item() == 2
    assert rk.plots.grid(table, rows="seed", cols="upscaler") is not None


def test_a_cell_is_whole_where_one_folder_lacks_what_the_other_has(halves, tmp_path):
    """A failed score and a lost picture give way to those that the second folder has."""
    first = tmp_path / "first"
    shutil.copytree(halves[0], first)
    rows = [json.loads(line) for line in (first / "rows.jsonl").read_text().splitlines()]
    shared = set(rk.read(first).table()["cell"]) & set(rk.read(halves[1]).table()["cell"])
    cells = [json.loads(line) for line in (first / "cells.jsonl").read_text().splitlines()]
    (image,) = [cell["ids"]["image"] for cell in cells if cell["id"] in shared]
    (score,) = [row for row in rows if row["stage"] == "score" and row["parent"] == image]
    failed = score | {"status": "failed", "error": "gone", "error_type": "X"}
    with (first / "rows.jsonl").open("a") as file:
        file.write(json.dumps(failed) + "\n")
    (first / "images" / f"{image}.png").unlink()
    table = rk.read([first, halves[1]]).table().set_index("cell")
    assert (table["status"] == "ok").all() and table["colour-cast"].notna().all()
    assert rk.read(first).table().set_index("cell").loc[list(shared), "status"].item() == "failed"
    assert table.loc[list(shared), "folder"].item() == str(halves[1])


def test_other_scorers_are_columns_of_their_own(halves, finished):
    table = rk.read([halves[0], finished.folder]).table()
    assert list(table["rehearsal/clip"].notna()) == [False] * 2 + [True] * 8
    assert (table["status"] == "ok").all() and table["colour-cast"].notna().all()


def test_a_name_that_means_other_files_is_refused_and_other_versions_are_said(halves, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(halves[1], other)
    versions = json.loads((other / "runs.jsonl").read_text().splitlines()[0])["versions"]
    edited(other / "runs.jsonl", f'"torch": "{versions["torch"]}"', '"torch": "2.0"')
    with pytest.warns(RuntimeWarning, match=r"other versions than .* \(torch .* → 2\.0\)"):
        assert len(rk.read([halves[0], other]).table()) == 5
    lock = json.loads((other / "sweep.lock.json").read_text())
    first = next(iter(lock["models"].values()))["main"]["files"]
    assert first
    text = (other / "sweep.lock.json").read_text()
    for file in first.values():
        digest = file["sha256"] if isinstance(file, dict) else file
        text = text.replace(digest, digest[::-1])
    (other / "sweep.lock.json").write_text(text)
    with pytest.raises(rk.RequestError, match=r"means other files in .*: read it by itself"):
        rk.read([halves[0], other])


@pytest.mark.parametrize(
    ("folders", "says"),
    [([], "expected a results folder"), ([7], "7 is no path"), (["nowhere"], "no cells.jsonl")],
)
def test_what_is_no_list_of_folders_is_one_line(folders, says):
    with pytest.raises(rk.RequestError, match=says):
        rk.read(folders)


def test_nothing_is_written(halves):
    run = rk.read([*halves])
    for write in (
        lambda: run.prune_latents(),
        lambda: run.store.add_votes([{"a": "x"}]),
        lambda: run.store.write_text("a", "b"),
        lambda: run.store.runs.append([]),
    ):
        with pytest.raises(rk.RequestError):
            write()


def test_torch_is_not_loaded(halves):
    code = (
        "import sys, realkit as rk; rk.read(sys.argv[1:]).table();"
        " print([name for name in ('torch', 'diffusers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *map(str, halves)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
