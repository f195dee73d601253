import numpy as np
import pytest
import torch

import realkit as rk
from realkit.catalog.lookup import Table
from realkit.models import spec
from realkit.models.lock import lock_model
from realkit.models.spec import ModelSpec
from realkit.weights.lock import Lock
from tests.asking import denoised
from tests.originals import single_file

PROMPT = "a photo of a shiny yellow cube on sand at dawn"


def test_one_call_makes_the_picture_a_sweep_makes(base, tmp_path):
    image = base(PROMPT, sampler="Euler", steps=4, guidance=2.0, seed=5)
    done = rk.run(
        rk.Sweep(
            models="rehearsal/base",
            samplers="Euler",
            prompts=PROMPT,
            steps=4,
            guidance=2.0,
            seeds=[5],
        ),
        tmp_path,
    )
    from PIL import Image

    assert image.size == (128, 128)
    assert np.array_equal(
        np.asarray(image), np.asarray(Image.open(tmp_path / done.table()["image"][0]))
    )


def test_other_sizes(base):
    assert base(PROMPT, steps=2, size=(192, 128)).size == (192, 128)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"guidance": float("inf")}, {"sampler": "Nope"}, {"size": 100}, {"seed": -1}],
)
def test_a_bad_setting_is_refused(base, bad):
    with pytest.raises(rk.RequestError):
        base(PROMPT, **bad)


def test_no_guidance_is_one_pass_and_ignores_the_negative(base):
    a = denoised(base, [(PROMPT, "", 1)], "Euler", 3, 1.0, (128, 128))
    b = denoised(base, [(PROMPT, "night", 1)], "Euler", 3, 0.0, (128, 128))
    assert torch.equal(a.latents, b.latents) and a.network_passes == a.nfe == 3


def test_truncated_tokens_are_counted(base):
    made = denoised(base, [("red " * 100, "", 1), ("red", "", 1)], "Euler", 1, 3.0, (128, 128))
    assert made.cut_tokens == [{"prompt": {"cut": 25, "of": 102, "by": 1, "encoders": 1}}, {}]


def test_latents_that_are_not_finite_are_no_picture(base):
    with pytest.raises(FloatingPointError, match="not finite"):
        base.decode(torch.full((8, 16, 16), float("nan")))


def test_a_diffusers_folder_loads_by_its_path(base, tmp_path):
    base.pipe.save_pretrained(tmp_path / "mine")
    cell = dict(sampler="Euler", steps=3, guidance=3.0, seed=1, size=128)
    mine = rk.load(str(tmp_path / "mine"))(PROMPT, **cell)
    assert np.array_equal(np.asarray(mine), np.asarray(base(PROMPT, **cell)))


def test_a_single_file_in_the_original_layout_loads_with_its_entrys_config(
    base, tmp_path, monkeypatch
):
    base.pipe.save_pretrained(tmp_path / "config")
    for weights in (tmp_path / "config").rglob("*.safetensors"):
        weights.unlink()
    path = single_file(base.pipe, tmp_path / "mine.safetensors")
    (tmp_path / "models.toml").write_text(
        f'[mine]\nsource = "{path}"\nconfig = "{tmp_path / "config"}"\nsize = 128\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    monkeypatch.setattr(spec, "MODELS", Table("model", ModelSpec))
    cell = dict(sampler="Euler", steps=3, guidance=3.0, seed=1)
    mine = rk.load("mine")(PROMPT, **cell)
    assert np.array_equal(np.asarray(mine), np.asarray(base(PROMPT, **cell)))


def test_a_single_file_without_config_says_what_to_do(base, tmp_path):
    with pytest.raises(rk.RequestError, match="catalogue entry a `config` folder"):
        rk.load(str(single_file(base.pipe, tmp_path / "mine.safetensors")))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:5],
        lambda data: data + b"more",
    ],
)
def test_a_damaged_weight_file_is_named(base, tmp_path, damage):
    base.pipe.save_pretrained(tmp_path / "mine")
    path = tmp_path / "mine" / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(rk.RequestError, match="download it again"):
        rk.run(rk.Sweep(models=str(tmp_path / "mine"), prompts="a"), tmp_path / "out")
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_weights_of_another_network_are_one_line(base, tmp_path):
    from safetensors.torch import load_file, save_file

    base.pipe.save_pretrained(tmp_path / "mine")
    path = tmp_path / "mine" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(
        {f"other.{key}": value for key, value in load_file(path).items()},
        path,
        metadata={"format": "pt"},
    )
    with pytest.raises(rk.RequestError, match="does not load from"):
        rk.load(str(tmp_path / "mine"))


def test_base_and_studio_share_files_and_differ_visibly(base):
    studio = rk.load("rehearsal/studio")
    cell = dict(sampler="Euler", steps=8, seed=3)
    a, b = (np.asarray(model(PROMPT, **cell)).astype(int) for model in (base, studio))
    assert rk.MODELS["rehearsal/base"].parts == rk.MODELS["rehearsal/studio"].parts
    assert np.abs(a - b).mean() > 8


def test_noise_and_sampler_state_are_float32_whatever_the_network_runs_in():
    low = rk.load("rehearsal/base")
    low.pipe.unet.to(torch.bfloat16)
    low.pipe.text_encoder.to(torch.bfloat16)
    low.dtype = torch.bfloat16
    made = denoised(low, [(PROMPT, "", 1)], "Euler a", 3, 3.0, (64, 64)).latents
    full = denoised(
        rk.load("rehearsal/base"), [(PROMPT, "", 1)], "Euler a", 3, 3.0, (64, 64)
    ).latents
    assert made.dtype == torch.float32
    assert (
        made - full
    ).abs().mean() < 0.1 * full.abs().mean()  # the same noise: only the network rounds


def test_ids_follow_the_files_that_are_loaded_and_their_part(base, tmp_path):
    base.pipe.save_pretrained(tmp_path / "mine")
    first = lock_model(str(tmp_path / "mine"))
    (tmp_path / "mine" / "README.txt").write_text("a note")
    (tmp_path / "mine" / "samples").mkdir()
    (tmp_path / "mine" / "samples" / "prompts.json").write_text("{}")
    assert lock_model(str(tmp_path / "mine")) == first
    vae = rk.load("rehearsal/base").pipe.vae
    with torch.no_grad():
        vae.decoder.conv_out.bias.add_(0.1)
    vae.save_pretrained(tmp_path / "mine" / "vae")
    changed = lock_model(str(tmp_path / "mine"))
    assert (
        changed.fingerprint == first.fingerprint
        and changed.vae_fingerprint != first.vae_fingerprint
    )


def test_one_commit_of_the_hub_is_one_model_however_it_is_written():
    commit = {"kind": "hub", "revision": "a" * 40, "variant": "fp16"}
    assert Lock("a/b:fp16", **commit).fingerprint == Lock("a/b@main:fp16", **commit).fingerprint
