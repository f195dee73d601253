"""A restored picture against its truth: each measure by hand, the comparison on the rehearsal
upscalers, photographs as they come."""

import math
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

import realkit as rk
from realkit.analysis import before_after, verdicts
from realkit.scorers import likeness
from realkit.scorers.likeness import ALEXNET, MEASURES
from realkit.upscalers import benchmark
from realkit.upscalers.benchmark import COLUMNS
from tests.cuts import thinned


def flat(*colour, size=64):
    return Image.new("RGB", (size, size), colour)


@pytest.fixture(scope="module")
def scene():
    return benchmark.truths("rehearsal", 1, 128)[0][1]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two held-out scenes, restored by the baseline, the rehearsal networks and a file that is no
    upscaler."""
    broken = tmp_path_factory.mktemp("broken") / "broken.safetensors"
    broken.write_bytes(b"no weights")
    names = [
        "bicubic",
        "rehearsal/esrgan-x4",
        "rehearsal/compact-x4",
        "rehearsal/swin2sr-x4",
        str(broken),
    ]
    return benchmark.compare(benchmark.truths("rehearsal", 2, 256), names, tile=48)


# --- measures


def test_psnr_is_that_of_the_formula_and_leaves_out_the_border():
    assert likeness.psnr(flat(100, 100, 100), flat(105, 105, 105)) == pytest.approx(
        10 * math.log10(255**2 / 25)
    )
    assert likeness.psnr(flat(100, 100, 100), flat(105, 100, 100)) == pytest.approx(
        10 * math.log10(3 * 255**2 / 25)
    )
    framed = flat(0, 0, 0)
    framed.paste((100, 100, 100), (4, 4, 60, 60))
    assert (
        likeness.psnr(flat(100, 100, 100), framed, shave=4)
        == math.inf
        > likeness.psnr(flat(100, 100, 100), framed, shave=3)
    )


def test_ssim_of_two_even_pictures_is_its_luminance_term():
    c1 = (0.01 * 255) ** 2
    assert likeness.ssim(flat(100, 100, 100), flat(150, 150, 150)) == pytest.approx(
        (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-6
    )


def test_a_perfect_restoration_is_perfect_by_every_measure(scene):
    found = (
        likeness.psnr(scene, scene),
        likeness.ssim(scene, scene),
        likeness.sharpness(scene, scene),
        likeness.colour_shift(scene, scene),
    )
    assert found == (math.inf, pytest.approx(1), pytest.approx(1), 0)


def test_sharpness_tells_blurred_from_oversharpened_and_needs_an_edge(scene):
    blurred, crisp = (
        scene.filter(kind)
        for kind in (ImageFilter.GaussianBlur(2), ImageFilter.UnsharpMask(2, 150, 0))
    )
    assert likeness.sharpness(scene, blurred) < 0.7 < 1.1 < likeness.sharpness(scene, crisp)
    assert likeness.sharpness(flat(9, 9, 9), flat(9, 9, 9)) is None


def test_colour_shift_sees_a_tint_and_no_blur(scene):
    red, green, blue = scene.split()
    tinted = Image.merge("RGB", (red.point(lambda v: v + 12), green, blue))
    assert (
        likeness.colour_shift(scene, tinted)
        > 2
        > 0.5
        > likeness.colour_shift(scene, scene.filter(ImageFilter.GaussianBlur(2)))
    )


def test_colour_shift_is_in_units_of_ciede2000():
    from skimage.color import deltaE_ciede2000

    assert deltaE_ciede2000([50, 2.6772, -79.7751], [50, 0, -82.7485]) == pytest.approx(
        2.0425, abs=1e-4
    )  # Sharma et al. 2005, table 1, pair 1
    assert likeness.colour_shift(flat(0, 0, 0), flat(255, 255, 255)) == pytest.approx(100, abs=0.01)


def test_lpips_says_in_one_line_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert likeness.lpips() == "the package lpips is not installed: pip install lpips"
    monkeypatch.setitem(sys.modules, "lpips", type(sys)("lpips"))
    sys.modules["lpips"].LPIPS = None
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "ask for its download, or attach it" in likeness.lpips()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / ALEXNET).write_bytes(b"cut short")
    assert (
        likeness.lpips().startswith("its backbone does not load: ") and "\n" not in likeness.lpips()
    )


def test_lpips_grows_with_the_distance_where_its_package_is(monkeypatch, tmp_path, scene):
    pytest.importorskip("lpips")
    import torch
    from torchvision.models import alexnet

    torch.manual_seed(0)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / ALEXNET)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    distance = likeness.lpips()
    assert (
        distance(scene, scene)
        == 0
        < distance(scene, scene.filter(ImageFilter.GaussianBlur(1)))
        < distance(scene, scene.filter(ImageFilter.GaussianBlur(4)))
    )


# --- the comparison


NETWORKS = ["rehearsal/esrgan-x4", "rehearsal/compact-x4", "rehearsal/swin2sr-x4"]


@pytest.mark.parametrize("name", thinned(NETWORKS, NETWORKS[1:2]))
def test_each_network_restores_more_than_bicubic(compared, name):
    by = compared.frame.pivot(index="picture", columns="upscaler", values=list(MEASURES))
    assert (by["psnr_db"][name] > by["psnr_db"]["bicubic"]).all() and (
        by["sharpness"][name] > by["sharpness"]["bicubic"]
    ).all()
    assert by["psnr_db"][name].mean() - by["psnr_db"]["bicubic"].mean() >= 1


def test_a_line_says_how_it_was_done(compared):
    line = compared.frame[compared.frame["upscaler"] == "rehearsal/esrgan-x4"].iloc[0]
    assert (line["dtype"], line["device"], line["status"]) == ("float32", "cpu", "ok")
    assert np.isnan(line["tile"])  # one tile reads all of it
    assert (
        line["input_width"],
        line["input_height"],
        line["image_width"],
        line["image_height"],
    ) == (64, 64, 256, 256)
    assert (
        line["seconds"] > 0
        and line["load_s"] > 0
        and line["peak_ram_gib"] > 0
        and np.isnan(line["peak_vram_gib"])
    )
    assert list(compared.frame.columns) == list(COLUMNS) and compared.frame[
        "lpips"
    ].isna().all() == bool(compared.notes)


def test_a_failing_upscaler_is_a_line_for_every_picture(compared):
    failed = compared.frame[compared.frame["status"] != "ok"]
    assert (
        len(compared.frame) == 10
        and len(failed) == 2
        and failed["status"].eq("failed").all()
        and failed["psnr_db"].isna().all()
    )
    assert (
        failed["error"].str.match(r"^RequestError: .*broken\.safetensors").all()
        and not failed["error"].str.contains("\n").any()
    )


def test_the_pictures_are_kept_where_asked(compared):
    picture = next(iter(compared.truths))
    assert list(compared.of(picture)) == [
        "truth",
        "small",
        "bicubic",
        "rehearsal/esrgan-x4",
        "rehearsal/compact-x4",
        "rehearsal/swin2sr-x4",
    ]
    with pytest.raises(rk.RequestError, match="Unknown picture 'nope'"):
        compared.of("nope")
    assert benchmark.compare([("a", flat(1, 2, 3))], ["nearest"], keep=False).restored == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"names": ["bicubik"]}, "Unknown upscaler 'bicubik'"),
        ({"names": []}, "0 upscalers, 1 pictures of 1 names"),
        ({"truths": []}, "1 upscalers, 0 pictures"),
        ({"truths": [("a", flat(0, 0, 0)), ("a", flat(1, 1, 1))]}, "2 pictures of 1 names"),
        ({"scale": 5}, "64×64 cannot be shrunk by 5"),
        ({"scale": 1}, "cannot be shrunk by 1"),
        ({"tile": 64}, "None of the upscalers uses 'tile'"),
        ({"tyle": 64}, "Unknown setting 'tyle'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(change, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        benchmark.compare(**{"truths": [("a", flat(0, 0, 0))], "names": ["bicubic"]} | change)
    assert "\n" not in str(error.value)


def test_pictures_of_several_sizes_are_compared_at_their_own():
    frame = benchmark.compare(
        [("a", flat(1, 2, 3)), ("b", flat(1, 2, 3, size=96))], ["bicubic"], scale=2
    ).frame
    assert (
        list(frame["input_width"]) == [32, 48]
        and list(frame["image_width"]) == [64, 96]
        and frame["psnr_db"].eq(math.inf).all()
    )


# --- verdicts


def table(**psnr):
    import pandas as pd

    rows = [
        {"upscaler": name, "picture": str(n), "psnr_db": value, "status": "ok"}
        for name, values in psnr.items()
        for n, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_a_verdict_is_of_paired_differences():
    frame = table(
        bicubic=[20.0, 30, 40, 50, 25, 35],
        lanczos=[21.0, 31.2, 40.9, 51.1, 26, 36.1],
        nearest=[19.0, 28, 39, 47, 23.5, 33],
        bilinear=[21.0, 29, 41, 49, 26, 34],
    )
    found = verdicts.restoration_verdict(frame).set_index("upscaler")
    assert found["verdict"].to_dict() == {
        "lanczos": "better",
        "nearest": "worse",
        "bilinear": "undecided",
    } and found.loc["lanczos", "gain"] == pytest.approx(1.05)
    assert (found["low"] < found["gain"]).all() and (found["gain"] < found["high"]).all()


def test_an_interval_covers_what_it_says_for_few_pictures():
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 1, (100, 4))
    found = [
        verdicts.restoration_verdict(table(bicubic=[0.0] * 4, lanczos=list(gain))).iloc[0]
        for gain in drawn
    ]
    assert np.mean([line["low"] <= 0 <= line["high"] for line in found]) >= 0.9


def test_direction_counts_and_one_picture_is_no_verdict():
    frame = table(bicubic=[1.0, 1.0], lanczos=[1.0, 2.0]).assign(
        sharpness=[0.5, 0.6, 1.1, 1.2], colour_shift=[1.0, 2, 3, 4]
    )
    found = verdicts.restoration_verdict(frame).set_index("measure")
    assert (
        found.loc["sharpness", "gain"] == pytest.approx(0.3)
        and found.loc["colour_shift", "gain"] == -2
    )
    assert list(verdicts.restoration_verdict(table(bicubic=[1.0], lanczos=[2.0]))["verdict"]) == [
        "undecided"
    ]
    with pytest.raises(
        rk.RequestError, match="baseline 'nearest': expected one of bicubic, lanczos"
    ):
        verdicts.restoration_verdict(frame, "nearest")


# --- truths


def test_photographs_come_upright_square_and_in_srgb(tmp_path):
    wide = Image.new("RGB", (90, 60), "red")
    wide.paste("blue", (45, 0, 90, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: the left is up
    (tmp_path / "below").mkdir()
    wide.save(tmp_path / "below" / "a.png", exif=exif)
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "b.webp", lossless=True)
    (tmp_path / "._b.png").write_bytes(b"what a Mac leaves")
    (tmp_path / "notes.txt").write_text("no picture")
    found = dict(benchmark.truths(tmp_path, 5, 32))
    assert list(found) == ["b.webp", "below/a.png"] and all(
        image.size == (32, 32) and image.mode == "RGB" for image in found.values()
    )
    assert found["below/a.png"].getpixel((16, 2)) == (255, 0, 0) and found["below/a.png"].getpixel(
        (16, 29)
    ) == (0, 0, 255)
    assert (
        found["b.webp"].getpixel((5, 5)) == (255, 255, 255)
        and len(benchmark.truths(tmp_path, 1, 32)) == 1
    )


def test_what_cannot_be_a_truth_is_left_out_and_said(tmp_path):
    Image.new("RGB", (64, 31)).save(tmp_path / "a-small.png")
    (tmp_path / "b-broken.jpg").write_bytes(b"\xff\xd8 no more")
    Image.new("RGB", (64, 64)).save(tmp_path / "c.png")
    with pytest.warns(
        UserWarning, match=r"1 pictures .* 2 skipped, such as a-small.png is 64×31: expected 32×32"
    ):
        assert [name for name, _ in benchmark.truths(tmp_path, 3, 32)] == ["c.png"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("nowhere", 1), "Source 'nowhere': expected 'rehearsal' or a folder"),
        (("EMPTY", 1), r"holds no picture of 512×512 pixels or more: looked for \.jpg"),
        (("rehearsal", 0), "count 0: expected a number of pictures"),
        (("rehearsal", 1, 8), "size 8: expected 32 to"),
    ],
)
def test_a_source_without_pictures_is_one_line(tmp_path, given, says):
    source, *rest = given
    with pytest.raises(rk.RequestError, match=says) as error:
        benchmark.truths(tmp_path if source == "EMPTY" else source, *rest)
    assert "\n" not in str(error.value)


def test_rendered_scenes_are_held_out_ones_with_names_of_their_own():
    from realkit.rehearsal.wording import captions

    names = [name for name, _ in benchmark.truths("rehearsal", len(captions("heldout")) + 1, 32)]
    assert len(set(names)) == len(names) and "a photo of " + names[0] in captions("heldout")


def test_shrinking_is_bicubic_antialiased_and_keeps_what_is_even(scene):
    assert benchmark.shrunk(scene, 4).size == (32, 32) and benchmark.shrunk(
        flat(7, 8, 9), 4
    ).getcolors() == [(256, (7, 8, 9))]
    stripes = Image.fromarray(
        np.tile(np.array([0, 0, 255, 255], np.uint8)[None, :, None], (64, 16, 3))
    )
    assert (
        np.ptp(np.asarray(benchmark.shrunk(stripes, 4)).astype(int)[:, 2:-2]) <= 1
    )  # finer than a pixel: grey, no moire


# --- the slider


def test_the_slider_moves_the_border():
    shown = {"small": flat(255, 0, 0, size=16), "large": flat(0, 0, 255)}
    picture = before_after.joined(shown["small"], shown["large"], 0.25, 64)
    assert [picture.getpixel((x, 30)) for x in (14, 16, 18)] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]
    with pytest.raises(rk.RequestError, match="No picture 'nope': expected one of small, large"):
        before_after.before_after(shown, "nope", "large")


def test_a_baseline_that_fails_is_named():
    comparison = benchmark.compare([("one", Image.new("RGB", (64, 64), "red"))], ["bicubic"], 4)
    verdicts.check_baseline(comparison.frame, "bicubic")
    failed = comparison.frame.assign(status="failed", error="the file is damaged")
    with pytest.raises(
        rk.RequestError, match="baseline 'bicubic' restored nothing: the file is damaged"
    ):
        verdicts.check_baseline(failed, "bicubic")


def test_psnr_of_the_luma_is_the_papers():
    rng = np.random.default_rng(0)
    truth, restored = (rng.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(2))
    pictures = [Image.fromarray(pixels) for pixels in (truth, restored)]
    # BT.601 as MATLAB's rgb2ycbcr writes it: white is 235, black 16
    lumas = []
    for pixels in (truth, restored):
        lumas.append(16 + pixels[4:-4, 4:-4] / 255 @ np.array([65.481, 128.553, 24.966]))
    assert pytest.approx(235) == 16 + 65.481 + 128.553 + 24.966
    expected = 10 * math.log10(255**2 / np.mean((lumas[0] - lumas[1]) ** 2))
    assert likeness.psnr_y(*pictures, shave=4) == pytest.approx(expected)
    grey = [Image.fromarray(np.repeat(pixels[..., :1], 3, 2)) for pixels in (truth, restored)]
    # of grey pictures the luma spans 219 of 255 levels: the same error counts less
    gap = likeness.psnr_y(*grey) - likeness.psnr(*grey)
    assert gap == pytest.approx(20 * math.log10(255 / 219))
    assert likeness.psnr_y(pictures[0], pictures[0]) == math.inf
    assert {"psnr_db", "psnr_shaved_db", "psnr_y_db"} <= set(COLUMNS) & set(MEASURES)


def test_pictures_of_other_endings_are_said(tmp_path, recwarn):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.gif")
    (tmp_path / "c.HEIC").write_bytes(b"x")
    assert len(benchmark.truths(tmp_path, 3, 32)) == 1
    said = str(recwarn.pop(UserWarning).message)
    assert "2 pictures of other endings left out (.gif, .heic)" in said
    benchmark.truths(tmp_path, 1, 32)  # as many as asked for: nothing is missing
    assert not [warning for warning in recwarn if "endings" in str(warning.message)]
