"""Entries of a user's own catalogue: what they fix, what they refuse."""

import hashlib
import json
import shutil

import pytest
import torch
from click.testing import CliRunner

import realkit as rk
from realkit.apps.cli import main
from realkit.catalog.lookup import Table
from realkit.models import ladder, parts
from realkit.models.ladder import LADDERS
from realkit.models.lock import lock_model
from realkit.models.spec import MODELS, ModelSpec, Settings, identify
from tests import miniatures, originals


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Writes a user's models.toml and makes it the catalogue in use."""

    def write(text: str) -> None:
        (tmp_path / "models.toml").write_text(text)
        monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
        monkeypatch.setitem(MODELS.__dict__, "_entries", dict(Table("model", ModelSpec)))

    return write


@pytest.fixture
def single(base, tmp_path, weights, entries):
    """rehearsal/base as one file in the original layout, with a folder of configs; the entry
    `mine`."""
    originals.single_file(base.pipe, tmp_path / "one.safetensors")
    configs = tmp_path / "configs"
    for part in ("unet", "scheduler"):
        shutil.copytree(
            weights / "base" / part, configs / part, ignore=shutil.ignore_patterns("*.safetensors")
        )
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(
            weights / part, configs / part, ignore=shutil.ignore_patterns("*.safetensors")
        )
    shutil.copy(weights / "base" / "model_index.json", configs)
    entries(
        f'[mine]\nsource = "{tmp_path}/one.safetensors"\nconfig = "{configs}"\nsize = 128\nfamily ='
        ' "sd1"\n'
    )
    return configs


def test_the_configs_of_a_single_file_are_locked(single, tmp_path):
    sweep = rk.Sweep(models="mine", prompts="a photo of a red cube", steps=2)
    before, made = lock_model("mine"), rk.run(sweep, tmp_path / "run")
    picture = rk.info(made.folder / made.table()["image"][0])
    file = hashlib.sha256((tmp_path / "one.safetensors").read_bytes()).hexdigest()
    assert picture["realkit"]["model_hash"] == file[:10]  # A1111's
    assert f"Model hash: {file[:10]}, Model: mine, " in picture["texts"]["parameters"]
    config = json.loads((single / "vae" / "config.json").read_text())
    (single / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    after = lock_model("mine")
    assert made.table().status.tolist() == ["ok"]
    assert (
        before.fingerprint == after.fingerprint and before.vae_fingerprint != after.vae_fingerprint
    )
    with pytest.raises(
        rk.RequestError,
        match=r"'vae/config.json' in .* has changed since this results folder was made",
    ):
        rk.run(sweep, tmp_path / "run")
    config = json.loads((single / "unet" / "config.json").read_text())
    (single / "unet" / "config.json").write_text(json.dumps(config | {"act_fn": "gelu"}))
    assert lock_model("mine").fingerprint != after.fingerprint


@pytest.mark.parametrize(
    "line",
    [
        'source = "http://host/a.safetensors?token=SEKRETSEKRET"',
        'source = "package:base"\nparts = { vae = "http://host/v.safetensors?token=SEKRETSEKRET" }',
        'source = "package:base"\nloras = { "http://host/l.safetensors?token=SEKRETSEKRET" = 1.0 }',
        'source = "http://me:SEKRETSEKRET@host/a.safetensors"',
    ],
)
def test_a_secret_in_an_entry_is_refused_and_not_repeated(entries, line):
    entries(f"[mine]\n{line}\n")
    with pytest.raises(rk.RequestError, match="holds a secret: leave it out of the entry") as error:
        lock_model("mine")
    assert "SEKRET" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[me]\nsource = "package:base"\nthen = { model = "me", at = 0.8 }', "two legs at most"),
        (
            (
                '[a]\nsource = "package:xl"\nthen = { model = "me", at = 0.8 }\n[me]\nsource ='
                ' "package:xl"\nthen = { model = "a", at = 0.5 }'
            ),
            "two legs at most",
        ),
        (
            '[me]\nsource = "package:xl"\nthen = { model = "rehearsal/refiner", at = 1.0 }',
            "nothing is left of the noise",
        ),
        (
            '[me]\nsource = "package:base"\nthen = { model = "rehearsal/base", at = 0.8 }',
            "does not take over",
        ),
        (
            '[me]\nsource = "package:base"\nsettings = { sampler = "Nope" }',
            "Model 'me': Unknown sampler 'Nope'",
        ),
        (
            '[me]\nsource = "package:base"\nsteps = [1, 4]\nsettings = { steps = 20 }',
            "recommends 20 steps and is made for 1 to 4",
        ),
        (
            '[me]\nsource = "package:base"\nconfig = "config:sd1"',
            "is a folder, which has its own: leave `config` out",
        ),
    ],
)
def test_an_entry_that_cannot_work_is_one_line_and_exit_2(entries, tmp_path, text, says):
    entries(text)
    done = CliRunner().invoke(
        main.main, ["generate", "a cube", "--model", "me", "--out", str(tmp_path / "a.png")]
    )
    assert (
        done.exit_code == 2 and says in done.output and len(done.output.strip().splitlines()) == 1
    ), done.output


@pytest.mark.parametrize(
    "line",
    [
        'sizes = ["abc"]',
        'sizes = ["-5x3"]',
        'sizes = ["100x64"]',
        "pass_tflop = -1",
        "size = -64",
        "foo = 3",
    ],
)
def test_a_wrong_value_names_its_entry(entries, line):
    with pytest.raises(rk.RequestError, match=r"models\.toml, entry 'mine': "):
        entries(f'[mine]\nsource = "package:base"\n{line}\n')


def test_a_folder_does_not_hide_a_name_of_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rehearsal" / "base").mkdir(parents=True)
    assert identify("rehearsal/base")[1].source == "package:base"


def test_a_vae_that_overflows_is_float32_as_a_single_file_too(tmp_path, entries):
    from safetensors.torch import save_file

    folder = miniatures.miniature("sdxl", tmp_path / "xl")
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"force_upcast": True}))
    save_file(miniatures.networks("sdxl").vae.state_dict(), tmp_path / "vae.safetensors")
    entries(f'[mine]\nsource = "{folder}"\nparts = {{ vae = "{tmp_path}/vae.safetensors" }}\n')
    assert parts.load_vae(lock_model("mine"), torch.float16).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "sampler"), [("sd3", "Flow Euler"), ("cascade", "DDPM Wuerstchen")]
)
def test_a_folder_of_a_family_has_its_usual_settings(tmp_path, kind, sampler):
    assert (
        lock_model(str(miniatures.miniature(kind, tmp_path / kind))).spec.settings.sampler
        == sampler
    )


def test_a_part_that_the_index_leaves_out_is_not_asked_for(tmp_path):
    folder = miniatures.miniature("sd3", tmp_path / "sd3")
    index = json.loads((folder / "model_index.json").read_text())
    assert index.get("text_encoder_3") in (None, [None, None])
    (folder / "model_index.json").write_text(
        json.dumps(index | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    )
    assert rk.load(str(folder))("a cube", steps=2, size=64).size == (64, 64)


def test_stable_diffusion_2_in_one_file_must_say_which_it_is(tmp_path, monkeypatch, entries):
    path = miniatures.single("sd2", tmp_path / "two.safetensors")
    monkeypatch.setattr(
        "realkit.weights.checkpoints.identify", lambda _: "sd2"
    )  # a miniature's widths are nobody's
    with pytest.raises(rk.RequestError, match='config = "config:sd2" or "config:sd2-base"'):
        lock_model(str(path))
    entries(f'[mine]\nsource = "{path}"\nconfig = "config:sd2-base"\n')
    assert lock_model("mine").scheduler["prediction_type"] == "epsilon"


@pytest.mark.slow
def test_each_stage_begins_on_its_rung_nearest_to_the_one_asked_for(tmp_path):
    order = {
        "vae-tiling": ("resident", "vae-tiling"),
        "group-offload": ("group-offload", "group-offload"),
        "resident": ("resident", "resident"),
    }
    for rung, (denoise, decode) in order.items():
        run = rk.run(
            rk.Sweep(models="rehearsal/base", prompts="a photo of a red cube", steps=2, size=64),
            tmp_path / rung,
            rung=rung,
        )
        assert run.table()[["rung", "decode_rung"]].to_numpy().tolist() == [[denoise, decode]]
    assert ladder.nearest("model-offload", LADDERS["decode"]["cuda"]) == "vae-tiling"
    with pytest.raises(
        rk.RequestError, match="Expected one of resident, vae-tiling, group-offload on a CPU"
    ):
        rk.run(
            rk.Sweep(models="rehearsal/base", prompts="a"), tmp_path / "no", rung="model-offload"
        )
    both = rk.load("rehearsal/xl+refiner", rung="group-offload")
    assert both.rung == both.second.rung == "group-offload"


def test_an_entrys_sampler_is_read_as_the_table_spells_it_and_an_old_lock_keeps_what_it_holds():
    assert Settings(sampler="k_euler").sampler == "Euler"
    assert Settings(sampler="one of an older table").sampler == "one of an older table"
