"""Diffusion upscalers: redraws are diffusers' image to image on equal noise, sizes are exact, seams
cannot be seen."""

from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import realkit as rk
from realkit.samplers import build
from realkit.upscalers import redraw, stability
from realkit.upscalers import tiles as tiles_module
from realkit.upscalers.chain import Chain
from realkit.upscalers.redraw import Drawing, Redraw, Tail
from realkit.upscalers.settings import Settings
from realkit.upscalers.tiles import shares, starts, tile_seed
from tests import miniatures, upscaler_miniatures
from tests.cuts import thinned

PROMPT = "a photo of a matte red cube on grass at noon"
CPU = torch.device("cpu")
KINDS = [stability.X4, stability.Latent]
IMG2IMG = {
    "sd1": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline,
    "sd3": diffusers.StableDiffusion3Img2ImgPipeline
}  # fmt: skip


def numbers(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def picture(base):
    return base(PROMPT, seed=3)


@pytest.fixture(scope="module")
def tool(base):
    return Redraw(base)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upscalers")
    return {
        stability.X4: upscaler_miniatures.x4(folder / "x4"),
        stability.Latent: upscaler_miniatures.latent(folder / "latent"),
    }


def both(model, image, sampler, strength, steps, begun=False):
    """Ours and diffusers' picture from the same latents and noise. `begun`: diffusers' pipeline is
    given them noised, for it knows no VAE of 8 channels."""
    settings = Settings(
        prompt=PROMPT, sampler=sampler, strength=strength, steps=steps, guidance=3.0, seed=5
    )
    ours = Redraw(model)(image, settings)
    with torch.inference_mode():
        z = redraw.encoded(model.pipe.vae, np.asarray(image)[None], model.device)
    drawn, kind = torch.Generator().manual_seed(tile_seed(5, 0, 0)), IMG2IMG[model.spec.family]
    if begun:
        unit = torch.randn(z.shape, generator=drawn)
        own = {
            "prepare_latents": lambda self, image, timestep, *_, **__: self.scheduler.add_noise(
                z, unit, timestep
            )
        }
        kind = type(kind.__name__, (kind,), own)
    extra = {
        "sd1": {"requires_safety_checker": False},
        "sdxl": {"add_watermarker": False},
        "sd3": {},
    }[model.spec.family]
    theirs = kind(
        **model.pipe.components | {"scheduler": build.build(sampler, model.locked.scheduler)},
        **extra,
    )
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = build.build(
        sampler, model.locked.scheduler
    )  # its constructor changes configs
    how = {
        "strength": strength,
        "num_inference_steps": steps,
        "guidance_scale": 3.0,
        "generator": [drawn],
        "output_type": "latent",
    }
    with torch.inference_mode():
        made = theirs(prompt=PROMPT, negative_prompt="", image=image if begun else z, **how)[0]
    return numbers(ours), numbers(model.decode(made[0]))


# Fast: one call a step and two, our solvers and those of diffusers, noise on the way and none.
SAMPLERS = [
    "Euler",
    "DDIM",
    "DPM++ 2M",
    "DPM++ 2M Karras",
    "Euler a",
    "DPM++ SDE Karras",
    "Heun",
    "UniPC",
    "DDPM",
]


@pytest.mark.parametrize("sampler", thinned(SAMPLERS, ["UniPC"]))
def test_a_redraw_is_image_to_image_of_diffusers_on_the_same_noise(base, picture, sampler):
    ours, theirs = both(base, picture, sampler, 0.5, 10, begun=True)
    assert np.abs(ours - theirs).max() == 0 and np.abs(ours - numbers(picture)).max() > 20


@pytest.mark.parametrize("sampler", thinned(["Euler", "DDIM", "DPM++ 2M"], ["DPM++ 2M"]))
def test_and_so_it_is_for_sdxl(picture, sampler):
    ours, theirs = both(rk.load("rehearsal/xl"), picture, sampler, 0.5, 10, begun=True)
    assert np.abs(ours - theirs).max() == 0


@pytest.mark.parametrize(
    ("kind", "sampler"),
    thinned(
        [("sd1", "DPM++ 2M"), ("sdxl", "Euler"), ("sd3", "Flow Euler"), ("sd3", "Flow Heun")],
        [("sd3", "Flow Heun")],
    ),
)
def test_and_so_it_is_for_the_unchanged_pipelines_of_four_and_sixteen_channels(
    tmp_path, kind, sampler
):
    model = rk.load(str(miniatures.miniature(kind, tmp_path / kind)))
    for strength in (0.3, 1.0):
        ours, theirs = both(model, noise(64, 64), sampler, strength, 10)
        assert np.abs(ours - theirs).max() == 0


@pytest.mark.parametrize(("strength", "gone"), [(0.29, 5), (1.0, 20), (0.001, 1)])
def test_strength_is_the_share_of_the_steps_that_is_gone(base, tool, picture, strength, gone):
    before = base._calls
    tool(picture, Settings(prompt=PROMPT, strength=strength, steps=20, sampler="Euler"))
    assert base._calls - before == gone


def test_almost_no_strength_gives_the_round_trip_through_the_vae(base, tool, picture):
    with torch.inference_mode():
        trip = base.decode(redraw.encoded(base.pipe.vae, np.asarray(picture)[None], base.device)[0])
    made = tool(
        picture, Settings(prompt=PROMPT, strength=0.01, steps=50, sampler="DPM++ 2M Karras")
    )
    off = np.abs(numbers(made) - numbers(trip))
    assert off.mean() < 1 and off.max() < 24


@pytest.mark.slow
def test_seed_and_prompt_decide(tool, picture):
    one, again, other = (
        numbers(tool(picture, Settings(prompt=PROMPT, seed=seed, strength=0.9, steps=8)))
        for seed in (1, 1, 2)
    )
    words = numbers(
        tool(
            picture,
            Settings(
                prompt="a photo of a shiny blue sphere on sand at night",
                seed=1,
                strength=0.9,
                steps=8,
            ),
        )
    )
    assert (
        (one == again).all() and np.abs(one - other).mean() > 1 and np.abs(one - words).mean() > 5
    )


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (130, 40), (129, 257)])
def test_a_redraw_has_the_size_of_its_picture(tool, picture, size):
    assert tool(picture.resize(size), Settings(prompt=PROMPT, steps=3)).size == size
    longest = [min(128, -(-side // 8) * 8) for side in size]
    assert tool.used == {
        "tile": f"{longest[0]}x{longest[1]}",
        "dtype": "float32",
        "rung": "resident",
    }


@pytest.mark.parametrize(
    ("side", "tile", "overlap"),
    [(513, 512, 64), (2048, 512, 64), (1000, 128, 16), (128, 128, 16), (241, 128, 16), (8, 8, 16)],
)
def test_tiles_cover_a_side_and_their_shares_add_to_one(side, tile, overlap):
    begins = starts(side, tile, overlap)
    assert begins[0] == 0 and begins[-1] + tile == side
    assert all(a < b <= a + tile - overlap for a, b in pairwise(begins))
    each = shares(begins, tile, overlap, side)
    assert np.abs(each.sum(0) - 1).max() < 1e-6 and each.min() >= 0
    for begin, share in zip(begins, each, strict=True):
        assert not share[:begin].any() and not share[begin + tile :].any()
    assert len(begins) == 1 or np.abs(np.diff(each, axis=1)).max() <= 1.001 / overlap


@pytest.mark.slow
def test_no_seam_is_seen_and_a_hard_cut_would_be(base, tool, monkeypatch):
    """Steps between neighbouring pixels at the edges of tiles and amid what two of them share are
    like those elsewhere."""
    large = base(PROMPT, seed=3).resize((240, 240), Image.Resampling.LANCZOS)
    blended = shares
    for ramp, seen in ((16, False), (0.001, True)):
        monkeypatch.setattr(
            tiles_module,
            "shares",
            lambda begins, tile, overlap, side, ramp=ramp: blended(begins, tile, ramp, side),
        )
        made = numbers(tool(large, Settings(prompt=PROMPT, strength=0.3, steps=20)))
        for axis, side in ((1, 240), (0, 240)):
            step = np.abs(np.diff(made, axis=axis)).mean(axis=(1 - axis, 2))
            pairs = list(pairwise(starts(side, 128, 16)))
            edges = [
                at for a, b in pairs for at in (b - 1, b, (a + b + 128) // 2 - 1, a + 127, a + 128)
            ]
            assert (step[edges].max() > 3 * np.median(step)) == seen


def test_a_batch_of_tiles_is_its_singles(base, tool, picture):
    tiles = np.stack([np.asarray(picture), np.asarray(picture)[::-1]])
    drawing = Drawing(PROMPT, "", 0, 6, 3.0)
    together = tool._denoised(drawing, "Euler a", 0.5, tiles, [1, 2])
    for tile, seed, made in zip(tiles, [1, 2], together, strict=True):
        assert (
            tool._denoised(drawing, "Euler a", 0.5, tile[None], [seed])[0] - made
        ).abs().max() < 1e-4


def test_what_it_leaves_behind_changes_no_other_picture(base, tool, picture):
    tool(picture, Settings(prompt=PROMPT, steps=3))
    assert not isinstance(base.pipe.scheduler, Tail)
    assert (numbers(base(PROMPT, seed=3)) == numbers(picture)).all()


def test_numbers_that_are_not_finite_are_an_error(picture):
    model = rk.load("rehearsal/base")
    next(model.denoiser.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        Redraw(model)(picture, Settings(prompt=PROMPT, steps=3))


def test_out_of_memory_climbs_the_models_ladder(picture):
    model = rk.load("rehearsal/base")
    tool = Redraw(model)
    expected = tool(picture, Settings(prompt=PROMPT, steps=3))

    def fails(*_):
        if model.rung == "resident":
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.denoiser.conv_out.register_forward_pre_hook(fails)
    made = tool(picture, Settings(prompt=PROMPT, steps=3))
    assert (
        tool.used["rung"] == "vae-tiling" and np.abs(numbers(made) - numbers(expected)).mean() < 3
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "draws what a prompt says, and has no prompt: expected prompt="),
        ({"prompt": None}, "draws what a prompt says, and has no prompt"),
        ({"prompt": " "}, "draws what a prompt says, and has no prompt"),
        ({"prompt": 3}, "prompt 3: Input should be a valid string"),
        (
            {"prompt": "a", "strength": 0},
            r"strength 0: Input should be greater than or equal to 0\.001",
        ),
        (
            {"prompt": "a", "strength": 1.5},
            r"strength 1\.5: Input should be less than or equal to 1",
        ),
        (
            {"prompt": "a", "strength": float("nan")},
            "strength nan: Input should be a finite number",
        ),
        ({"prompt": "a", "steps": 2.5}, r"steps 2\.5: Input should be a valid integer"),
        ({"prompt": "a", "steps": 1000}, "steps 1000: Input should be less than or equal to 999"),
        ({"prompt": "a", "seed": -1}, "seed -1: Input should be greater than or equal to 0"),
        ({"prompt": "a", "guidance": True}, "guidance True: Input should be a valid number"),
        ({"prompt": "a", "sampler": "PLMS"}, "'PLMS' cannot begin in the middle of its schedule"),
        ({"prompt": "a", "sampler": "Oiler"}, "Unknown sampler 'Oiler'"),
    ],
)
def test_a_wrong_setting_is_one_line(picture, settings, says):
    with pytest.raises(rk.RequestError, match=says) as caught:
        rk.upscale(picture, "rehearsal/redraw", 128, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_given_model_redraws_in_place_of_the_entrys_own(picture):
    settings = {"prompt": PROMPT, "steps": 4, "strength": 0.5}
    own, given = (
        rk.upscale(picture, "rehearsal/redraw", 128, model=model, **settings)
        for model in (None, "rehearsal/studio")
    )
    same = rk.upscale(picture, "sd-upscale", 128, model="rehearsal/studio", **settings)
    assert given.tobytes() == same.tobytes() != own.tobytes()


def test_models_that_do_not_redraw_are_refused(tmp_path):
    cascade = rk.load(str(miniatures.miniature("cascade", tmp_path / "cascade")), decoder=False)
    with pytest.raises(
        rk.RequestError, match="is of family 'cascade', which does not redraw: expected one of sd1"
    ):
        Redraw(cascade)
    with pytest.raises(rk.RequestError, match="has two legs, and a redraw has one"):
        Redraw(rk.load("rehearsal/xl+refiner"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", thinned([((1, 1),), ((17, 33),), ((64, 64),)], [((17, 33),)]))
def test_networks_made_for_it_give_exactly_their_scale(folders, kind, size):
    made = stability.load_stability(kind, folders[kind], CPU)
    settings = Settings(prompt="a red cube", steps=2, guidance=3.0, seed=1)
    one, again, other = (
        made(noise(*size), settings.model_copy(update={"seed": seed})) for seed in (1, 1, 2)
    )
    words = made(noise(*size), settings.model_copy(update={"prompt": "a blue sphere"}))
    assert one.size == (size[0] * made.scale, size[1] * made.scale) and one.mode == "RGB"
    assert (
        one.tobytes() == again.tobytes()
        and one.tobytes() != other.tobytes()
        and one.tobytes() != words.tobytes()
    )
    assert made.used["dtype"] == "float32" and made.used["rung"] == "resident"


def test_x4_is_the_pipeline_of_diffusers(folders):
    made = stability.load_stability(stability.X4, folders[stability.X4], CPU)
    plain = diffusers.StableDiffusionUpscalePipeline.from_pretrained(folders[stability.X4])
    plain.set_progress_bar_config(disable=True)
    drawn = torch.Generator().manual_seed(tile_seed(4, 0, 0))
    theirs = plain(
        "a red cube", noise(64, 32), num_inference_steps=5, negative_prompt="grey", generator=drawn
    ).images[0]
    ours = made(noise(64, 32), Settings(prompt="a red cube", negative="grey", steps=5, seed=4))
    assert np.abs(numbers(ours) - numbers(theirs)).max() <= 1


def test_latent_is_the_pipeline_of_diffusers_and_needs_a_prompt_with_guidance_only(folders):
    made = stability.load_stability(stability.Latent, folders[stability.Latent], CPU)
    plain = diffusers.StableDiffusionLatentUpscalePipeline.from_pretrained(
        folders[stability.Latent]
    )
    plain.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        z = redraw.encoded(plain.vae, np.asarray(noise(64, 64))[None], torch.device("cpu"))
    drawn = torch.Generator().manual_seed(tile_seed(4, 0, 0))
    theirs = plain("", z, num_inference_steps=5, guidance_scale=0, generator=drawn).images[0]
    assert (
        np.abs(numbers(made(noise(64, 64), Settings(steps=5, seed=4))) - numbers(theirs)).max() <= 1
    )
    chain = Chain.parse("sd-x2-latent-upscaler")
    chain.settings({"guidance": 0.0})
    with pytest.raises(rk.RequestError, match="has no prompt: expected prompt="):
        chain.settings({"guidance": 2.0})


def test_x4_goes_through_large_pictures_in_tiles(folders):
    made = stability.load_stability(stability.X4, folders[stability.X4], CPU)
    assert (
        made(noise(513, 8), Settings(prompt="a", steps=1)).size == (2052, 32)
        and made.used["tile"] == "128x8"
    )
    assert (
        made(noise(512, 8), Settings(prompt="a", steps=1)).size == (2048, 32)
        and made.used["tile"] == "512x8"
    )


def test_x4_needs_a_prompt_and_a_level_of_noise_that_it_knows():
    chain = Chain.parse("sd-x4-upscaler")
    with pytest.raises(rk.RequestError, match="has no prompt: expected prompt="):
        chain.settings({})
    with pytest.raises(
        rk.RequestError, match="noise_level 351: Input should be less than or equal to 350"
    ):
        chain.settings({"prompt": "a", "noise_level": 351})


@pytest.mark.slow
@pytest.mark.parametrize("kind", thinned(KINDS, [stability.X4]))
def test_half_precision_keeps_the_noise_and_memory_is_climbed(folders, kind):
    settings = Settings(prompt="a red cube", steps=2, guidance=2.0)
    whole, half = (
        stability.load_stability(kind, folders[kind], CPU, dtype=dtype)
        for dtype in (None, "bfloat16")
    )
    one, two = (numbers(made(noise(64, 64), settings)) for made in (whole, half))
    assert half.used["dtype"] == "bfloat16" and np.abs(one - two).mean() < 8
    placed = stability.load_stability(kind, folders[kind], CPU, rung="group-offload")
    assert (
        placed(noise(64, 64), settings).size == (64 * placed.scale,) * 2
        and placed.used["rung"] == "group-offload"
    )

    def fails(*_):
        if whole.rung == "resident":
            raise torch.OutOfMemoryError("CUDA out of memory")

    whole.pipe.unet.conv_out.register_forward_pre_hook(fails)
    whole(noise(64, 64), settings)
    assert whole.used["rung"] == "vae-tiling"


def test_a_folder_that_is_none_is_one_line(folders, tmp_path):
    with pytest.raises(
        rk.RequestError,
        match=(
            "made for the pipeline 'StableDiffusionUpscalePipeline': expected"
            " StableDiffusionLatentUpscalePipeline"
        ),
    ):
        stability.load_stability(stability.Latent, folders[stability.X4], CPU)
    with pytest.raises(rk.RequestError, match=r"model_index\.json"):
        stability.load_stability(stability.X4, tmp_path, CPU)
    broken = upscaler_miniatures.x4(tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        rk.RequestError, match="Folder 'broken' does not load as StableDiffusionUpscalePipeline"
    ) as caught:
        stability.load_stability(stability.X4, broken, CPU)
    assert "\n" not in str(caught.value)
