import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from PIL import Image

import realkit as rk
from realkit.models import loading, provenance
from tests.conftest import SMALL

TIMES = [
    "load_s",
    "encode_s",
    "denoise_s",
    "decode_s",
    "upscale_s",
    "score_s",
    "seconds",
    "run",
    "peak_ram_gib",
]


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a finished run of SMALL, to be changed."""
    return shutil.copytree(finished.folder, tmp_path / "copied")


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a.drop(columns=TIMES), b.drop(columns=TIMES), check_exact=True)


def test_a_run_leaves_what_the_contract_names(finished):
    assert {
        "sweep.yaml",
        "sweep.lock.json",
        "cells.jsonl",
        "runs.jsonl",
        "rows.jsonl",
        "images",
        "latents",
        "table.parquet",
        "table.csv",
    } <= set({path.name for path in finished.folder.iterdir()})
    df = finished.table()
    assert len(df) == 8 and set(df["status"]) == {"ok"}
    assert (df[["denoise_s", "decode_s", "encode_s", "load_s", "seconds", "score_s"]] > 0).all(
        axis=None
    )
    assert set(df["batch"]) == {4} and set(df["nfe"]) == {3} and set(df["network_passes"]) == {6}
    stored = pd.read_parquet(finished.folder / "table.parquet")
    assert stored["rehearsal/clip"].tolist() == df["rehearsal/clip"].tolist()


def test_nothing_is_made_twice(finished):
    before = (finished.folder / "rows.jsonl").read_bytes()
    rk.run(rk.Sweep(**SMALL), finished.folder)
    assert (finished.folder / "rows.jsonl").read_bytes() == before


def test_a_later_score_and_upscaler_denoise_nothing(copied):
    count = len(rk.read(copied).store.rows.read())
    rk.run(
        rk.Sweep(
            **SMALL
            | {"upscalers": ["lanczos", "bicubic"], "target": 200, "scorers": ["cast-green-red"]}
        ),
        copied,
    )
    new = rk.read(copied).store.rows.read()[count:]
    assert {row["stage"] for row in new} == {"upscale", "score"}
    df = rk.read(copied).table()
    assert len(df) == 24 and set(df["status"]) == {"ok"}
    assert set(df.loc[df["upscaler"].notna(), "image_width"]) == {200}


def test_an_extended_sweep_leaves_done_batches_alone_and_equals_paired_cells(tmp_path, finished):
    rk.run(rk.Sweep(**SMALL | {"seeds": 1}), tmp_path)
    before = rk.read(tmp_path).store.last_rows()
    rk.run(rk.Sweep(**SMALL), tmp_path)
    after = rk.read(tmp_path).store.last_rows()
    assert {k: after[k] for k in before} == before
    a = rk.read(tmp_path).table().set_index("cell")
    b = finished.table().set_index("cell").loc[a.index]
    assert (a["rehearsal/clip"] - b["rehearsal/clip"]).abs().max() < 0.2


def test_a_torn_last_line_heals(copied):
    whole = rk.read(copied).table()
    rows = copied / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-40])
    torn = rk.read(copied).table()  # a score was the last to be written
    assert list(torn["status"]).count("pending") == 1 and "score " in torn["missing"].max()
    rk.run(rk.Sweep(**SMALL), copied)
    same(rk.read(copied).table(), whole)
    assert all(json.loads(line) for line in rows.read_text().splitlines())


def test_a_lost_picture_is_made_again_the_same(copied):
    picture = copied / rk.read(copied).table()["image"][0]
    pixels = provenance.pixel_hash(Image.open(picture))
    picture.unlink()
    rk.run(rk.Sweep(**SMALL), copied)
    assert provenance.pixel_hash(Image.open(picture)) == pixels


def test_a_damaged_line_in_the_middle_is_named(copied):
    rows = copied / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text(lines[0] + "oops\n" + "".join(lines[1:]))
    with pytest.raises(rk.RequestError, match=r"rows\.jsonl line 2 is damaged"):
        rk.run(rk.Sweep(**SMALL), copied)


def test_a_second_writer_is_refused(tmp_path):
    with (
        rk.Run(tmp_path).store.writing(),
        pytest.raises(rk.RequestError, match="Another run is writing"),
    ):
        rk.run(rk.Sweep(**SMALL), tmp_path)


def test_other_versions_stop_a_resumed_run(copied):
    runs = copied / "runs.jsonl"
    first = json.loads(runs.read_text().splitlines()[0])
    first["versions"]["diffusers"] = "0.1"
    runs.write_text(json.dumps(first) + "\n")
    with pytest.raises(rk.RequestError, match=r"other versions \(diffusers 0\.1"):
        rk.run(rk.Sweep(**SMALL), copied)


def test_a_failure_is_a_row_and_the_rest_goes_on(tmp_path, monkeypatch):
    from realkit.models.model import Model

    whole = Model.denoise

    def fails_on_euler_a(self, requests, **more):
        if requests[0].sampler == "Euler a":
            raise RuntimeError("no luck\nat all")
        return whole(self, requests, **more)

    monkeypatch.setattr(Model, "denoise", fails_on_euler_a)
    done = rk.run(rk.Sweep(**SMALL), tmp_path)
    df = done.table()
    assert done.failed == 4 and set(df.loc[df["sampler"] == "Euler", "status"]) == {"ok"}
    assert set(df.loc[df["sampler"] == "Euler a", "error"]) == {
        "denoise: RuntimeError: no luck at all"
    }
    monkeypatch.undo()
    assert rk.run(rk.Sweep(**SMALL), tmp_path).failed == 0


def test_latents_that_are_not_finite_are_a_failed_row(tmp_path, monkeypatch):
    from realkit.models.model import Model

    whole = Model.denoise

    def with_nan(self, requests, *rest, **more):
        made = whole(self, requests, *rest, **more)
        made.latents = made.latents.clone()
        made.latents[1] = float("nan")
        return made

    monkeypatch.setattr(Model, "denoise", with_nan)
    df = rk.run(rk.Sweep(**SMALL), tmp_path).table()
    assert (df["status"] == "failed").sum() == 2 and df["error"].dropna().str.contains(
        "not finite"
    ).all()


def test_a_run_shows_its_own_cells_and_a_folder_all(copied):
    other = rk.run(rk.Sweep(**SMALL | {"scorers": [], "steps": 2}), copied)
    assert set(other.table()["steps"]) == {2} and len(other.table()) == 8
    assert len(rk.read(copied).table()) == 16 == len(pd.read_parquet(copied / "table.parquet"))


def test_a_scorer_that_failed_counts_only_while_it_is_asked_for(tmp_path, monkeypatch):
    one = SMALL | {"samplers": "Euler", "seeds": 1, "prompts": "a red cube"}
    failing = rk.run(rk.Sweep(**one | {"scorers": ["clip"]}), tmp_path)
    assert set(failing.table()["status"]) == {"failed"} and failing.table()["image"].notna().all()
    done = rk.run(rk.Sweep(**one | {"scorers": ["rehearsal/clip"]}), tmp_path)
    assert set(done.table()["status"]) == {"ok"} and "clip" not in done.table()


@pytest.mark.parametrize("kind", ["latents", "images"])
def test_a_damaged_artifact_is_named_and_made_anew(tmp_path, kind):
    one = SMALL | {"samplers": "Euler", "seeds": 1, "prompts": "a red cube"}
    whole = rk.run(rk.Sweep(**one), tmp_path).table()
    if kind == "latents":
        (tmp_path / whole["image"][0]).unlink()
    (damaged,) = (
        (tmp_path / kind).iterdir() if kind == "latents" else [tmp_path / whole["image"][0]]
    )
    if kind == "latents":
        safetensors.numpy.save_file({"others": np.zeros(3)}, damaged)
    else:
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        damaged.write_bytes(data)
    changed = one if kind == "latents" else one | {"scorers": ["cast-green-red"]}
    broken = rk.run(rk.Sweep(**changed), tmp_path).table()
    assert "was damaged and is removed: run again" in broken["error"][0]
    again = rk.run(rk.Sweep(**changed), tmp_path).table()
    assert set(again["status"]) == {"ok"}


def test_what_comes_before_a_picture_that_is_there_is_not_made_again(copied):
    for latents in (copied / "latents").iterdir():
        latents.unlink()
    rows = len(rk.read(copied).store.rows.read())
    rk.run(rk.Sweep(**SMALL | {"scorers": ["cast-green-red"]}), copied)
    assert {row["stage"] for row in rk.read(copied).store.rows.read()[rows:]} == {"score"}


def test_a_damaged_lock_is_named(tmp_path):
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"id_version": 1}',
        '{"id_version": 1, "models": {"rehearsal/base": {}}}',
    ):
        (tmp_path / "sweep.lock.json").write_text(text)
        with pytest.raises(rk.RequestError, match=r"sweep\.lock\.json.* is damaged"):
            rk.run(rk.Sweep(**SMALL), tmp_path)


def test_weights_that_changed_after_the_lock_are_refused(tmp_path, base):
    base.pipe.save_pretrained(tmp_path / "mine")
    one = SMALL | {
        "models": str(tmp_path / "mine"),
        "samplers": "Euler",
        "prompts": "a red cube",
        "scorers": [],
    }
    rk.run(rk.Sweep(**one | {"seeds": 1}), tmp_path / "out")
    studio = rk.load("rehearsal/studio").pipe.unet
    studio.save_pretrained(tmp_path / "mine" / "unet")
    with pytest.raises(rk.RequestError, match="changed since"):
        rk.run(rk.Sweep(**one | {"seeds": 2}), tmp_path / "out")


def test_batches_are_even_and_hold_one_setting(tmp_path):
    rk.run(rk.Sweep(**SMALL | {"seeds": 6, "samplers": "Euler", "steps": 1}), tmp_path, batch=8)
    assert set(rk.read(tmp_path).table()["batch"]) == {6}


def test_the_picture_says_what_it_is(finished):
    df = finished.table()
    with Image.open(finished.folder / df["image"][0]) as image:
        text = image.text["parameters"]
    settings = (
        "Steps: 3, Sampler: Euler, Schedule type: Uniform, CFG scale: 3, Seed: 0, Size: 64x64,"
        " Model: rehearsal/base"
    )
    assert text.startswith(SMALL["prompts"][0]) and settings in text
    made = provenance.record(finished.folder / df["image"][0])["made"]
    assert made["batch"] == df["batch"][0] == 4 and made["device"] == "cpu"
    assert made["versions"] == finished.store.machines()[0]["versions"]
    record = provenance.record(finished.folder / df["image"][0])
    assert record["cell"]["prompt"] == SMALL["prompts"][0] and record["run"] == df["run"][0]


KILLED = """
import os, sys, realkit as rk
from tests.conftest import SMALL
sweep = rk.Sweep(**SMALL | {"upscalers": [None, "bicubic"], "target": 256, "steps": 8})
rk.run(sweep, sys.argv[1], batch=2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_table(tmp_path):
    def start(folder):
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": "."},
        )

    assert start(tmp_path / "whole").wait() == 0
    rng = np.random.default_rng(0)
    for _ in range(8):
        run = start(tmp_path / "killed")
        rows = tmp_path / "killed" / "rows.jsonl"
        size = rows.stat().st_size if rows.exists() else 0
        while run.poll() is None and not (rows.exists() and rows.stat().st_size > size):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert start(tmp_path / "killed").wait() == 0
    same(rk.read(tmp_path / "killed").table(), rk.read(tmp_path / "whole").table())
    denoised = [
        row["id"]
        for row in rk.read(tmp_path / "killed").store.rows.read()
        if row["stage"] == "denoise"
    ]
    assert len(denoised) <= 8 + 2 * 8  # each kill repeats at most the batch in flight
    assert not list((tmp_path / "killed").glob("**/.part-*"))


def test_each_tool_is_loaded_once_and_a_shared_vae_too(tmp_path, monkeypatch):

    loaded = []
    for name in ("load", "load_decoder"):
        whole = getattr(loading, name)
        monkeypatch.setattr(
            loading,
            name,
            lambda *given, whole=whole, name=name, **more: (
                loaded.append(name),
                whole(*given, **more),
            )[1],
        )
    rk.run(rk.Sweep(**SMALL | {"models": ["rehearsal/base", "rehearsal/studio"]}), tmp_path)
    assert loaded == ["load", "load", "load_decoder"]
    assert set(rk.read(tmp_path).table()["status"]) == {"ok"}


@pytest.mark.slow
def test_a_run_on_a_finished_folder_loads_no_torch_and_records_what_was_asked(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    before = len((folder / "runs.jsonl").read_text().splitlines())
    code = (
        "import json, sys, realkit as rk\n"
        "run = rk.run(rk.Sweep.from_yaml(sys.argv[1]), sys.argv[2])\n"
        "print(set(run.table()['status']), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder / "sweep.yaml"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'ok'} False"
    records = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert len(records) == before + 1 and records[-1]["asked"] == records[0]["asked"]
    first = next(folder.glob("images/*.png"))
    first.unlink()  # what is lost is made again, with an engine
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'ok'} True" and first.exists()
    records[0]["versions"]["torch"] = "1.0"
    (folder / "runs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = subprocess.run(command, capture_output=True, text=True)
    assert "was made with" in done.stderr and "torch 1.0" in done.stderr
