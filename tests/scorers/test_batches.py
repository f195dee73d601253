"""Scorers of many pictures at once: neither the batch nor its order changes a number, and a picture
at fault fails alone."""

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.rehearsal.scenes import render
from realkit.runs.store import Store
from realkit.scorers.engines import ENGINES
from realkit.scorers.score import load_scorer
from realkit.scorers.table import SCORERS
from tests.conftest import SMALL
from tests.scorer_miniatures import PUBLISHED

CAPTIONS = [
    "a photo of a matte red cube on grass at noon",
    "a photo of a shiny blue sphere on sand at dawn",
    "a photo of a matte green cone on a wooden floor at night",
    "",
    "a photo of a shiny purple cylinder on sand at sunset",
]
HERE = {"open_clip", "open_clip_chunks", "open_clip_rank", "lab", "pixels"}
OFFLINE = [name for name, entry in SCORERS.items()
           if entry.engine in HERE and not entry.source.startswith("ViT-")]  # fmt: skip


@pytest.mark.parametrize("name", OFFLINE)
def test_neither_batch_nor_order_changes_a_number(name):
    pictures = [render(caption or CAPTIONS[0], seed) for seed, caption in enumerate(CAPTIONS)]
    pictures[1] = pictures[1].resize((96, 48))
    rate, alone = load_scorer(name), []
    for picture, caption in zip(pictures, CAPTIONS, strict=True):
        alone += rate([picture], [caption])
    together = rate(iter(pictures), CAPTIONS)
    backwards = rate(pictures[::-1], CAPTIONS[::-1])[::-1]
    np.testing.assert_allclose([together, backwards], [alone, alone], atol=1e-4)
    assert all(type(number) is float for number in alone)


def test_every_engine_is_tried():
    """Those of published weights in test_published.py, pyiqa's in test_references.py."""
    elsewhere = {SCORERS[name].engine for name in PUBLISHED} | {"pyiqa"}
    assert {SCORERS[name].engine for name in OFFLINE} == HERE
    assert ENGINES.keys() - elsewhere - {"function", "open_clip_contrast"} == HERE


def test_a_picture_at_fault_fails_alone(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(SCORERS.__dict__, "_entries", dict(SCORERS))

    out = tmp_path / "copied"
    sweep = SMALL | {"samplers": "Euler", "scorers": []}
    made = rk.run(sweep, out, attach=finished.folder).table()
    first = np.asarray(Image.open(out / made.image[0]))

    @rk.scorer(direction="none")
    def fussy(image, prompt):
        if "sphere" in prompt:
            raise ValueError("no spheres")
        return float("nan") if np.array_equal(image, first) else 1.0

    table = rk.run(sweep | {"scorers": ["fussy"]}, out).table()
    spheres = table.prompt.str.contains("sphere")
    assert set(table.error[spheres]) == {"score: ValueError: no spheres"}
    assert "fussy gave nan" in table.error[0] and table.status.tolist().count("ok") == 1
    assert table.fussy.dropna().tolist() == [1.0]


def test_a_damaged_picture_is_removed_and_the_rest_of_its_batch_scored(finished, tmp_path):
    out = tmp_path / "copied"
    rk.run(SMALL | {"scorers": []}, out, attach=finished.folder)
    store = Store(out)
    first = store.cells.read()[0]["ids"]["image"]
    path = store.path("upscale", first)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 40
    data[at : at + 4] = b"\x00\x01\x02\x03"
    path.write_bytes(data)
    table = rk.run(SMALL | {"scorers": ["sharpness"]}, out).table()
    assert not path.exists()
    assert table.status.tolist().count("failed") == 1
    assert "was damaged and is removed" in table.error.dropna().iloc[0]
    again = rk.run(SMALL | {"scorers": ["sharpness"]}, out).table()
    assert set(again.status) == {"ok"}


def test_cells_that_share_a_picture_are_scored_once(tmp_path):
    """Two names of one upscaler, and a negative prompt that has no effect without guidance."""
    sweep = SMALL | dict(
        samplers="Euler", prompts="a blue sphere", seeds=1, guidance=1.0, negatives=["", "a cube"],
        upscalers=["lanczos", "lanczos + lanczos"], target=96, scorers=["sharpness"],
    )  # fmt: skip
    run = rk.run(sweep, tmp_path / "run")
    table = run.table()
    scored = [row["parent"] for row in run.store.rows.read() if row["stage"] == "score"]
    assert len(table) == 4 and set(table.status) == {"ok"} and table.sharpness.notna().all()
    assert len(scored) == len(set(scored)) == table.image.nunique() == 2
