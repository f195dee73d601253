"""`rk.save`: formats, files that exist, and one line for what cannot be written."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import realkit as rk
from realkit.base import metadata, pictures
from tests import picture_files as files


@pytest.mark.parametrize("ending", ["png", "PNG", "jpg", "jpeg", "webp"])
def test_the_ending_chooses_the_format(tmp_path, ending):
    path = rk.save(files.gradient(), tmp_path / f"a.{ending}")
    expected = {"png": "PNG", "webp": "WEBP"}.get(ending.lower(), "JPEG")
    assert path == tmp_path / f"a.{ending}" and Image.open(path).format == expected


def test_quality_is_what_was_asked_for(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    best = rk.save(image, tmp_path / "best.webp", quality=100)
    assert np.array_equal(np.asarray(Image.open(best)), np.asarray(image))
    for ending in ("jpg", "webp"):
        sizes = []
        for quality in (20, None, 100):
            path = tmp_path / f"{quality}.{ending}"
            sizes.append(rk.save(image, path, quality=quality).stat().st_size)
        assert sizes == sorted(sizes)


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a.png"
    rk.save(files.gradient(), path)
    before = path.stat().st_mtime_ns
    assert rk.save(files.gradient(), str(path)) == path and path.stat().st_mtime_ns == before
    other = Image.new("RGB", (8, 8), "red")
    with pytest.raises(rk.RequestError, match=r"it exists. Give another name, or overwrite=True"):
        rk.save(other, path)
    assert Image.open(path).size == (40, 24)
    rk.save(other, path, overwrite=True)
    assert Image.open(path).size == (8, 8)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a.gif", {}, "expected a name that ends in .png, .jpg, .jpeg, .webp"),
        ("a", {}, "expected a name that ends in"),
        ("no/a.png", {}, "its folder does not exist"),
        ("folder.png", {}, "it is a folder"),
        ("a" * 300 + ".png", {}, "too long"),
        ("a\0.png", {}, "null byte"),
        ("~nobody-of-this-name/a.png", {}, "home directory"),
        ("a.png", {"quality": 90}, "PNG is without loss"),
        ("a.jpg", {"quality": 101}, "quality 101: expected 1 to 100"),
        ("a.jpg", {"quality": True}, "quality True: expected 1 to 100"),
        ("a.jpg", {"quality": "high"}, "quality 'high'"),
        ("a.png", {"overwrite": "no"}, "overwrite 'no': expected True or False"),
    ],
)
def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.save(files.gradient(), name, **options)
    assert "\n" not in str(error.value) and [*tmp_path.iterdir()] == [tmp_path / "folder.png"]


@pytest.mark.parametrize("path", [None, 7, b"a.png"])
def test_what_is_no_path_is_one_line(path):
    with pytest.raises(rk.RequestError, match=r"expected a text or a pathlib\.Path"):
        rk.save(files.gradient(), path)
    with pytest.raises(rk.RequestError, match="expected a PIL image"):
        rk.save("a.png", "b.png")


def test_a_side_that_a_format_does_not_hold_is_refused(tmp_path):
    wide = Image.new("RGB", (16_384, 1))
    with pytest.raises(rk.RequestError, match=r"WebP holds 16383 pixels a side.* Save it as PNG"):
        rk.save(wide, tmp_path / "a.webp")
    assert Image.open(rk.save(wide, tmp_path / "a.png")).size == (16_384, 1)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "HSV"]
)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_every_kind_of_pixels_is_seen_as_it_was(tmp_path, mode, ending):
    image = files.gradient().convert("L" if mode.startswith("I") else mode)
    if mode.startswith("I"):
        number = np.uint16 if mode == "I;16" else np.int32
        image = Image.fromarray(np.asarray(image).astype(number) * 257)
        assert image.mode == mode
    again = Image.open(rk.save(image, tmp_path / f"a.{ending}"))
    seen = np.asarray(pictures.opaque(again)).astype(int)
    difference = np.abs(seen - np.asarray(pictures.opaque(image)))
    assert difference.max() == 0 if ending == "png" else difference.mean() < 4


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(rk.RequestError, match="floating-point"):
        rk.save(Image.new("F", (8, 8)), tmp_path / "a.png")


def test_transparency_is_kept_or_shown_on_white_and_said(tmp_path, capsys):
    metadata.warn_once.cache_clear()
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    for ending in ("png", "webp"):
        path = rk.save(image, tmp_path / f"a.{ending}")
        assert Image.open(path).convert("RGBA").getpixel((3, 3))[3] == 0
    assert not capsys.readouterr().err
    assert Image.open(rk.save(image, tmp_path / "a.jpg")).getpixel((3, 3)) == (255, 255, 255)
    assert "JPEG has no transparency" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_turned_picture_stays_turned_and_keeps_its_profile(tmp_path, ending):
    """Its pixels are not touched, so neither is what EXIF says of them."""
    image = Image.open(io.BytesIO(files.camera_jpeg(orientation=6)))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    again = Image.open(rk.save(image, tmp_path / f"a.{ending}"))
    assert again.getexif()[0x0112] == 6 and again.size == (40, 24)
    assert again.info["icc_profile"] == profile


def test_other_frames_and_iptc_are_said_to_be_lost(tmp_path, capsys):
    metadata.warn_once.cache_clear()
    frames = io.BytesIO()
    files.gradient().save(frames, "gif", save_all=True, append_images=[Image.new("RGB", (40, 24))])
    rk.save(Image.open(frames), tmp_path / "a.png")
    image = files.gradient()
    image.info["photoshop"] = {0x0404: b"caption"}
    rk.save(image, tmp_path / "b.png")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "other frames" in said[0] and "IPTC" in said[1]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = rk.save(files.gradient(), tmp_path / "a.png")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(rk.RequestError, match="No space"):
        rk.save(Image.new("RGB", (8, 8)), path, overwrite=True)
    assert Image.open(path).size == (40, 24) and [*Path(tmp_path).iterdir()] == [path]
