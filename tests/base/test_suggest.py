import pytest

import realkit as rk
from realkit.apps.cli.main import main
from realkit.base.suggest import did_you_mean, instead

NEAR = {"models": "rehearsal/base", "prompts": "a photo"}


@pytest.mark.parametrize(
    "typed, names, meant",
    [
        ("stpes", ["seeds", "steps", "size"], " Did you mean 'steps'?"),
        ("cfg", ["steps", "guidance"], " Did you mean 'guidance'?"),
        ("CFG Scale", ["steps", "guidance"], " Did you mean 'guidance'?"),
        ("cfg", ["steps", "config"], " Did you mean 'config'?"),  # no guidance here
        ("scheduler", ["models", "samplers"], " Did you mean 'samplers'?"),
        ("xyz", ["steps", "guidance"], ""),
        ("", ["steps"], ""),
        (3, ["steps"], ""),
    ],
)
def test_what_a_name_probably_means(typed, names, meant):
    assert did_you_mean(typed, names) == meant


def test_the_end_of_a_refusal_lists_the_names_with_and_without_a_suggestion():
    assert instead("b", ["ax", "cx"]) == ": expected one of ax, cx"
    assert instead("ab", ["abc", "d"], "some") == (". Did you mean 'abc'? Expected some of abc, d")


def refused_by_a_sweep(**settings):
    with pytest.raises(rk.RequestError) as error:
        rk.Sweep(**{**NEAR, **settings}).cells()
    return str(error.value)


@pytest.mark.parametrize(
    "settings, meant",
    [
        ({"models": "rehersal/base"}, "rehearsal/base"),
        ({"models": "reharsal/bse"}, "rehearsal/base"),
        ({"models": "rehearsal/bass"}, "rehearsal/base"),
        ({"samplers": "DPM 2M Karas"}, "DPM++ 2M Karras"),
        ({"upscalers": "rehearsal/esrgan", "target": 512}, "rehearsal/esrgan-x4"),
        ({"upscalers": "lanczos + rehersal/esrgan-x4", "target": 512}, "rehearsal/esrgan-x4"),
        ({"scorers": "rehersal/clip"}, "rehearsal/clip"),
        ({"encoders": "rehersal/clip"}, "rehearsal/clip"),
        ({"prompts": "suite:rehersal-12"}, "rehearsal-12"),
        ({"cfg": 3}, "guidance"),
        ({"stpes": 3}, "steps"),
        ({"model": "rehearsal/base"}, "models"),
        ({"models": {"model": "rehearsal/base", "cfg": 3}}, "guidance"),
        ({"models": {"model": "rehearsal/base", "stpes": 3}}, "steps"),
        ({"profile": "equal-step"}, "equal-steps"),
        ({"dtype": "flaot16"}, "float16"),
    ],
    ids=str,
)
def test_a_sweep_says_what_a_mistyped_name_or_key_means(settings, meant):
    assert f"Did you mean '{meant}'" in refused_by_a_sweep(**settings)


def test_a_hub_repository_whose_owner_is_like_ours_is_given_with_its_revision():
    assert "'rehersal/base@main'" in refused_by_a_sweep(models="rehersal/base")
    (cell,) = rk.Sweep(**{**NEAR, "models": "rehersal/base@main"}).cells()
    assert cell.model == "rehersal/base@main"


@pytest.mark.parametrize("name", ["someone/base", "SG161222/RealVisXL_V9.0", "hearse/base"])
def test_other_owners_are_the_hubs(name):
    (cell,) = rk.Sweep(**{**NEAR, "models": name}).cells()
    assert cell.model == name


def test_what_the_hub_does_not_give_is_told_with_what_was_meant(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(rk.RequestError, match=r"Did you mean 'stabilityai/sdxl-turbo'\?"):
        rk.load("stabilityai/sdxl-trubo")


@pytest.mark.parametrize(
    "arguments, meant",
    [
        (["generate", "a", "--cfg", "3"], "--guidance"),
        (["generate", "a", "--stpes", "3"], "--steps"),
        (["generate", "a", "--model", "rehersal/base"], "rehearsal/base"),
        (["generate", "a", "--device", "gpu"], "cuda"),
        (["list", "modls"], "models"),
        (["lst", "models"], "list"),
        (
            ["upscale", "{picture}", "--to", "64", "--with", "rehearsal/esrgan"],
            "rehearsal/esrgan-x4",
        ),
        (["score", "{picture}", "words", "--scorer", "rehersal/clip"], "rehearsal/clip"),
        (["run", "x.yaml", "--outt", "d"], "--out"),
    ],
    ids=" ".join,
)
def test_a_command_says_what_was_meant(arguments, meant, capsys, tmp_path):
    from PIL import Image

    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    with pytest.raises(SystemExit) as status:
        main([str(picture) if word == "{picture}" else word for word in arguments])
    line = capsys.readouterr().err
    assert status.value.code == 2 and "id you mean" in line and f"'{meant}'" in line


def test_columns_and_baselines_of_a_table():
    import pandas as pd

    rows = {"model": ["one", "two"], "sampler": "Euler", "prompt": "p", "seed": 0, "status": "ok"}
    frame = pd.DataFrame({**rows, "seconds": [1.0, 2.0]})
    refused = [
        (lambda: rk.compare(frame, by="modl"), "model"),
        (lambda: rk.compare(frame, by="model", metric="secnds"), "seconds"),
        (lambda: rk.compare(frame, by="model", metric="seconds", baseline="onne"), "one"),
        (lambda: rk.plots.pareto(frame, x="secs", y="seconds"), "seconds"),
        (lambda: rk.plots.grid(frame, rows="modell", cols="sampler"), "model"),
    ]
    for call, meant in refused:
        with pytest.raises(rk.RequestError, match=f"Did you mean '{meant}'"):
            call()


def test_a_key_of_a_catalogue_entry(tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text('["mine"]\nsource = "package:base"\nprediciton = "v"\n')
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    with pytest.raises(rk.RequestError, match=r"entry 'mine'.* Did you mean 'prediction'\?"):
        len(rk.MODELS)
