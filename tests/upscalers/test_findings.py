"""What a stranger broke once."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

import realkit as rk
from realkit.apps.cli import main
from realkit.rehearsal.scenes import render
from realkit.sweeps import check
from realkit.upscalers import identity, upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.settings import Settings

REALESRGAN = all(map(importlib.util.find_spec, ("realesrgan", "basicsr")))
PROMPT = "a photo of a shiny red cone on a checkered floor at noon"


def scene(side: int = 32) -> Image.Image:
    return render(PROMPT, 4, side)


def how(image: Image.Image) -> dict:
    return json.loads(image.info["realkit"])["determined"]


@pytest.fixture
def swin(tmp_path, weights):
    return shutil.copytree(weights / "swin2sr-x4", tmp_path / "swin")


@pytest.mark.parametrize("damage", ["tensor", "depths", "upscale", "config"])
def test_a_swin2sr_that_is_not_whole_is_one_line(swin, damage, capfd):
    if damage == "tensor":
        tensors = load_file(swin / "model.safetensors")
        tensors.pop(next(iter(tensors)))
        save_file(tensors, swin / "model.safetensors", metadata={"format": "pt"})
    elif damage == "config":
        (swin / "config.json").unlink()
    else:
        config = json.loads((swin / "config.json").read_text())
        (swin / "config.json").write_text(
            json.dumps(config | ({"depths": "x"} if damage == "depths" else {"upscale": 2}))
        )
    with pytest.raises(rk.RequestError) as error:
        rk.upscale(scene(), str(swin), 128)
    assert (
        "\n" not in str(error.value)
        and "swin" in str(error.value)
        and "LOAD REPORT" not in capfd.readouterr().err
    )


@pytest.mark.skipif(not REALESRGAN, reason="the extra realesrgan is not installed")
def test_the_realesrgan_engine_pads_as_the_entry_says_and_its_tiles_are_noted():
    white = Image.new("RGB", (40, 33), "white")
    assert np.asarray(rk.upscale(white, "realesrgan:rehearsal/esrgan-x4", 100)).min() >= 252
    plain, padded, tiled = (
        rk.upscale(scene(), "realesrgan:rehearsal/compact-x4", 128, **given)
        for given in ({}, {"pre_pad": 0}, {"tile": 16, "overlap": 0})
    )
    assert len({json.dumps(how(image)) for image in (plain, padded, tiled)}) == 3


def test_a_second_upscaling_remembers_the_first(base):
    image = base(PROMPT, steps=2, seed=3)
    once = rk.upscale(image, "rehearsal/compact-x4", 200)
    twice, direct = rk.upscale(once, "lanczos", 256), rk.upscale(image, "lanczos", 256)
    assert (
        how(twice) != how(direct) and how(twice)["before"] == how(once) and how(direct)["seed"] == 3
    )


def test_an_edited_picture_is_no_more_what_it_says_of_itself(base):
    image = base(PROMPT, steps=2, seed=3)
    edited = image.copy()
    edited.paste((255, 0, 0), (0, 0, 20, 20))
    made = rk.upscale(edited, "lanczos", 256)
    assert (
        set(how(made)) == {"pixels", "upscaler", "target"}
        and json.loads(made.info["realkit"])["cell"] is None
    )


def test_a_redraw_of_other_words_is_not_the_cells(base):
    image = base(PROMPT, steps=2, seed=3)
    cells = [json.loads(rk.upscale(image, "lanczos", 160).info["realkit"])["cell"]]
    cells.append(
        json.loads(
            rk.upscale(image, "rehearsal/redraw", 160, prompt="a blue cube", seed=3, steps=2).info[
                "realkit"
            ]
        )["cell"]
    )
    assert cells[0]["upscaler"] == "lanczos" and cells[1] is None


@pytest.mark.parametrize("name", ["lanczos", "rehearsal/compact-x4"])
def test_hidden_colours_do_not_shine_through(name):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 4, 12, 12))
    made = rk.upscale(image, name, 64)
    assert (
        np.asarray(Image.alpha_composite(Image.new("RGBA", made.size, "red"), made))[..., 0].min()
        >= 250
    )


def test_the_tile_of_a_later_pass_is_in_the_row(monkeypatch):
    monkeypatch.setattr("realkit.upscalers.networks.Enlarger._pixels", lambda self: 3600.0)
    assert upscale.load_upscaler(Chain.parse("rehearsal/compact-x4"))(scene(20), (300, 300))[1][
        "tile"
    ]


def test_pictures_of_other_sweeps_make_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("realkit.base.cache.free_bytes", lambda _: 2**20)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "other.png").write_bytes(bytes(2**22))
    with pytest.raises(rk.RequestError, match="need about"):
        rk.run(
            dict(
                models="rehearsal/base", prompts=PROMPT, steps=1, upscalers="lanczos", target=1024
            ),
            tmp_path,
        )


def test_a_redraw_counts_its_own_memory(monkeypatch):
    monkeypatch.setattr("realkit.base.measure.ram_free", lambda: 4.0)
    with pytest.raises(rk.RequestError, match=r"needs 1\d\.\d GiB"):
        rk.upscale(scene(), "rehearsal/redraw", 16_384, prompt=PROMPT)


def test_the_command_line_looks_at_the_disk_first(tmp_path, monkeypatch):
    scene().save(tmp_path / "a.png")
    monkeypatch.setattr("realkit.base.cache.free_bytes", lambda _: 1000)
    done = CliRunner().invoke(
        main.main, ["upscale", str(tmp_path / "a.png"), "--with", "lanczos", "--to", "1000"]
    )
    assert done.exit_code == 2 and "1000 bytes are free" in done.output


@pytest.mark.parametrize(
    "engine",
    [
        "",
        pytest.param(
            "realesrgan:",
            marks=pytest.mark.skipif(
                not REALESRGAN, reason="the extra realesrgan is not installed"
            ),
        ),
    ],
)
def test_weights_that_give_no_numbers_are_one_line(tmp_path, weights, engine):
    tensors = load_file(weights / "compact-x4" / "model.safetensors")
    save_file(
        {name: value * torch.nan for name, value in tensors.items()},
        tmp_path / "nan.safetensors",
        metadata={"format": "pt"},
    )
    scene().save(tmp_path / "a.png")
    done = CliRunner().invoke(
        main.main,
        [
            "upscale",
            str(tmp_path / "a.png"),
            "--with",
            f"{engine}{tmp_path}/nan.safetensors",
            "--to",
            "64",
        ],
    )
    assert (
        done.exit_code == 2
        and "not finite" in done.output
        and len(done.output.strip().splitlines()) == 1
    )


@pytest.mark.parametrize("kind", ["pickle", "text", "architecture"])
def test_a_sweep_finds_a_file_that_is_none_before_anything_is_made(tmp_path, kind):
    path = tmp_path / "bad.pth"
    contents = {"pickle": {"params": {"a": slice(1)}}, "architecture": {"a": torch.zeros(3)}}
    path.write_text("not weights") if kind == "text" else torch.save(contents[kind], path)
    with pytest.raises(rk.RequestError, match=r"bad\.pth") as error:
        rk.run(
            dict(models="rehearsal/base", prompts=PROMPT, steps=1, upscalers=str(path), target=256),
            tmp_path / "run",
        )
    assert "\n" not in str(error.value) and not (tmp_path / "run" / "rows.jsonl").exists()


@pytest.mark.parametrize("sampler", ["PLMS", "DPM adaptive"])
def test_a_sampler_that_cannot_redraw_is_refused_beforehand(tmp_path, sampler):
    with pytest.raises(rk.RequestError, match="cannot begin in the middle"):
        rk.run(
            dict(
                models="rehearsal/base",
                prompts=PROMPT,
                samplers=sampler,
                upscalers="rehearsal/redraw",
                target=128,
            ),
            tmp_path,
        )


def test_files_of_any_name(tmp_path, weights):
    places = [
        tmp_path / place
        for place in ("up by me.safetensors", "w x + y/m.safetensors", "CAPITALS.safetensors")
    ]
    for path in [*places, tmp_path / "plain"]:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(weights / "compact-x4" / "model.safetensors", path)
    with pytest.raises(rk.RequestError, match=r"it is a safetensors file: rename it"):
        rk.upscale(scene(), str(tmp_path / "plain"), 128)
    frame = rk.run(
        dict(
            models="rehearsal/base",
            prompts=PROMPT,
            steps=1,
            size=64,
            upscalers=[*map(str, places)],
            target=256,
        ),
        tmp_path / "run",
    ).table()
    assert frame.status.tolist() == ["ok"] * 3
    for path in places:
        assert rk.upscale(scene(), path, 128).size == (128, 128)


@pytest.mark.parametrize(
    "name", ["Lanczos + ", "realesrgan:", "", " ", "..", "/dev/null", "package:esrgan-x4", "a\0b"]
)
def test_odd_names_are_one_line(name):
    with pytest.raises(rk.RequestError) as error:
        rk.upscale(scene(), name, 64)
    assert "\n" not in str(error.value) and "by hand" not in str(error.value)


@pytest.mark.parametrize(
    "given", [{"seed": True}, {"seed": "3"}, {"tile": "64"}, {"strength": True}, {"strength": 1e-9}]
)
def test_settings_are_what_they_seem(given):
    with pytest.raises(rk.RequestError):
        rk.upscale(scene(), "rehearsal/compact-x4 + rehearsal/redraw", 128, prompt=PROMPT, **given)


@pytest.mark.parametrize("strength", [0.0005, 0, 1.01, True])
def test_a_plan_refuses_a_strength_in_the_words_of_an_upscaling(tmp_path, strength):
    with pytest.raises(rk.RequestError) as error:
        rk.upscale(scene(), "rehearsal/redraw", 128, prompt=PROMPT, strength=strength)
    sweep = {
        "models": "rehearsal/base",
        "prompts": PROMPT,
        "upscalers": "rehearsal/redraw",
        "target": 128,
        "strength": strength,
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    done = CliRunner().invoke(main.main, ["plan", str(tmp_path / "sweep.yaml")])
    assert (
        done.exit_code == 2
        and str(error.value) in done.output
        and len(done.output.strip().splitlines()) == 1
    )


def test_what_is_inert_without_guidance_is_not_in_the_identity():
    chain = Chain.parse("rehearsal/redraw")
    told = [
        identity.determined_upscale(chain, Settings(prompt="a", **given))
        for given in ({"guidance": 1.0}, {"guidance": 0.5, "negative": "b"})
    ]
    assert (
        told[0] == told[1] != identity.determined_upscale(chain, Settings(prompt="a", guidance=3.0))
    )


def test_landmarks_may_be_arrays_and_modes_any():
    chain = Chain.parse("gfpgan")
    assert chain.settings({"landmarks": [np.ones((5, 2))]}).landmarks == [[[1.0, 1.0]] * 5]
    with pytest.raises(rk.RequestError, match="expected for each face five"):
        chain.settings({"landmarks": "here"})
    for mode in ("La", "RGBa"):
        assert (
            rk.upscale(
                Image.new("RGBA", (8, 8), "red")
                .convert("LA" if mode == "La" else "RGBA")
                .convert(mode),
                "lanczos",
                16,
            ).mode
            == "RGBA"
        )


def test_a_plan_refuses_more_steps_than_a_redraw_takes():
    with pytest.raises(
        rk.RequestError, match="steps 1000: Input should be less than or equal to 999"
    ):
        check.plan(
            {
                "models": "rehearsal/base",
                "samplers": "Euler",
                "prompts": PROMPT,
                "steps": 1000,
                "upscalers": "rehearsal/redraw",
                "target": 128,
            }
        )
