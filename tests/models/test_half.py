"""Half precision through the loaders' own path, on a CPU: every family, leg and rung draws
float32's picture but for rounding. A wrong format between sampler, network and VAE fails here."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

import realkit as rk
from realkit.models.loading import load, load_decoder
from realkit.models.lock import lock_model
from realkit.models.request import Request
from realkit.runs.store import Store
from tests import miniatures
from tests.half import FORMATS, LEVELS, apart, permitted, without_upcast

HALF = FORMATS[1:]
PROMPTS = ["a photo of a red cube", "a blue sphere on grass"]
KINDS = ["sd1", "sd2", "sd2-base", "sdxl", "sd3", "sd35-medium"]
LEGS = {"sdxl": ("sdxl-refiner", 64, 0.5), "cascade": ("cascade-decoder", 128, 0.0)}
# Stable Cascade's first step divides by a hundredth: the random network's rounding grows with it.
CASCADE = 30.0
# A network that enlarges noise and a redraw amplify in turn: another picture is 40 levels away.
RUN = {"float32": 0.05, "float16": 8.0, "bfloat16": 20.0}


@pytest.fixture(autouse=True)
def half():
    with permitted():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("half")

    @lru_cache
    def made(kind):
        t5 = kind.startswith("sd3")
        return str(without_upcast(miniatures.miniature(kind, root / kind, t5=t5)))

    return made


def requests(model, side=32, steps=2):
    advice = model.spec.settings
    settings = (steps, advice.guidance and 5.0, side, side)
    return [
        Request(model.name, advice.sampler, prompt, "", seed, *settings)
        for seed, prompt in enumerate(PROMPTS)
    ]


def drawn(folder, number, rung=None):
    """A batch of two pictures, decoded with the model's own VAE, and by the VAE alone."""
    model = load(folder, device="cpu", dtype=number, rung=rung)
    assert str(model.dtype) == f"torch.{number}" == str(model.pipe.vae.dtype)
    latents = model.denoise(requests(model)).latents
    assert latents.dtype == torch.float32
    decoder = load_decoder(lock_model(folder), device="cpu", dtype=number, rung=rung)
    assert str(decoder.vae.dtype) == f"torch.{number}"
    pictures = np.stack([np.asarray(model.decode(each)) for each in latents])
    assert apart(pictures, np.stack([np.asarray(decoder(each)) for each in latents])) < 1.0
    return pictures


@lru_cache
def whole(folder):
    """The float32 pictures."""
    return drawn(folder, "float32")


@pytest.mark.parametrize("number", HALF)
def test_stable_diffusion_draws_the_same(folder, number):
    assert apart(drawn(folder("sd1"), number), whole(folder("sd1"))) < LEVELS[number]


@pytest.mark.slow
@pytest.mark.parametrize("number", HALF)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_family_draws_the_same(folder, kind, number):
    assert apart(drawn(folder(kind), number), whole(folder(kind))) < LEVELS[number]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sd3"])
@pytest.mark.parametrize(
    ("rung", "number"),
    [*(("group-offload", number) for number in FORMATS), ("vae-tiling", "float16")],
)
def test_every_rung_draws_the_same(folder, kind, number, rung):
    assert apart(drawn(folder(kind), number, rung), whole(folder(kind))) < LEVELS[number]


@pytest.mark.slow
@pytest.mark.parametrize("first", LEGS)
def test_two_legs_hand_over_in_every_format(folder, first):
    second, side, start = LEGS[first]
    pictures = {}
    for number in FORMATS if first == "sdxl" else ("float32", "bfloat16"):
        model = load(folder(first), device="cpu", dtype=number)
        begun = model.denoise(requests(model, side)).latents
        refiner = load(folder(second), device="cpu", dtype=number)
        ended = refiner.denoise(requests(refiner, side), begun=begun, start=start).latents
        decode = model.decode if first == "sdxl" else refiner.decode
        pictures[number] = np.stack([np.asarray(decode(latents)) for latents in ended])
        most = LEVELS[number] if first == "sdxl" else CASCADE
        assert apart(pictures[number], pictures["float32"]) < most


def test_float16_stays_refused_where_a_family_overflows_it(folder):
    with pytest.raises(rk.RequestError, match="overflow"):
        load(folder("cascade"), device="cpu", dtype="float16", decoder=False)


@pytest.mark.slow
def test_every_stage_of_a_run_in_every_format(folder, tmp_path):
    """Denoise, decode, upscale, redraw, score and embed: pictures, scores and embeddings."""
    sweep = {
        "models": folder("sd1"), "prompts": PROMPTS[:1], "seeds": 1, "steps": 2, "size": 64,
        "upscalers": [None, "rehearsal/compact-x4 + sd-upscale"],
        "target": 64, "scorers": ["rehearsal/clip", "colour-cast"], "encoders": ["rehearsal/clip"],
    }  # fmt: skip
    tables = {}
    for number in FORMATS:
        run = rk.run(sweep | {"dtype": number}, tmp_path / number, batch=1)
        table = tables[number] = run.table()
        assert (table["status"] == "ok").all(), table["error"].dropna().tolist()
        rows = Store(run.folder).ok_rows().values()
        formats = {row["dtype"] for row in rows if row["stage"] in ("denoise", "upscale")}
        assert formats == {"float16" if number == "float32" else number, number, "float16"}
        for ours, theirs in zip(table["image"], tables["float32"]["image"], strict=True):
            first = _opened(tmp_path / "float32" / theirs)
            assert apart(_opened(run.folder / ours), first) < RUN[number]
        for score, most in (("rehearsal/clip", 5.0), ("colour-cast", 3.0)):
            assert (table[score] - tables["float32"][score]).abs().max() < most


def _opened(path):
    from PIL import Image

    return Image.open(path).convert("RGB")
