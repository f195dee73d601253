"""The engines that enlarge: sizes, borders, tiles, and agreement with the libraries they are made
of."""

import importlib.util
import os
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import realkit as rk
from realkit.rehearsal.scenes import render
from realkit.upscalers import upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.networks import Enlarger
from realkit.upscalers.table import UPSCALERS, Upscaler
from tests import originals
from tests.cuts import thinned

OURS = ["rehearsal/esrgan-x4", "rehearsal/compact-x4", "rehearsal/swin2sr-x4"]
COLOURS = [(255, 255, 255), (0, 0, 0), (37, 180, 96)]
REALESRGAN = all(map(importlib.util.find_spec, ("realesrgan", "basicsr")))
ORIGINAL = ["realesrgan:rehearsal/compact-x4"] if REALESRGAN else []
LINEAR = ["lanczos", "bicubic", "bilinear", "nearest", "opencv-lanczos4", "opencv-cubic"]
SIZES = [(1, 1), (1, 2), (2, 1), (3, 97), (13, 7), (64, 64), (101, 53)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )


def scene(side: int = 96) -> Image.Image:
    return render("a photo of a shiny red cone on a checkered floor at noon", 4, side)


def apart(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


def check_sizes(name, size, targets):
    longer = max(size)
    for to in targets:
        image = rk.upscale(noise(*size), name, to)
        whole = (
            to
            if isinstance(to, tuple)
            else tuple(max(1, round(side * to / longer)) for side in size)
        )
        assert image.size == whole and image.mode == "RGB"


@pytest.mark.parametrize("name", [*OURS, *LINEAR, *ORIGINAL])
@pytest.mark.parametrize("size", thinned([((1, 1),), ((2, 1),), ((13, 7),)], [((13, 7),)]))
def test_every_engine_makes_exactly_the_size(name, size):
    width, height = size
    check_sizes(name, size, (4 * max(size) - 1, (2 * width + 1, 3 * height + 1), 1))


FAR = [
    *product(["rehearsal/compact-x4", "lanczos", "opencv-cubic"], SIZES),
    *product([*OURS, *ORIGINAL], [(1, 1), (101, 53)]),
]


@pytest.mark.parametrize(
    ("name", "size"), thinned(dict.fromkeys(FAR), [case for case in FAR if case[1] == SIZES[3]])
)
def test_many_times_larger_is_exactly_the_size_too(name, size):
    check_sizes(name, size, (211, (64, 48), (5, 300)))


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_a_large_odd_picture(name):
    assert rk.upscale(noise(1025, 769), name, 2048).size == (2048, 1536)


@pytest.mark.parametrize(
    ("name", "least"), [*[(name, 3) for name in OURS], *[(name, 1) for name in LINEAR]]
)
@pytest.mark.parametrize("colour", thinned([(c,) for c in COLOURS], [(c,) for c in COLOURS[::2]]))
def test_a_constant_picture_stays_constant_to_its_very_border(name, least, colour):
    for size, to in (((40, 24), 160), ((33, 47), (100, 100)), ((1, 1), 64)):
        made = np.asarray(rk.upscale(Image.new("RGB", size, colour), name, to)).astype(int)
        assert np.abs(made - colour).max() <= least, (size, to)


@pytest.mark.parametrize("name", OURS)
def test_no_border_darkens(name):
    """Held-out pictures keep the brightness of their outermost pixels, as bicubic keeps it."""
    image = scene()
    made, plain = (
        np.asarray(rk.upscale(image, kind, 384)).astype(float) for kind in (name, "bicubic")
    )
    for edge in (np.s_[:4], np.s_[-4:], np.s_[:, :4], np.s_[:, -4:]):
        assert abs(made[edge].mean() - plain[edge].mean()) < 1.0


@pytest.mark.parametrize("name", [*OURS, *LINEAR])
@pytest.mark.parametrize("side", [75, pytest.param(96, marks=pytest.mark.slow)])
def test_a_mirrored_picture_gives_the_mirrored_result(name, side):
    """Resampling is symmetric to a level. Networks have learnt it from mirrored pictures: a mean of
    1 level, and 999 of 1000 pixels within 24."""
    image = scene(side)
    a, b = (
        rk.upscale(image, name, 4 * side),
        rk.upscale(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), name, 4 * side),
    )
    difference = apart(a, b.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert (
        difference.max() <= 1
        if name in LINEAR
        else difference.mean() < 1 and np.quantile(difference.max(-1), 0.999) <= 24
    )


@pytest.mark.parametrize(
    ("name", "most", "height", "tile"),
    [
        *[("rehearsal/compact-x4", 1, 96, tile) for tile in (37, 200)],
        *[
            pytest.param("rehearsal/compact-x4", 1, 96, tile, marks=pytest.mark.slow)
            for tile in (16, 64)
        ],
        pytest.param("rehearsal/esrgan-x4", 1, 32, 64, marks=pytest.mark.slow),
        pytest.param("rehearsal/esrgan-x4", 1, 32, 16, marks=pytest.mark.slow),
        ("rehearsal/swin2sr-x4", 4, 64, 37),
        pytest.param("rehearsal/swin2sr-x4", 4, 150, 16, marks=pytest.mark.slow),
    ],
)
def test_in_tiles_it_is_the_same_picture(name, most, height, tile):
    """To 1/255 for networks of convolutions, whose overlap covers what they see; to 4/255, which
    nobody sees, where attention looks further.

    ESRGAN sees 51 pixels on either side: a wide strip is cut within what it sees, at a fifth of a
    square's cost.
    """
    image = (
        scene(150).crop((0, 60 - height // 3, 150, 60 - height // 3 + height))
        if height < 150
        else scene(150)
    )
    assert (
        apart(rk.upscale(image, name, 600), rk.upscale(image, name, 600, tile=tile)).max() <= most
    )


def test_the_reach_of_convolutions_is_what_changes_anything():
    network = upscale.load_upscaler(Chain.parse("rehearsal/compact-x4")).tools[0].network
    assert network.reach is not None
    x = torch.rand(1, 3, 64, 64)
    y = x.clone()
    y[..., 32, 32] += 0.5
    with torch.inference_mode():
        changed = ((network.run(x) - network.run(y)).abs().amax((0, 1)) > 0).nonzero()
    seen = max(32 - changed[:, 0].min().item() / 4, changed[:, 0].max().item() / 4 - 32)
    assert network.reach - 1 <= seen <= network.reach + 1
    assert upscale.load_upscaler(Chain.parse("rehearsal/swin2sr-x4")).tools[0].network.reach is None


def test_little_memory_means_tiles_and_the_same_picture(monkeypatch):
    image = scene(96)
    whole = rk.upscale(image, "rehearsal/compact-x4", 384)
    monkeypatch.setattr(Enlarger, "_pixels", lambda self: 64.0**2)
    loaded = upscale.load_upscaler(Chain.parse("rehearsal/compact-x4"))
    made, used = loaded(image, (384, 384))
    assert (
        used["tile"]
        and used["overlap"] == loaded.tools[0].network.reach
        and apart(whole, made).max() <= 1
    )


def test_out_of_memory_halves_the_tiles(monkeypatch):
    loaded = upscale.load_upscaler(Chain.parse("rehearsal/compact-x4"))
    tool, sizes = loaded.tools[0], []
    run = tool.network.run

    def scarce(x):
        sizes.append(x.shape[-1])
        if x.shape[-1] > 80:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(x)

    tool.network.run = scarce
    image = scene(120)
    made, used = loaded(image, (480, 480))
    assert (
        max(sizes) > 80
        and used["tile"] < 120
        and apart(made, rk.upscale(image, "rehearsal/compact-x4", 480)).max() <= 1
    )


def test_numbers_that_are_not_finite_are_no_picture():
    loaded = upscale.load_upscaler(Chain.parse("rehearsal/compact-x4"))
    loaded.tools[0].network.run = lambda x: torch.full(
        (1, 3, 4 * x.shape[2], 4 * x.shape[3]), torch.nan
    )
    with pytest.raises(FloatingPointError, match="not finite"):
        loaded(noise(8, 8), (32, 32))


UPSAMPLERS = ["shipped", "pixelshuffledirect", "pixelshuffle", "nearest+conv"]


@pytest.mark.parametrize("upsampler", thinned(UPSAMPLERS, UPSAMPLERS[:2]))
def test_spandrel_and_transformers_agree_on_swin2sr(upsampler, tmp_path, weights):
    from safetensors.torch import save_file
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    if upsampler == "shipped":
        model = Swin2SRForImageSuperResolution.from_pretrained(
            weights / "swin2sr-x4", dtype=torch.float32
        )
    else:
        torch.manual_seed(0)
        model = Swin2SRForImageSuperResolution(
            Swin2SRConfig(
                embed_dim=24, depths=[2, 2], num_heads=[2, 2], upscale=4, upsampler=upsampler
            )
        )
    model.save_pretrained(tmp_path / "folder")
    save_file(
        {key: value.contiguous() for key, value in originals.swin2sr(model).items()},
        tmp_path / "one.safetensors",
    )
    for image in (scene(64), noise(41, 29)):
        folder, single = (
            rk.upscale(image, str(tmp_path / name), 4 * max(image.size))
            for name in ("folder", "one.safetensors")
        )
        assert apart(folder, single).max() <= 1


@pytest.mark.skipif(not REALESRGAN, reason="the extra realesrgan is not installed")
def test_realesrgan_and_spandrel_agree_on_the_same_weights(weights):
    for name in ("esrgan-x4", "compact-x4"):
        path = str(weights / name / "model.safetensors")
        for image in (scene(64), noise(37, 23)):
            assert (
                apart(
                    rk.upscale(image, path, 4 * max(image.size)),
                    rk.upscale(image, f"realesrgan:{path}", 4 * max(image.size)),
                ).max()
                <= 1
            )


def test_realesrgan_runs_only_what_it_knows(weights):
    with pytest.raises(
        rk.RequestError, match="'realesrgan' runs only upscalers of engine 'spandrel'"
    ):
        rk.upscale(noise(8, 8), "realesrgan:lanczos", 32)


# --- files that are no upscaler


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.pth").write_bytes(pickle.dumps({"params": {"conv_first.weight": Harm()}}))
    torch.save({"params_ema": {"a": torch.zeros(1), "b": Harm()}}, "worse.pth")
    for name in ("bad.pth", "worse.pth"):
        with pytest.raises(rk.RequestError, match=name) as error:
            rk.upscale(noise(8, 8), str(tmp_path / name), 32)
        assert "\n" not in str(error.value) and not Path("harmed").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_one_line(tmp_path, weights, suffix):
    from safetensors.torch import load_file

    path = tmp_path / f"mine.{suffix}"
    if suffix == "pth":
        torch.save({"params_ema": load_file(weights / "esrgan-x4" / "model.safetensors")}, path)
        rk.upscale(noise(8, 8), str(path), 32)
    else:
        path.write_bytes((weights / "esrgan-x4" / "model.safetensors").read_bytes())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(rk.RequestError, match=f"mine.{suffix}") as error:
        rk.upscale(noise(8, 8), str(path), 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["params_ema", "params-ema", "net"])
def test_a_pth_is_the_same_network(tmp_path, weights, key):
    from safetensors.torch import load_file

    source = weights / "compact-x4" / "model.safetensors"
    torch.save({key: load_file(source), "iteration": 5}, tmp_path / "mine.pth")
    image = scene(24)
    made = rk.upscale(image, str(tmp_path / "mine.pth"), 96)
    assert apart(made, rk.upscale(image, str(source), 96)).max() == 0


def test_whole_numbers_that_a_network_itself_has_are_read(tmp_path):
    from safetensors.torch import save_file
    from spandrel.architectures.MoESR import MoESR

    network = MoESR(scale=2, dim=12, n_blocks=1, n_block=1)
    held = {name: value.contiguous() for name, value in network.state_dict().items()}
    assert not all(value.is_floating_point() for value in held.values())
    save_file(held, tmp_path / "mine.safetensors")
    assert rk.upscale(noise(16, 16), str(tmp_path / "mine.safetensors"), 32).size == (32, 32)


@pytest.mark.parametrize("number", [torch.int8, torch.complex64])
def test_weights_that_are_no_floating_point_are_refused_by_name(tmp_path, weights, number):
    from safetensors.torch import load_file, save_file

    held = load_file(weights / "compact-x4" / "model.safetensors")
    name = next(name for name, value in held.items() if value.ndim == 4)
    save_file(held | {name: held[name].to(number)}, tmp_path / "mine.safetensors")
    with pytest.raises(
        rk.RequestError, match=rf"mine\.safetensors' holds tensors that are not .*{name}' in"
    ):
        rk.upscale(noise(8, 8), str(tmp_path / "mine.safetensors"), 32)


def test_another_network_than_the_entry_says_is_one_line(tmp_path, weights, monkeypatch):
    entries = {
        "wrong": Upscaler(
            engine="spandrel", source=str(weights / "esrgan-x4" / "model.safetensors"), scale=2
        ),
        "vae": Upscaler(
            engine="spandrel", source="package:vae/diffusion_pytorch_model.safetensors", scale=4
        ),
        "folder": Upscaler(engine="spandrel", source="package:vae"),
        "no-swin": Upscaler(engine="transformers", source="package:vae"),
        "hash": Upscaler(
            engine="spandrel", source="package:esrgan-x4/model.safetensors", sha256="0" * 64
        ),
    }
    monkeypatch.setitem(UPSCALERS.__dict__, "_entries", entries)
    says = {
        "wrong": "enlarges 4 times, expected 2",
        "vae": "of no architecture",
        "folder": "expected one file of weights",
        "no-swin": "expected a folder of Swin2SR",
        "hash": "does not have the published SHA-256",
    }
    for name, words in says.items():
        with pytest.raises(rk.RequestError, match=words) as error:
            rk.upscale(noise(8, 8), name, 32)
        assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused_beforehand_with_the_figures(monkeypatch):
    monkeypatch.setattr("realkit.base.measure.ram_free", lambda: 3.0)
    image = noise(512, 512)
    with pytest.raises(
        rk.RequestError,
        match=r"16384×16384 by 'rehearsal/esrgan-x4' needs .* GiB of memory .* 3\.0 GiB are free",
    ):
        rk.upscale(image, "rehearsal/esrgan-x4", 16_384)
    monkeypatch.setattr("realkit.base.measure.ram_free", lambda: 1.0)
    with pytest.raises(rk.RequestError, match=r"1\.5 GiB of memory"):
        rk.upscale(Image.new("RGB", (16, 16)), "lanczos", (16_384, 16_384))
