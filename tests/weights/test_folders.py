"""Which files of a repository are read: as the real ones are laid out, and as a miniature of each
loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import realkit as rk
from realkit.base.cache import CACHE
from realkit.weights import resolve
from realkit.weights.folders import canonical, chosen, variants
from realkit.weights.lock import Lock
from realkit.weights.pickles import ALLOW_PICKLE
from tests import miniatures

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
CONFIGS = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "tokenizer/merges.txt", "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    "vae/config.json",
]  # fmt: skip
NEVER = [
    ".gitattributes", "README.md", "v1-inference.yaml", "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors", "v1-5-pruned-emaonly.safetensors",
    "feature_extractor/preprocessor_config.json", "safety_checker/config.json",
    "safety_checker/model.safetensors", "safety_checker/pytorch_model.bin",
    "unet/diffusion_flax_model.msgpack", "unet/openvino_model.bin", "unet/model.onnx",
    "unet/model.onnx_data", "vae_1_0/diffusion_pytorch_model.safetensors",
]  # fmt: skip
STEMS = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}


def weights(ending: str, *parts: str) -> list[str]:
    """Weight files with this ending, of these parts or of all."""
    stems = {"bin": STEMS | {"text_encoder": "pytorch_model"}}.get(ending.split(".")[-1], STEMS)
    return [f"{part}/{stems[part]}.{ending}" for part in parts or STEMS]


SAFE, HALF, BIN, HALF_BIN = (
    weights("safetensors"),
    weights("fp16.safetensors"),
    weights("bin"),
    weights("fp16.bin"),
)


@pytest.mark.parametrize(
    ("names", "variant", "found", "taken"),
    [
        (SAFE + HALF + BIN + HALF_BIN, "fp16", "fp16", HALF),
        (SAFE + HALF + BIN + HALF_BIN, "", "", SAFE),
        (SAFE + BIN, "fp16", "", SAFE),
        ([*SAFE, "unet/diffusion_pytorch_model.fp16.safetensors"], "fp16", "fp16",
            weights("safetensors", "text_encoder", "vae") + weights("fp16.safetensors", "unet")),
        (HALF, "", "fp16", HALF),
        (HALF + BIN, "", "fp16", HALF),
        (SAFE + weights("non_ema.safetensors", "unet") + weights("non_ema.bin", "unet"), "", "",
            SAFE),
        (BIN, "", "", BIN),
        (BIN + HALF_BIN, "fp16", "fp16", HALF_BIN),
        (weights("safetensors", "unet", "vae") + weights("bin", "text_encoder"), "", "",
            weights("safetensors", "unet", "vae") + weights("bin", "text_encoder")),
    ],
)  # fmt: skip
def test_of_each_part_one_set_of_weights(names, variant, found, taken):
    assert chosen([*CONFIGS, *NEVER, *names], INDEX, variant) == (found, sorted(CONFIGS + taken))


PLAIN_SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
HALF_SHARDS = [
    "model.fp16-00001-of-00002.safetensors",
    "model.fp16-00002-of-00002.safetensors",
    "model.safetensors.index.fp16.json",
]


@pytest.mark.parametrize(
    ("names", "variant", "taken"),
    [
        (PLAIN_SHARDS + HALF_SHARDS, "", PLAIN_SHARDS),
        (PLAIN_SHARDS + HALF_SHARDS, "fp16", HALF_SHARDS),
        (PLAIN_SHARDS, "fp16", PLAIN_SHARDS),
        ([*PLAIN_SHARDS, "model.safetensors"], "", ["model.safetensors"]),
        (["model.fp16.safetensors", *PLAIN_SHARDS], "fp16", ["model.fp16.safetensors"]),
        (["model.fp16.safetensors", *PLAIN_SHARDS], "", PLAIN_SHARDS),
    ],
)
def test_shards_come_together_with_their_own_index(names, variant, taken):
    index = {"text_encoder_3": ["transformers", "T5EncoderModel"]}
    listed = [f"text_encoder_3/{name}" for name in ["config.json", *names]]
    _, kept = chosen(["model_index.json", *listed], index, variant)
    assert kept == sorted(
        ["model_index.json", *(f"text_encoder_3/{name}" for name in ["config.json", *taken])]
    )


def test_a_part_alone_and_files_for_other_programs_beside_it():
    names = [
        "README.md",
        "config.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.safetensors",
        "sdxl_vae.safetensors",
        "figures.json",
    ]
    assert chosen(names, {}) == ("", ["config.json", "diffusion_pytorch_model.safetensors"])


def test_an_open_clip_folder_is_taken_as_it_is():
    names = [
        "README.md",
        "merges.txt",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
        "tokenizer.json",
        "vocab.json",
    ]
    assert chosen(names, {})[1] == [
        "merges.txt",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "vocab.json",
    ]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
        ),
        ("text_encoder/model.fp16.safetensors", "text_encoder/model.safetensors"),
        ("text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"),
        ("text_encoder/pytorch_model.fp16.bin", "text_encoder/model.safetensors"),
        ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
        ("t/model.fp16-00001-of-00002.safetensors", "t/model.fp16-00001-of-00002.safetensors"),
        ("t/model.safetensors.index.fp16.json", "t/model.safetensors.index.json"),
        ("unet/config.json", "unet/config.json"),
        ("sdxl_vae.safetensors", "sdxl_vae.safetensors"),
    ],
)
def test_the_name_that_a_loader_looks_for(name, plain):
    assert canonical(name, "fp16") == plain


def test_the_variants_there_are():
    assert variants(
        SAFE + HALF + weights("non_ema.safetensors", "unet") + weights("bf16.bin") + NEVER
    ) == ["fp16", "non_ema"]


# --- folders on disk: the same rules, the same loader
# ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(ALLOW_PICKLE, raising=False)
    return miniatures.miniature("sd1", tmp_path / "mine")


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a folder's networks as realkit loads them."""
    pipe = rk.load(str(folder)).pipe
    return {
        f"{part}.{key}": value
        for part in STEMS
        for key, value in getattr(pipe, part).state_dict().items()
    }


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[key].float() - b[key].float()).abs().max().item() for key in a)


def own() -> dict[str, torch.Tensor]:
    made = miniatures.networks("sd1")
    return {
        f"{part}.{key}": value
        for part in STEMS
        for key, value in getattr(made, part).state_dict().items()
    }


def test_old_names_and_a_safety_checker_load_without_either(folder):
    miniatures.with_what_others_read(miniatures.with_safety_checker(folder))
    assert furthest(loaded(folder), own()) == 0
    assert not [
        name
        for name in resolve.lock(str(folder)).files
        if name.startswith(("safety_checker", "feature_extractor", "vae_"))
    ]


def test_a_variant_that_covers_only_some_parts(folder):
    miniatures.add_variant(folder, "fp16", ["unet"], alone=True)
    assert 0 < furthest(loaded(folder), own()) < 1e-3  # the half-precision part is what is rounded


def test_shards_of_a_variant(folder):
    miniatures.add_variant(folder, "fp16", ["unet", "text_encoder"], alone=True)
    for part in ("unet", "text_encoder"):
        miniatures.shard(folder, part, "fp16")
    assert len([name for name in resolve.lock(str(folder)).files if "-of-00002" in name]) == 4
    assert 0 < furthest(loaded(folder), own()) < 1e-3


def test_shards(folder):
    for part in ("unet", "text_encoder"):
        miniatures.shard(folder, part)
    assert furthest(loaded(folder), own()) == 0


def test_pickled_weights_are_read_by_the_restricted_unpickler_where_that_was_asked_for(
    folder, monkeypatch
):
    miniatures.pickle_weights(folder)
    with pytest.raises(
        rk.RequestError,
        match=(
            r"holds '\w+/\w+\.bin' without a \.safetensors file beside it.*REALKIT_ALLOW_PICKLE=1"
        ),
    ):
        rk.load(str(folder))
    monkeypatch.setenv(ALLOW_PICKLE, "1")
    assert furthest(loaded(folder), own()) == 0


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("touched-by-a-pickle"),)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (Harm(), "holds more than tensors"),
        ({"a": 1}, "holds no tensors"),
        ([torch.ones(1)], "holds list"),
    ],
)
def test_a_pickle_that_holds_anything_else_is_refused_and_not_run(
    folder, monkeypatch, contents, says, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ALLOW_PICKLE, "1")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(contents, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.load(str(folder))
    assert "\n" not in str(error.value) and not Path("touched-by-a-pickle").exists()


def test_what_a_folder_is_called_and_which_variant_it_holds_does_not_matter_to_its_plain_lock(
    folder, tmp_path
):
    plain = resolve.lock(str(folder))
    renamed = Lock(
        "elsewhere",
        "hub",
        "c0ffee",
        "fp16",
        {name.replace("model.safe", "model.fp16.safe"): sha for name, sha in plain.files.items()},
    )
    assert renamed.fingerprint == plain.fingerprint
