"""Joules from the stages to the table and its verdicts, by a counter of a constant power in NVML's
place."""

import json
import time

import pytest

import realkit as rk
from realkit.base import energy

WATTS = 50
PARTS = ["denoise_j", "decode_j", "upscale_j"]


def run(folder, **axes):
    base = {"models": "rehearsal/base", "prompts": ["a red cube", "a blue cone"]}
    axes = base | {"steps": 2, "size": 64} | axes
    return rk.run(axes, folder).table()


@pytest.fixture
def counter(monkeypatch):
    monkeypatch.setattr(energy, "LEAST_S", 0.0)
    monkeypatch.setattr(
        energy, "millijoules", lambda device: int(1000 * WATTS * time.perf_counter())
    )


def test_every_timed_stage_has_its_joules_and_a_picture_their_sum(tmp_path, counter):
    df = run(tmp_path, upscalers=[None, "lanczos"], target=128)
    native, large = df[df["upscaler"].isna()], df[df["upscaler"].notna()]
    assert len(native) == len(large) == 2
    for name in PARTS:
        seconds = large[name.replace("_j", "_s")]
        assert ((large[name] / seconds - WATTS).abs() < 0.2 * WATTS).all()
    assert native["upscale_j"].isna().all()
    assert (native["joules"] - native[PARTS[:2]].sum(axis=1)).abs().max() < 1e-9
    assert (large["joules"] - large[PARTS].sum(axis=1)).abs().max() < 1e-9


def test_a_cell_of_two_legs_has_the_joules_of_both_or_none(tmp_path, counter):
    df = run(tmp_path, models="rehearsal/xl+refiner", prompts="a red cube")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    legs = [row["denoise_j"] for row in rows if row["stage"] in ("denoise", "refine")]
    assert len(legs) == 2 and df["denoise_j"][0] == pytest.approx(sum(legs))
    del next(row for row in rows if row["stage"] == "denoise")["denoise_j"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    df = rk.read(tmp_path).table()
    assert df["denoise_j"].isna()[0] and df["joules"].isna()[0] and df["denoise_s"][0] > 0


def test_a_cpu_records_no_joules(tmp_path):
    df = run(tmp_path, prompts="a red cube")
    assert df[[*PARTS, "joules"]].isna().all(axis=None)
    assert '_j"' not in (tmp_path / "rows.jsonl").read_text()
