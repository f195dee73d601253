"""The grammar of references: what each way to name weights means, without a look at any disk or
network."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

import realkit as rk
from realkit.weights.reference import (
    CIVITAI_ENDPOINT,
    Reference,
    existing_path,
    of_mount,
    opens_with_civitai_token,
    parse,
    with_variant_last,
)

HUB = "https://huggingface.co/owner/name"


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv(CIVITAI_ENDPOINT, raising=False)


@pytest.mark.parametrize(
    ("text", "reference", "written"),
    [
        ("package:base", Reference("package", "base"), ""),
        ("config:sdxl", Reference("config", "sdxl"), ""),
        ("kaggle:owner/slug/", Reference("kaggle", "owner/slug"), "kaggle:owner/slug"),
        ("owner/name", Reference("hub", "owner/name"), ""),
        (
            "owner/name@refs/pr/1:fp16",
            Reference("hub", "owner/name", "refs/pr/1", variant="fp16"),
            "",
        ),
        (
            "owner/name@v1/unet/a b.safetensors",
            Reference("hub", "owner/name", "v1", "unet/a b.safetensors"),
            "",
        ),
        (HUB, Reference("hub", "owner/name"), "owner/name"),
        ("hf.co/owner/name/tree/main", Reference("hub", "owner/name"), "owner/name"),
        (
            f"{HUB}/resolve/v1/a.safetensors?download=true",
            Reference("hub", "owner/name", "v1", "a.safetensors"),
            "owner/name@v1/a.safetensors",
        ),
        ("civitai:7", Reference("civitai", "7"), ""),
        (
            "Civitai:7@22?fp=fp16&type=VAE",
            Reference("civitai", "7", "22", query=(("type", "VAE"), ("fp", "fp16"))),
            "civitai:7@22?type=VAE&fp=fp16",
        ),
        (
            "https://civitai.com/models/7/photo?modelVersionId=22",
            Reference("civitai", "7", "22"),
            "civitai:7@22",
        ),
        (
            "https://civitai.com/api/download/models/22?type=VAE&x=1",
            Reference("civitai", "", "22", query=(("type", "VAE"),)),
            "civitai:@22?type=VAE",
        ),
        ("https://example.org/a.pth?x=1", Reference("url", "https://example.org/a.pth?x=1"), ""),
        ("./owner/name.safetensors", Reference("path", "./owner/name.safetensors"), ""),
        ("~/models", Reference("path", "~/models"), ""),
        ("owner/name.SAFETENSORS", Reference("path", "owner/name.SAFETENSORS"), ""),
        ("sd-1.5", Reference("name", "sd-1.5"), ""),
        ("a folder/of mine/deep", Reference("name", "a folder/of mine/deep"), ""),
        ("", Reference("name", ""), ""),
    ],
)
def test_each_way_to_name_weights(text, reference, written):
    assert parse(text) == reference
    assert str(reference) == (written or text) and parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kaggle:slug", "expected kaggle:OWNER/SLUG"),
        ("civitai:photo", "expected civitai:MODEL or civitai:MODEL@VERSION"),
        ("civitai:٧", "expected civitai:MODEL or civitai:MODEL@VERSION"),
        ("civitai:7?vae=1", "asks for 'vae': expected some of type, format, size, fp"),
        ("https://civitai.com/user/7", "expected …/models/NUMBER"),
        ("https://[a/b", r"^Cannot parse the address 'https://\[a/b' \(.*\): correct it"),
    ],
)
def test_what_lacks_its_parts_is_refused_in_one_line(text, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "suffix", "single"),
    [
        ("https://example.org/a.PTH?download=1", ".pth", True),
        ("owner/name@v1/a.ckpt", ".ckpt", True),
        ("civitai:7", "", True),
        ("./folder", "", False),
        ("owner/name-v1.5", ".5", False),
    ],
)
def test_whether_a_reference_names_one_file(text, suffix, single):
    assert (parse(text).suffix, parse(text).single) == (suffix, single)


def test_a_mirror_of_civitai_is_read_like_the_site(monkeypatch):
    address = "http://localhost:8080/models/7"
    assert parse(address).kind == "url" and not opens_with_civitai_token(address)
    monkeypatch.setenv(CIVITAI_ENDPOINT, "http://localhost:8080/")
    assert parse(address) == Reference("civitai", "7") and opens_with_civitai_token(address)


def test_both_forms_of_a_mount_mean_a_kaggle_reference():
    assert of_mount(PurePosixPath("datasets/owner/slug/a.safetensors")) == parse(
        "kaggle:owner/slug/a.safetensors"
    )
    assert of_mount(PurePosixPath("slug/a.safetensors")) == Reference(
        "kaggle", "*/slug/a.safetensors"
    )


def test_a_variant_before_the_revision_is_swapped():
    assert with_variant_last("owner/name:fp16@main") == "owner/name@main:fp16"
    assert with_variant_last("owner/name@main:fp16") == with_variant_last("a photo") == ""


def test_text_that_cannot_be_a_path_is_no_path(tmp_path):
    assert existing_path(str(tmp_path)) == tmp_path
    assert [
        existing_path(text)
        for text in (
            "",
            "  ",
            "x" * 5000,
            "a\0b",
            "~nobody-of-this-name/a",
            str(tmp_path / "absent"),
        )
    ] == [None] * 6
