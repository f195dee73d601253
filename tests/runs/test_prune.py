"""What pruning deletes, and what a run makes afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import realkit as rk
from realkit.runs.store import Store
from tests.runs.conftest import SWEEP


@pytest.fixture
def folder(halves, tmp_path):
    """Two seeds with an upscaled picture each."""
    shutil.copytree(halves[1], tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_latents_go_and_nothing_else(folder):
    before, table = contents(folder), rk.read(folder).table()
    dry = rk.read(folder).prune_latents(dry_run=True)
    assert contents(folder) == before and dry.deleted == 2
    pruned = rk.read(folder).prune_latents()
    latents = {name: data for name, data in before.items() if name.startswith("latents/")}
    left = {name: data for name, data in before.items() if name not in latents}
    assert contents(folder) == left and rk.read(folder).table().equals(table)
    assert (pruned.deleted, pruned.kept) == (len(latents), 0) == (dry.deleted, dry.kept)
    assert pruned.bytes == sum(map(len, latents.values())) == dry.bytes
    rows = Store(folder).ok_rows().values()
    times = [row["denoise_s"] for row in rows if row["stage"] == "denoise"]
    assert pruned.denoise_s == pytest.approx(sum(times))
    assert rk.read(folder).prune_latents().deleted == 0


def test_a_finished_run_makes_nothing_again_and_a_new_score_needs_no_latents(folder):
    rk.read(folder).prune_latents()
    sweep = SWEEP | {"seeds": [1, 2], "upscalers": [None, "lanczos"], "target": 200}
    rows = (folder / "rows.jsonl").read_text().splitlines()
    assert (rk.run(sweep, folder).table()["status"] == "ok").all()
    assert (folder / "rows.jsonl").read_text().splitlines() == rows
    run = rk.run(sweep | {"scorers": ["colour-cast", "sharpness"]}, folder)
    assert (run.table()["status"] == "ok").all() and not list((folder / "latents").iterdir())
    stages = [row["stage"] for row in Store(folder).rows.read()[len(rows) :]]
    assert set(stages) == {"score"}


def test_a_cell_without_its_picture_keeps_its_latents_and_is_finished(folder):
    ids = [record["ids"] for record in Store(folder).cells.read()]
    waiting = ids[0]["latents"]
    for picture in {own[name] for own in ids for name in ("decoded", "image")}:
        if any(own["latents"] == waiting and picture in own.values() for own in ids):
            (folder / "images" / f"{picture}.png").unlink()
    pruned = rk.read(folder).prune_latents()
    assert (pruned.deleted, pruned.kept) == (1, 1) and "1 stay" in str(pruned)
    assert [path.stem for path in (folder / "latents").iterdir()] == [waiting]
    count = len(Store(folder).rows.read())
    sweep = SWEEP | {"seeds": [1, 2], "upscalers": [None, "lanczos"], "target": 200}
    assert (rk.run(sweep, folder).table()["status"] == "ok").all()
    assert {row["stage"] for row in Store(folder).rows.read()[count:]} <= {"decode", "upscale"}


def test_latents_of_no_cell_go_once_a_picture_was_made_from_them(folder):
    """As an attached folder leaves them: rows and files, but no plan."""
    (folder / "cells.jsonl").write_text("")
    first, *_ = sorted((folder / "latents").iterdir())
    for row in Store(folder).rows.read():
        if row["stage"] == "decode" and row["parent"] == first.stem:
            (folder / "images" / f"{row['id']}.png").unlink()
    shutil.copy(first, folder / "latents" / "mine.safetensors")
    rk.read(folder).prune_latents()
    assert {path.name for path in (folder / "latents").iterdir()} == {
        first.name,
        "mine.safetensors",
    }


@pytest.mark.slow
def test_of_two_legs_both_go(tmp_path):
    """Of a batch whose second leg is to be done again, the first legs of all its pictures stay."""
    sweep = SWEEP | {"models": "rehearsal/xl+refiner", "steps": 5, "scorers": []}
    rk.run(sweep, tmp_path)
    store = Store(tmp_path)
    first, second = (record["ids"] for record in store.cells.read())
    for name in (second["image"], second["decoded"]):
        store.path("decode", name).unlink(missing_ok=True)
    store.path("refine", second["latents"]).unlink()
    pruned = rk.read(tmp_path).prune_latents()
    assert (pruned.deleted, pruned.kept) == (1, 2)
    kept = {path.stem for path in (tmp_path / "latents").iterdir()}
    assert kept == {first["begun"], second["begun"]}
    assert (rk.run(sweep, tmp_path).table()["status"] == "ok").all()
    assert rk.read(tmp_path).prune_latents().kept == 0
    assert not list((tmp_path / "latents").iterdir())
