"""What other programs and a camera wrote into a picture comes out of every engine of upscalers, as
a file and in memory, and into each format."""

import importlib.util
import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms

import realkit as rk
from realkit.apps.cli.main import main
from realkit.base import exif, metadata
from realkit.base.warn import warn_once
from realkit.upscalers import faces, upscale
from realkit.upscalers.engines import ENGINES
from realkit.upscalers.table import UPSCALERS, Upscaler
from tests import picture_files as files
from tests import upscaler_miniatures

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DRAWN = {"prompt": "a red cube", "steps": 1}
ORIGINALS = {
    "a1111.png": files.a1111_png(),
    "a1111.jpg": files.a1111_jpeg(),
    "comfyui.png": files.comfyui_png(),
    "comfyui.webp": files.comfyui_webp(),
    "camera.jpg": files.file(
        "jpeg", exif=files.camera(orientation=6), dpi=(300, 300), icc_profile=PROFILE
    ),
}
REALESRGAN = all(map(importlib.util.find_spec, ("realesrgan", "basicsr")))
slow = partial(pytest.param, marks=pytest.mark.slow)
# Of each engine an upscaler, and its settings.
BY_ENGINE = {
    "resample": ("lanczos", {}),
    "opencv": ("opencv-cubic", {}),
    "spandrel": ("rehearsal/compact-x4", {}),
    "transformers": ("rehearsal/swin2sr-x4", {}),
    "realesrgan": ("realesrgan:rehearsal/compact-x4", {}),
    "redraw": ("rehearsal/redraw", DRAWN),
    "diffusers-x4": ("mini-x4", DRAWN),
    "diffusers-latent": ("mini-latent", DRAWN | {"guidance": 1.5}),
    "faces": ("gfpgan", {"landmarks": [(np.array(faces.TEMPLATE) / 24).tolist()]}),
    "chain": ("rehearsal/compact-x4 + rehearsal/redraw", DRAWN),
}
LONG = ("realesrgan", "redraw", "diffusers-x4", "diffusers-latent", "chain")


class Same(torch.nn.Module):
    """A network that restores a face to itself."""

    def forward(self, x, **settings):
        return x, []


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """The catalogue with diffusers' upscalers in miniature, and a restorer loaded for `gfpgan`."""

    def miniature(engine: str) -> None:
        write = {"diffusers-x4": upscaler_miniatures.x4, "diffusers-latent": latent}[engine]
        entry = Upscaler(engine=engine, source=str(write(tmp_path / engine)))
        name = BY_ENGINE[engine][0]
        monkeypatch.setitem(UPSCALERS.__dict__, "_entries", {**UPSCALERS, name: entry})

    def loaded(chain, determined):
        return upscale.Loaded(
            chain, [faces.Restorer(Same(), None, torch.device("cpu"))], torch.device("cpu")
        )

    latent = upscaler_miniatures.latent

    def use(engine: str) -> None:
        if engine.startswith("diffusers"):
            miniature(engine)
        if engine == "faces":
            monkeypatch.setattr(upscale, "_loaded", loaded)

    return use


def check(name: str, about: metadata.Metadata, size: tuple[int, int], upscaler: str) -> None:
    """That a picture says what the original of this name says, and its upscaler."""
    texts = dict(about.texts)
    record = json.loads(texts.pop("realkit"))
    assert record["upscaler"] == upscaler and record["made"]["device"] == "cpu"
    told = {"Postprocess upscale to": f"{size[0]}x{size[1]}", "Postprocess upscaler": upscaler}
    added = ", ".join(f"{key}: {value}" for key, value in told.items()).replace(
        upscaler, f'"{upscaler}"' if ":" in upscaler else upscaler
    )
    if name.startswith("a1111"):
        assert texts == {"parameters": f"{files.A1111}, {added}"}
        return
    assert texts.pop("postprocessing") == added
    if name.startswith("comfyui"):
        assert json.loads(texts.pop("prompt")) == files.GRAPH
        assert json.loads(texts.pop("workflow")) == files.WORKFLOW and not texts
        return
    expected = exif.read(files.camera(orientation=1)).directories
    got = about.exif.directories
    sides = {0xA002: size[0], 0xA003: size[1]}
    for tag, length in sides.items():  # what counts pixels counts the new ones
        kind, data = got[exif.PRIVATE].pop(tag)
        assert (kind, int.from_bytes(data, "little")) == (exif.SHORT, length)
        del expected[exif.PRIVATE][tag]
    assert got == expected and not texts
    assert about.dpi == pytest.approx((300, 300), abs=0.01) and about.profile == PROFILE


@pytest.mark.parametrize(
    "engine", [slow(name) if name in LONG else name for name in (*ENGINES, "chain")]
)
def test_it_comes_out_of_every_engine(engine, entries, tmp_path):
    if engine == "realesrgan" and not REALESRGAN:
        pytest.skip("the extra realesrgan is not installed")
    entries(engine)
    upscaler, settings = BY_ENGINE[engine]
    for name, data in ORIGINALS.items():
        (tmp_path / name).write_bytes(data)
        large = rk.upscale(tmp_path / name, upscaler, 64, **settings)
        check(name, metadata.of(large), large.size, upscaler)
        assert "thumbnail" not in str(large.info.get("exif"))
        for ending in ("png", "jpg", "webp"):
            with Image.open(rk.save(large, tmp_path / f"{name}.{ending}")) as image:
                check(name, metadata.of(image), large.size, upscaler)


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_file_an_image_and_the_command_agree(name, tmp_path):
    path, out = tmp_path / name, tmp_path / "out.png"
    path.write_bytes(ORIGINALS[name])
    image = Image.open(io.BytesIO(ORIGINALS[name]))
    before = dict(image.info)
    of_image, of_path = rk.upscale(image, "lanczos", 64), rk.upscale(str(path), "lanczos", 64)
    assert of_image.info == of_path.info and np.array_equal(of_image, of_path)
    assert image.info.items() >= before.items()  # the picture that was given stays as it was
    called = CliRunner().invoke(
        main, ["upscale", str(path), "--with", "lanczos", "--to", "64", "--out", str(out)]
    )
    assert called.exit_code == 0, called.output
    assert out.read_bytes() == rk.save(of_image, tmp_path / "same.png").read_bytes()
    assert rk.score(of_image, "a cube", scorers=["colour-cast"]) == rk.score(
        Image.open(out), "a cube", scorers=["colour-cast"]
    )


def test_a_profile_of_grey_is_applied_and_the_picture_is_srgb():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = files.gradient().convert("L")
    image.info["icc_profile"] = profile
    assert "icc_profile" not in rk.upscale(image, "lanczos", 64).info


def test_no_picture_at_a_path_is_one_line(tmp_path):
    for path, says in (
        (tmp_path / "none.png", "No picture at"),
        (tmp_path, "No picture at"),
        ("a\0.png", "null byte"),
        ("x" * 5000, "too long"),
        ("~nobody-of-this-name/a.png", "Could not determine home"),
    ):
        for read in (rk.info, lambda path: rk.upscale(path, "lanczos", 64)):
            with pytest.raises(rk.RequestError, match=says) as error:
                read(path)
            assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["transparency", "icc_profile"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I"])
def test_what_pillow_cannot_work_with_is_a_said_loss(name, mode, tmp_path, capsys):
    warn_once.cache_clear()
    image = files.gradient().convert(mode)
    image.info[name] = "x"
    assert rk.info(image)["lost"] == [f"its {name} 'x', of another kind than Pillow's"]
    large = rk.upscale(image, "lanczos", 80)
    assert f"loses its {name} 'x'" in capsys.readouterr().err
    for ending in ("png", "jpg", "webp"):
        for number, picture in enumerate((image, large)):
            path = rk.save(picture, tmp_path / f"{number}.{ending}")
            assert name not in rk.info(path).get("texts", {})
    assert image.info[name] == "x"


@pytest.mark.parametrize(
    ("mode", "value"), [("RGB", (300, 0)), ("P", 5.5), ("L", None), ("I", "x"), ("RGB", 0.0)]
)
def test_another_transparency_is_a_said_loss(mode, value):
    image = files.gradient().convert(mode)
    image.info["transparency"] = value
    assert "its transparency" in rk.info(image)["lost"][0]
    assert rk.upscale(image, "lanczos", 80).mode == "RGB"


def test_a_texts_name_that_pillow_uses_otherwise_is_a_said_loss(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(files.png_of({"transparency": "x", "icc_profile": "y", "Title": "z"}))
    about = rk.info(path)
    assert about["texts"] == {"Title": "z"} and len(about["lost"]) == 2
    large = rk.upscale(path, "lanczos", 80)
    assert large.mode == "RGB" and large.info["Title"] == "z"
