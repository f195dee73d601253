import time

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.catalog.lookup import Table
from realkit.rehearsal.scenes import render
from realkit.scorers.score import determined_score
from realkit.scorers.table import Scorer
from realkit.sweeps import check

CAPTION = "a photo of a matte blue cone on sand at noon"


def test_the_right_caption_scores_higher():
    picture = render(CAPTION, 2_000_000)
    right = rk.score(picture, CAPTION, ["rehearsal/clip"])["rehearsal/clip"]
    for wrong in (
        "matte red cone on sand at noon",
        "matte blue sphere on sand at noon",
        "matte blue cone on grass at noon",
        "matte blue cone on sand at night",
    ):
        assert (
            right > rk.score(picture, f"a photo of a {wrong}", ["rehearsal/clip"])["rehearsal/clip"]
        )


def test_the_colour_cast_is_a_number():
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    teal = Image.new("RGB", (32, 32), (100, 150, 150))
    assert rk.score(grey, "", ["colour-cast"])["colour-cast"] == pytest.approx(0, abs=0.05)
    found = rk.score(teal, "", ["colour-cast", "cast-green-red", "cast-blue-yellow"])
    assert (
        found["colour-cast"] > 10
        and found["cast-green-red"] < -10
        and found["cast-blue-yellow"] < 0
    )
    assert found["colour-cast"] == pytest.approx(
        np.hypot(found["cast-green-red"], found["cast-blue-yellow"])
    )


def test_clip_is_never_silently_another():
    with pytest.raises(
        rk.RequestError, match=r"Scorer 'clip' cannot get its weights \(ViT-L-14-quickgelu:openai\)"
    ):
        rk.score(Image.new("RGB", (8, 8)), "a", ["clip"])


def test_every_scorer_states_what_it_is():
    assert all(
        spec.unit and spec.resize and spec.range[0] < spec.range[1] for spec in rk.SCORERS.values()
    )


def test_a_transparent_picture_is_scored_on_white():
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert rk.score(clear, "", ["colour-cast"])["colour-cast"] == pytest.approx(0, abs=0.05)


def test_what_is_no_picture_and_no_prompt_is_refused():
    with pytest.raises(rk.RequestError, match="expected a PIL image"):
        rk.score("file.png", "a", ["colour-cast"])
    with pytest.raises(rk.RequestError, match="prompt None: expected words"):
        rk.score(Image.new("RGB", (8, 8)), None, ["colour-cast"])


def entry(source, engine="open_clip"):
    return rk.SCORERS["rehearsal/clip"].model_copy(update={"source": source, "engine": engine})


def test_weights_are_told_by_their_contents_wherever_they_lie(tmp_path, weights, monkeypatch):
    import shutil

    shutil.copytree(weights / "clip", tmp_path / "clip")
    monkeypatch.setitem(
        rk.SCORERS.__dict__, "_entries", dict(rk.SCORERS) | {"mine": entry(str(tmp_path / "clip"))}
    )
    first = determined_score("mine")
    assert first == determined_score("rehearsal/clip")
    picture = Image.new("RGB", (64, 64), "red")
    before = rk.score(picture, CAPTION, "mine")["mine"]

    from safetensors.numpy import load_file, save_file

    path = tmp_path / "clip" / "open_clip_model.safetensors"
    arrays = load_file(path)
    save_file(
        {name: value * 0.5 if value.ndim > 1 else value for name, value in arrays.items()}, path
    )
    assert determined_score("mine") != first
    assert rk.score(picture, CAPTION, "mine")["mine"] != before


def test_a_wrong_entry_is_refused_before_any_work(monkeypatch):
    for name, spec, says in (
        ("seconds", entry("package:clip"), "is named like a column of the table"),
        ("hue", entry("hue", "lab"), "expected one of a, b, chroma"),
        (
            "taste",
            entry("a", "palate"),
            "has the engine 'palate': expected one of open_clip, open_clip_contrast",
        ),
        ("mine", entry("ViT-L-14"), "expected open_clip's MODEL:WEIGHTS"),
        ("file", entry("package:esrgan-x4/model.safetensors"), "expected a folder"),
        ("gelu", entry("ViT-B-32:openai"), "another activation: write ViT-B-32-quickgelu:openai"),
    ):
        monkeypatch.setitem(rk.SCORERS.__dict__, "_entries", {name: spec})
        with pytest.raises(rk.RequestError, match=says):
            rk.Sweep(models="rehearsal/base", prompts="a", scorers=name)


def test_one_scorer_by_two_names_is_refused(tmp_path, monkeypatch):
    (tmp_path / "scorers.toml").write_text(
        '[paint]\nengine = "lab"\nsource = "chroma"\nunit = "1"\ndirection = "none"\nrange = [0,'
        ' 180]\nresize = "nothing"\nabout = "a"\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    monkeypatch.setattr("realkit.scorers.score.SCORERS", Table("scorer", Scorer))
    with pytest.raises(rk.RequestError, match="Scorers 'colour-cast' and 'paint' are one scorer"):
        check.check_scorers({"colour-cast": {}, "paint": {}})


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_a_scorer_says_at_once_what_is_here(offline, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    reason = "HF_HUB_OFFLINE is set" if offline else "no connection to the hub"
    began = time.monotonic()
    with pytest.raises(rk.RequestError) as error:
        rk.score(Image.new("RGB", (32, 32)), "words", ["clip"])
    assert time.monotonic() - began < 10  # open_clip alone tries for a minute
    assert f"{reason}" in str(error.value) and str(error.value).count("cache") == 1
    _, _, offered = str(error.value).partition("Without a network there are here: ")
    assert offered.split(", ")[0] == "rehearsal/clip" and set(offered.split(", ")) <= set(
        rk.SCORERS
    )
    for name in offered.split(", "):
        rk.score(Image.new("RGB", (64, 64), (90, 80, 70)), "a photo of a cone", [name])


def test_what_fails_here_for_another_reason_offers_nothing(monkeypatch):
    with pytest.raises(rk.RequestError) as error:
        rk.score(Image.new("RGB", (32, 32)), "words", ["klip"])
    assert "Without a network" not in str(error.value)
