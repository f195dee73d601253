"""Chains, exact sizes, what is kept of a picture, and the upscale stage of a sweep."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageCms

import realkit as rk
from realkit.base import pictures
from realkit.rehearsal.scenes import render
from realkit.upscalers import upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import UPSCALERS, Upscaler

PROMPT = "a photo of a shiny red cone on a checkered floor at noon"


def scene(side: int = 64) -> Image.Image:
    return render(PROMPT, 4, side)


@pytest.mark.slow
def test_a_chain_works_in_its_order_and_ends_at_the_size():
    image = scene()
    made = rk.upscale(
        image, "rehearsal/compact-x4 + rehearsal/redraw", 200, prompt=PROMPT, strength=0.2, steps=5
    )
    redrawn = rk.upscale(
        rk.upscale(image, "rehearsal/compact-x4", 200),
        "rehearsal/redraw",
        200,
        prompt=PROMPT,
        strength=0.2,
        steps=5,
    )
    assert made.size == (200, 200) and np.array_equal(np.asarray(made), np.asarray(redrawn))
    noted = json.loads(made.info["realkit"])["determined"]["upscaler"]["tools"]
    assert (
        [tool["engine"] for tool in noted] == ["spandrel", "redraw"]
        and noted[1]["strength"] == 0.2
        and noted[1]["prompt"] == PROMPT
    )


def test_passes_go_on_until_the_size_is_reached(monkeypatch):
    monkeypatch.setattr("realkit.upscalers.networks.Enlarger._pixels", lambda self: 1e9)
    loaded = upscale.load_upscaler(Chain.parse("rehearsal/compact-x4"))
    tool, sides = loaded.tools[0], []
    run = tool.network.run
    tool.network.run = lambda x: sides.append(x.shape[-1] - 2 * tool.pre_pad) or run(x)
    for to, seen in (
        (8, [16]),
        (40, [16]),
        (64, [16]),
        (65, [16, 64]),
        (256, [16, 64]),
        (300, [16, 64, 256]),
    ):
        sides.clear()
        made, used = loaded(scene(16), (to, to))
        assert made.size == (to, to) and sides == seen and used["tile"] is None


def test_another_aspect_is_cut_in_the_middle_or_kept():
    ramp = Image.fromarray(
        np.tile(np.linspace(0, 255, 120).astype(np.uint8)[None, :, None], (40, 1, 3))
    )
    cut = np.asarray(rk.upscale(ramp, "bicubic", (80, 80)))
    assert (
        cut.shape == (80, 80, 3)
        and abs(int(cut[:, 0].mean()) - 85) < 4
        and abs(int(cut[:, -1].mean()) - 170) < 4
    )
    assert rk.upscale(ramp, "bicubic", (80, 80), fit="keep").size == (80, 27)
    with pytest.raises(rk.RequestError, match="fit 'stretch': expected one of crop, keep"):
        rk.upscale(ramp, "bicubic", (80, 80), fit="stretch")


def test_grey_stays_grey():
    grey = scene().convert("L")
    made = np.asarray(rk.upscale(grey, "rehearsal/esrgan-x4", 256))
    assert made.shape == (256, 256, 3) and (made == made[..., :1]).all()


def test_colours_stay_what_their_profile_means():
    swapped = Image.new("RGB", (8, 8), (200, 30, 60))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = rk.upscale(_with(swapped, lab), "lanczos", 16)
    assert np.abs(np.asarray(same).astype(int) - (200, 30, 60)).max() <= 1
    broken = swapped.copy()
    broken.info["icc_profile"] = b"none"
    assert rk.upscale(broken, "lanczos", 16).getpixel((3, 3)) == (200, 30, 60)


def test_a_wide_profile_changes_what_the_numbers_mean(tmp_path):
    """A picture in a space with the red and green primaries swapped: its red is sRGB's green. It
    is enlarged in its own space, and keeps the profile that says so."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {
        bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i
        for i in range(int.from_bytes(profile[128:132], "big"))
    }
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.info["icc_profile"] = bytes(profile)
    kept = io.BytesIO()
    image.save(kept, "png", icc_profile=bytes(profile))
    seen = rk.upscale(Image.open(kept), "lanczos", 16)
    assert seen.info["icc_profile"] == bytes(profile)
    as_seen = np.asarray(pictures.plain(seen)).astype(int)
    assert np.abs(np.asarray(seen).astype(int) - (255, 0, 0)).max() <= 1
    assert np.abs(as_seen - (0, 255, 0)).max() <= 4


def _with(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    image = image.copy()
    image.info["icc_profile"] = profile.tobytes()
    return image


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("rehearsal/redraw", {}, "draws what a prompt says, and has no prompt"),
        ("sd-upscale", {"prompt": "a"}, "redraws with a model: name one, model=NAME"),
        ("lanczos", {"strength": 0.5}, "does not use 'strength'"),
        ("rehearsal/esrgan-x4", {"tile": 3}, "tile 3: Input should be greater than or equal to 16"),
        (
            "rehearsal/redraw",
            {"prompt": "a", "strength": 0},
            "strength 0: Input should be greater than or equal to 0.001",
        ),
        ("rehearsal/redraw", {"prompt": "a", "sampler": "Nope"}, "Unknown sampler 'Nope'"),
        ("lanczos", {"banana": 1}, "Unknown setting 'banana' of an upscaler"),
        ("lanczos + nope", {}, "Unknown upscaler 'nope'"),
        ("", {}, "Unknown upscaler ''"),
        (3, {}, "Unknown upscaler 3"),
        ("http://host/a.pth?token=SEKRETSEKRET", {}, "holds a secret"),
        ("https://me:SEKRETSEKRET@host/a.pth", {}, "holds a secret"),
    ],
)
def test_a_bad_request_is_one_line_before_any_work(name, settings, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.upscale(scene(16), name, 64, **settings)
    assert "\n" not in str(error.value) and "SEKRET" not in str(error.value)


def test_landmarks_go_with_the_picture():
    moved = upscale._moved(
        Settings(landmarks=[[(10, 20), (30, 20)]]), (5.0, 0.0, 45.0, 40.0), (80, 80)
    )
    assert moved.landmarks == [[(10.0, 40.0), (50.0, 40.0)]]
    assert upscale._moved(Settings(), (0, 0, 1, 1), (2, 2)) == Settings()


def test_what_is_downloaded_by_hand_says_from_where(tmp_path, monkeypatch, weights):
    import shutil

    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path))
    entry = Upscaler(
        engine="spandrel",
        file="x4.safetensors",
        page="https://openmodeldb.info/models/x",
        scale=4,
        pre_pad=8,
    )
    monkeypatch.setitem(UPSCALERS.__dict__, "_entries", {"by-hand": entry})
    with pytest.raises(
        rk.RequestError,
        match=(
            r"must be downloaded by hand: from https://openmodeldb.info/models/x, the file"
            r" 'x4.safetensors', put into '.*upscalers'"
        ),
    ):
        rk.upscale(scene(16), "by-hand", 64)
    shutil.copy(
        weights / "esrgan-x4" / "model.safetensors", tmp_path / "upscalers" / "x4.safetensors"
    )
    assert rk.upscale(scene(16), "by-hand", 64).size == (64, 64)


# --- the stage


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    base = dict(models="rehearsal/base", prompts=PROMPT, steps=3, size=64, seeds=2)
    rk.run(base, folder)
    more = base | {
        "upscalers": ["rehearsal/esrgan-x4", "rehearsal/swin2sr-x4", "lanczos"],
        "target": 256,
    }
    return folder, more, rk.run(more, folder)


def rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_three_upscalers_over_a_finished_sweep_denoise_nothing(swept):
    folder, more, run = swept
    found = [row["stage"] for row in rows(folder)]
    assert (found.count("denoise"), found.count("decode"), found.count("upscale")) == (2, 2, 6)
    frame = run.table()
    assert (
        len(frame) == 6
        and set(frame.status) == {"ok"}
        and set(zip(frame.image_width, frame.image_height, strict=True)) == {(256, 256)}
    )
    rk.run(more, folder)
    assert len(rows(folder)) == 10


def test_the_row_names_parent_size_tile_dtype_seconds_and_memory(swept):
    made = {row["id"]: row for row in rows(swept[0])}
    for row in made.values():
        if row["stage"] == "upscale":
            assert made[row["parent"]]["stage"] == "decode" and (
                row["image_width"],
                row["image_height"],
            ) == (256, 256)
            assert row["upscale_s"] > 0 and row["peak_ram_gib"] > 0 and row["device"] == "cpu"
    frame = swept[2].table()
    networks = frame[frame.upscaler != "lanczos"]
    assert (
        set(networks.upscale_dtype) == {"float32"}
        and (networks.upscale_peak_ram_gib > 0).all()
        and "tile" in frame
    )


def test_a_tiled_row_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("realkit.upscalers.networks.Enlarger._pixels", lambda self: 60.0**2)
    run = rk.run(
        dict(
            models="rehearsal/base",
            prompts=PROMPT,
            steps=1,
            size=64,
            upscalers="rehearsal/compact-x4",
            target=256,
        ),
        tmp_path,
    )
    assert run.table().tile.notna().all()


def test_strength_is_an_axis_of_what_redraws_and_collapses_elsewhere(tmp_path):
    sweep = rk.Sweep(
        models="rehearsal/base",
        prompts=PROMPT,
        steps=4,
        size=64,
        upscalers=["rehearsal/redraw", "sd-upscale", "lanczos"],
        target=96,
        strength=[0.25, 0.75],
    )
    assert len(sweep.cells()) == 5
    frame = rk.run(sweep, tmp_path).table()
    assert frame.status.tolist() == ["ok"] * 5 and sorted(frame.strength.dropna()) == [
        0.25,
        0.25,
        0.75,
        0.75,
    ]
    images = {
        (row.upscaler, row.strength): np.asarray(Image.open(tmp_path / row.image)).astype(int)
        for row in frame.itertuples()
    }
    assert np.array_equal(
        images["sd-upscale", 0.25], images["rehearsal/redraw", 0.25]
    )  # the cell's own model is the entry's
    assert np.abs(images["sd-upscale", 0.25] - images["sd-upscale", 0.75]).mean() > 1


def test_a_changed_upscaler_is_noticed_on_resume(tmp_path, weights):
    import shutil

    path = tmp_path / "mine.safetensors"
    shutil.copy(weights / "compact-x4" / "model.safetensors", path)
    sweep = dict(
        models="rehearsal/base", prompts=PROMPT, steps=1, size=64, upscalers=str(path), target=256
    )
    rk.run(sweep, tmp_path / "run")
    shutil.copy(weights / "esrgan-x4" / "model.safetensors", path)
    with pytest.raises(rk.RequestError, match="has changed since this results folder was made"):
        rk.run(sweep, tmp_path / "run")


def test_pictures_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    sweep = dict(
        models="rehearsal/base",
        prompts=PROMPT,
        steps=1,
        upscalers="rehearsal/compact-x4",
        target=16_384,
    )
    monkeypatch.setattr("realkit.base.measure.ram_free", lambda: 2.0)
    with pytest.raises(
        rk.RequestError, match=r"16384×16384 by 'rehearsal/compact-x4' needs .* 2\.0 GiB are free"
    ):
        rk.run(sweep, tmp_path / "a")
    monkeypatch.setattr("realkit.base.measure.ram_free", lambda: 2000.0)
    monkeypatch.setattr("realkit.base.cache.free_bytes", lambda _: 10**6)
    with pytest.raises(rk.RequestError, match=r"pictures need about \S+ MiB more .* \S+ are free"):
        rk.run(sweep, tmp_path / "b")
    assert (
        not (tmp_path / "a" / "rows.jsonl").exists()
        and not (tmp_path / "b" / "rows.jsonl").exists()
    )


def test_targets_as_people_write_them():
    assert pictures.written_target("2048") == 2048 and pictures.written_target("640x480") == (
        640,
        480,
    )
    for wrong in ("0", "axb", "3x", "1x2x3", "-5", "99999"):
        with pytest.raises(rk.RequestError, match="Target size"):
            pictures.written_target(wrong)
