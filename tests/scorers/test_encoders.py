"""Encoders: embeddings beside a direct computation, their weights locked, what does not fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import realkit as rk
from realkit.scorers import encoders
from realkit.scorers.encoders import ENCODERS, as_jpeg, load_encoder, lock_encoder
from tests.hub_server import nowhere, python, serving


def dinov2(folder):
    """As facebook/dinov2-base, small."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def local(tmp_path, monkeypatch):
    folder = dinov2(tmp_path / "dinov2")
    entry = ENCODERS["dinov2"].model_copy(update={"source": str(folder)})
    monkeypatch.setitem(ENCODERS.__dict__, "_entries", {**ENCODERS, "dinov2": entry})
    return folder


def picture(width=300, height=280, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 255, (height // 20, width // 20, 3), np.uint8)
    return Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC)


def test_dinov2_is_its_normalised_class_token(local):
    from transformers import Dinov2Model

    pictures = [picture(seed=seed) for seed in range(3)]
    found = load_encoder("dinov2", lock_encoder("dinov2")).images(pictures)
    model = Dinov2Model.from_pretrained(local).eval()
    pixels = []
    for image in pictures:
        scale = 256 / min(image.size)
        size = tuple(int(side * scale) for side in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        shown = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
        pixels.append((shown - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    with torch.no_grad():
        stacked = torch.tensor(np.array(pixels)).permute(0, 3, 1, 2).float()
        token = model(pixel_values=stacked).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(token, dim=-1)
    assert torch.allclose(found, expected, atol=1e-4)
    alone = load_encoder("dinov2", lock_encoder("dinov2")).images(pictures[:1])
    assert torch.allclose(found[:1], alone, atol=1e-5)


def test_weights_that_are_not_its_own_are_refused_by_name(local):
    file = local / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"extra.weight": torch.zeros(1)}, file)
    with pytest.raises(rk.RequestError, match=r"Encoder 'dinov2': the weights.*'extra.weight'"):
        load_encoder("dinov2", lock_encoder("dinov2"))
    del tensors["layernorm.bias"]
    save_file(tensors, file)
    with pytest.raises(rk.RequestError, match=r"'layernorm.bias'"):
        load_encoder("dinov2", lock_encoder("dinov2"))
    (local / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(rk.RequestError, match="of type 'vit': expected a folder whose config"):
        load_encoder("dinov2", lock_encoder("dinov2"))


def test_names_are_checked_at_the_door():
    with pytest.raises(rk.RequestError, match=r"Unknown encoder 'dino'. Did you mean 'dinov2'"):
        rk.Sweep(models="rehearsal/base", prompts="a", encoders="dino")
    assert rk.Sweep(models="rehearsal/base", prompts="a", encoders="DINOv2").encoders == ["dinov2"]


def test_every_picture_is_encoded_alike():
    image = picture()
    assert as_jpeg(image).size == image.size
    assert np.abs(np.asarray(as_jpeg(image), int) - np.asarray(image, int)).max() > 0
    again = as_jpeg(as_jpeg(image))
    assert np.abs(np.asarray(again, int) - np.asarray(as_jpeg(image), int)).mean() < 1


def test_what_is_embedded_is_named_by_the_weights(local):
    before = encoders.determined_encoder("dinov2", lock_encoder("dinov2"))
    tensors = load_file(local / "model.safetensors")
    tensors["layernorm.bias"] += 1
    save_file(tensors, local / "model.safetensors")
    assert encoders.determined_encoder("dinov2", lock_encoder("dinov2")) != before


@pytest.mark.slow
def test_a_hub_s_weights_are_locked_fetched_once_and_used_without_a_network(tmp_path):
    out, home = tmp_path / "out", tmp_path / "home"
    code = f"""
        import realkit as rk
        sweep = dict(models="rehearsal/base", prompts=["a red cube", "a blue cone"], steps=1,
                     samplers="Euler", size=64, encoders="dinov2", seeds=2)
        rk.run(sweep, {str(out)!r})
        print(rk.sets({str(out)!r})["diversity"].to_json())
    """
    with serving({"facebook/dinov2-base": dinov2(tmp_path / "dinov2")}) as hub:
        first = python(code, home, hub.endpoint)
        assert first.returncode == 0, first.stderr[-3000:]
        large = [request.path for request in hub.requests if request.store]
        assert len(large) == 1 and large[0].endswith("model.safetensors")
    lock = json.loads((out / "sweep.lock.json").read_text())["encoders"]["dinov2"]
    assert "model.safetensors" in lock["files"]
    for file in (out / "embeddings").iterdir():
        file.unlink()
    again = python(code, home, nowhere())
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    with serving({}) as hub:
        code = "import realkit as rk; rk.run(dict(models='rehearsal/base', prompts='a red cube',"
        code += f" encoders='dinov2'), {str(tmp_path / 'other')!r})"
        done = python(code, tmp_path / "empty", hub.endpoint)
    assert "Encoder 'dinov2': Hub model" in done.stderr and "cannot be reached" in done.stderr
    assert not (tmp_path / "other" / "rows.jsonl").exists()
