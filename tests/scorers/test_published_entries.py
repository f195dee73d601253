"""Entries of published scorers: what determines their numbers, and what is refused in one line."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import realkit as rk
from realkit.catalog.lookup import Table
from realkit.scorers import references
from realkit.scorers.engines import ENGINES
from realkit.scorers.score import determined_score, load_scorer, lock_scorer
from realkit.scorers.table import SCORERS, Scorer
from tests.scorer_miniatures import PUBLISHED

pytestmark = pytest.mark.usefixtures("published")


def test_what_determines_a_number_are_the_hashes_of_all_that_is_read(made, monkeypatch, tmp_path):
    first = determined_score("pickscore")
    assert set(first["weights"]) == {"source", "processor"}
    source, processor = lock_scorer("pickscore").values()
    assert "model.safetensors" in source.files and "model.safetensors" not in processor.files
    asked = determined_score("judge-prompt")
    assert asked["question"].startswith("Does this") and asked["options"]
    other = SCORERS["judge-prompt"].model_copy(update={"question": "Is it {prompt}?"})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "judge-prompt": other})
    assert determined_score("judge-prompt") != asked


def test_clip_keeps_its_identity():
    assert determined_score("clip") == {
        "engine": "open_clip", "weights": "ViT-L-14-quickgelu:openai", "version": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("lacks", lambda t: t.pop("mlp.layers.7.bias"), "lack 'layers.7.bias' \\(1 in all\\)"),
        ("holds", lambda t: t.update({"other.weight": torch.zeros(1)}), "also hold 'other.weight'"),
        (
            "shape",
            lambda t: t.update({"blip.visual_encoder.norm.bias": torch.zeros(3)}),
            "have other shapes: 'post_layernorm.bias'",
        ),
        (
            "head",
            lambda t: t.update({"mlp.layers.4.weight": torch.zeros(64, 3)}),
            "head takes vectors through the sizes",
        ),
        (
            "tower",
            lambda t: t.pop("blip.visual_encoder.patch_embed.proj.weight"),
            "lack 'embeddings.patch_embedding.weight'",
        ),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    made, tmp_path, monkeypatch, file, change, says
):
    tensors = torch.load(made.folders["THUDM/ImageReward"] / "ImageReward.pt", weights_only=True)
    change(tensors)
    path = tmp_path / f"{file}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    entry = SCORERS["image-reward"].model_copy(update={"source": str(path)})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "image-reward": entry})
    with pytest.raises(rk.RequestError, match=f"Scorer 'image-reward': its .*{says}"):
        load_scorer("image-reward")


def test_a_folder_of_another_network_is_refused_by_name(made, tmp_path, monkeypatch):

    folder = shutil.copytree(made.folders["google/siglip2-base-patch16-224"], tmp_path / "folder")
    tensors = load_file(folder / "model.safetensors")
    tensors["extra"] = tensors.pop("text_model.head.bias")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    entry = SCORERS["siglip2-base"].model_copy(update={"source": str(folder)})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "siglip2-base": entry})
    with pytest.raises(rk.RequestError, match=r"weights lack 'text_model.head.bias'.* also hold"):
        load_scorer("siglip2-base")
    (folder / "config.json").write_text(json.dumps({"model_type": "sigloop"}))
    with pytest.raises(rk.RequestError, match="'siglip2-base' cannot load its weights"):
        load_scorer("siglip2-base")


def test_a_pinned_hash_is_a_lock_without_a_network_and_holds(made, monkeypatch):

    shipped = Table("scorer", Scorer)
    monkeypatch.setitem(SCORERS.__dict__, "_entries", dict(shipped))
    for name in ("hpsv2.1", "laion-aesthetic"):
        entry = shipped[name].model_copy(update={"parts": {}})
        engine = {part: kind for part, kind in ENGINES[entry.engine].weights.items()
                  if part == "source"}  # fmt: skip

        (lock,) = references.lock(name, entry, engine).values()
        assert lock.files == {".safetensors": entry.sha256}
    changed = made.entries["hpsv2.1"].model_copy(update={"sha256": "0" * 64})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "hpsv2.1": changed})
    with pytest.raises(
        rk.RequestError, match=r"'hpsv2.1': .*does not have the published SHA-256 0000"
    ):
        lock_scorer("hpsv2.1")


def test_missing_weights_are_one_line(monkeypatch):

    monkeypatch.setitem(SCORERS.__dict__, "_entries", dict(Table("scorer", Scorer)))
    for name in PUBLISHED:
        with pytest.raises(rk.RequestError, match=f"^Scorer '{name}'") as error:
            rk.score(Image.new("RGB", (8, 8)), "a", name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("pickscore", {"parts": {}}, r"has the parts \[\]: expected \['processor'\]"),
        ("siglip2", {"parts": {"head": "a/b"}}, r"has the parts \['head'\]: expected \[\]"),
        ("hpsv2.1", {"architecture": ""}, "has no architecture"),
        ("judge-prompt", {"question": ""}, "asks nothing"),
        ("judge-prompt", {"question": "Is it good?"}, "or neither"),
        ("judge-photograph", {"prompted": True}, "or neither"),
        ("siglip2", {"source": "package:clip/open_clip_model.safetensors"}, "expected a folder"),
        ("hpsv2.1", {"source": "package:clip"}, "expected one file of weights"),
    ],
)
def test_a_wrong_entry_is_one_line(monkeypatch, name, change, says):
    entry = SCORERS[name].model_copy(update=change)
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, name: entry})
    with pytest.raises(rk.RequestError, match=f"Scorer '{name}'.*{says}"):
        lock_scorer(name), determined_score(name)


def test_an_unknown_architecture_is_one_line(monkeypatch):
    entry = SCORERS["hpsv2.1"].model_copy(update={"architecture": "ViT-Q-99"})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "hpsv2.1": entry})
    with pytest.raises(rk.RequestError, match="'ViT-Q-99', which open_clip does not know"):
        load_scorer("hpsv2.1")


def test_the_extra_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr("realkit.scorers.iqa.find_spec", lambda name: None)
    for name in ("topiq", "musiq", "clip-iqa"):
        with pytest.raises(rk.RequestError, match=f"Scorer '{name}' needs the package pyiqa.*pip"):
            rk.Sweep(models="rehearsal/base", prompts="a", scorers=name)
