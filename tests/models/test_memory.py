"""The memory ladder, number formats and what is given back: with real pipelines, and out-of-memory
errors raised inside them."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import realkit as rk
from realkit.base import device
from realkit.models import ladder, loading
from realkit.models.ladder import LADDERS, RUNGS, climbing
from realkit.models.lock import lock_model
from realkit.models.parts import vae_dtype
from tests.cuts import thinned

PROMPT = "a photo of a shiny yellow cube on sand at dawn"
ASKED = dict(
    models="rehearsal/base", samplers="Euler", prompts=[PROMPT], steps=2, size=64, guidance=2.0
)
CPU = LADDERS["denoise"]["cpu"]


def failing(
    monkeypatch,
    owner: type,
    method: str,
    times: int,
    error: type[Exception] = torch.OutOfMemoryError,
) -> list[int]:
    """Make a method raise out-of-memory so often, inside whatever calls it; the list counts the
    calls."""
    whole, calls = getattr(owner, method), []

    def fails(*given, **more):
        calls.append(1)
        if len(calls) <= times:
            raise error("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(*given, **more)

    monkeypatch.setattr(owner, method, fails)
    return calls


def network():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel


def test_the_ladders_are_parts_of_the_written_one():
    for by_device in LADDERS.values():
        for rungs in by_device.values():
            assert (
                list(rungs) == [rung for rung in RUNGS if rung in rungs] and rungs[0] == "resident"
            )
    assert LADDERS["both"]["cuda"] == tuple(RUNGS)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_out_of_memory_while_denoising_climbs_and_the_row_says_so(tmp_path, monkeypatch, error):
    plain = rk.run(rk.Sweep(**ASKED), tmp_path / "plain").table()
    failing(monkeypatch, network(), "forward", 1, error)
    df = rk.run(rk.Sweep(**ASKED), tmp_path / "climbed").table()
    assert (df["status"][0], df["rung"][0], plain["rung"][0]) == ("ok", CPU[1], CPU[0])
    assert (tmp_path / "plain" / plain["image"][0]).read_bytes()[:64] == (
        tmp_path / "climbed" / df["image"][0]
    ).read_bytes()[:64]
    from PIL import Image

    before, after = (
        np.asarray(Image.open(tmp_path / name / frame["image"][0]))
        for name, frame in (("plain", plain), ("climbed", df))
    )
    assert np.abs(before.astype(int) - after).max() <= 1


def test_no_rung_left_is_a_failed_row_and_the_next_cell_runs_on(tmp_path, monkeypatch):
    sweep = rk.Sweep(**ASKED | {"samplers": ["Euler", "Heun"]})
    failing(monkeypatch, network(), "forward", len(CPU))
    df = rk.run(sweep, tmp_path).table()
    assert list(df["status"]) == ["failed", "ok"]
    assert (
        f"on every rung: {', '.join(CPU)}" in df["error"][0]
        and "OutOfMemoryError" in df["error"][0]
    )
    assert list(df["rung"]) == [CPU[-1]] * 2
    monkeypatch.undo()
    assert list(rk.run(sweep, tmp_path).table()["status"]) == ["ok", "ok"]


def test_out_of_memory_while_decoding_climbs_to_tiling(tmp_path, monkeypatch):
    from diffusers import AutoencoderKL

    failing(monkeypatch, AutoencoderKL, "decode", 1)
    df = rk.run(rk.Sweep(**ASKED), tmp_path).table()
    assert (df["status"][0], df["rung"][0], df["decode_rung"][0]) == (
        "ok",
        "resident",
        "vae-tiling",
    )
    monkeypatch.undo()
    failing(monkeypatch, AutoencoderKL, "decode", len(LADDERS["decode"]["cpu"]))
    df = rk.run(rk.Sweep(**ASKED | {"seeds": [8]}), tmp_path).table()
    assert (
        df["status"][0] == "failed"
        and "on every rung: resident, vae-tiling, group-offload" in df["error"][0]
    )


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_while_placing_climbs_too(monkeypatch, times):
    from diffusers import StableDiffusionPipeline

    rungs = LADDERS["both"]["cpu"]
    failing(monkeypatch, StableDiffusionPipeline, "to", times)
    model = rk.load("rehearsal/base")
    assert model.rung == rungs[times]
    assert np.asarray(model(PROMPT, steps=2)).std() > 5


def test_out_of_memory_at_loading_on_every_rung_is_a_failed_row(tmp_path, monkeypatch):
    failing(monkeypatch, ladder, "place", 10**6)
    df = rk.run(rk.Sweep(**ASKED), tmp_path).table()
    assert df["status"][0] == "failed" and "out of memory" in df["error"][0]


@pytest.mark.parametrize("rung", thinned(RUNGS, ["vae-tiling", "group-offload"]))
def test_every_rung_makes_the_same_picture(base, rung, monkeypatch):
    monkeypatch.setitem(
        LADDERS, "both", {"cpu": tuple(RUNGS)}
    )  # model-offload is a GPU's; its hooks run on a CPU as well
    model = rk.load("rehearsal/base", rung=rung)
    mine, theirs = (np.asarray(of(PROMPT, steps=3, seed=2)).astype(int) for of in (model, base))
    assert model.rung == rung and np.abs(mine - theirs).max() <= 1


def test_a_call_climbs_as_a_run_does(monkeypatch):
    model = rk.load("rehearsal/base")
    failing(monkeypatch, network(), "forward", 1)
    assert np.asarray(model(PROMPT, steps=2)).std() > 5 and model.rung == "vae-tiling"


def test_other_errors_do_not_climb():
    model = rk.load("rehearsal/base")
    with pytest.raises(ZeroDivisionError):
        climbing(model, lambda: 1 / 0)
    assert model.rung == "resident"


ON_DISK = """
    import psutil, torch
    from diffusers import UNet2DConditionModel
    from realkit.base.device import release
    from realkit.models.ladder import module_bytes, place
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(320, 640),
        cross_attention_dim=768,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    run = lambda: unet(torch.zeros(1, 4, 8, 8), torch.tensor(1), torch.zeros(1, 77, 768)).sample
    with torch.inference_mode():
        before = run()
        release()
        held = psutil.Process().memory_info().rss
        place(unet, "group-offload", torch.device("cpu"))
        after = run()
    release()
    freed = held - psutil.Process().memory_info().rss
    print("freed", freed / module_bytes(unet), torch.equal(before, after))
"""


@pytest.mark.slow
def test_layers_wait_on_disk_on_a_cpu():
    _, freed, equal = next(
        line.split() for line in _alone(ON_DISK).splitlines() if line.startswith("freed")
    )
    assert equal == "True" and float(freed) > 0.6


def _alone(script: str) -> str:
    """What a script prints in a process of its own, whose memory no other test has touched."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout


TEN = """
    import psutil
    import realkit as rk
    from realkit.base.device import release
    names = [
        "rehearsal/base",
        "rehearsal/studio",
        "rehearsal/turbo",
        "rehearsal/xl",
        "rehearsal/xl+refiner",
    ]
    for turn in range(10):
        model = rk.load(names[turn % 5])
        model("a photo of a red cube", steps=2)
        del model
        release()
        print("held", psutil.Process().memory_info().rss)
"""


@pytest.mark.slow
def test_memory_after_ten_models_is_what_it_was_after_the_first():
    held = [int(line.split()[1]) for line in _alone(TEN).splitlines() if line.startswith("held")]
    assert len(held) == 10 and abs(held[-1] - held[0]) < 0.1 * held[0], held


def test_number_formats():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (
        device.dtype_for(cpu) == torch.float32
        and device.dtype_for(cpu, "bfloat16") == torch.bfloat16
    )
    for asked, on, words in (
        ("float16", cpu, "10 to 50 times slower"),
        ("int8", cpu, "expected one of"),
    ):
        with pytest.raises(rk.RequestError, match=words):
            device.dtype_for(on, asked)
    with pytest.raises(rk.RequestError, match="overflow"):
        device.dtype_for(gpu, "float16", half_overflows=True)


@pytest.mark.parametrize(
    ("capability", "plain", "overflowing"),
    [
        ((6, 0), torch.float16, torch.float32),
        ((7, 5), torch.float16, torch.float32),
        ((8, 0), torch.bfloat16, torch.bfloat16),
        ((9, 0), torch.bfloat16, torch.bfloat16),
    ],
)
def test_bfloat16_only_from_capability_8_on(monkeypatch, capability, plain, overflowing):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # which a T4 says too
    assert device.dtype_for(torch.device("cuda")) == plain
    assert device.dtype_for(torch.device("cuda"), half_overflows=True) == overflowing


def test_sdxls_own_vae_is_never_in_plain_float16():
    own, fixed = {"force_upcast": True}, {"force_upcast": False}
    assert (
        vae_dtype(own, torch.float16) == torch.float32
        and vae_dtype(own, torch.bfloat16) == torch.bfloat16
    )
    assert vae_dtype(fixed, torch.float16) == torch.float16


def test_the_vae_of_a_loaded_sdxl_model_is_upcast(monkeypatch):
    monkeypatch.setattr(device, "dtype_for", lambda *_: torch.float16)
    lock = lock_model("rehearsal/xl")
    pipe = loading._pipeline(
        lock, __import__("diffusers").StableDiffusionXLPipeline, torch.float16, True
    )
    config = pipe.vae.config
    assert pipe.unet.dtype == torch.float16 and pipe.vae.dtype == (
        torch.float32 if config.force_upcast else torch.float16
    )


@pytest.mark.parametrize(
    ("free", "rung"),
    [(20, "resident"), (9, "resident"), (7, "model-offload"), (3, "group-offload")],
)
def test_the_first_rung_follows_from_what_is_free(monkeypatch, free, rung):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free * 2**30, 16 * 2**30))
    parts = [5 * 2**30 - 2**29, 2**30, 2**30]  # SDXL's UNet and encoders in half precision, about
    assert ladder.first_rung(torch.device("cuda"), LADDERS["both"]["cuda"], parts) == rung


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "tpu"}, "expected 'cuda' or 'cpu'"),
        ({"rung": "model-offload", "device": "cpu"}, "Expected one of resident"),
    ],
)
def test_a_placement_that_is_none_is_refused(given, words):
    with pytest.raises(rk.RequestError, match=words):
        rk.load("rehearsal/base", **given)


@pytest.mark.slow
def test_a_dtype_is_an_axis_and_part_of_the_identity(tmp_path):
    df = rk.run(rk.Sweep(**ASKED, dtype=["float32", "bfloat16", None]), tmp_path).table()
    assert set(df["status"]) == {"ok"} and list(df["dtype"]) == ["float32", "bfloat16", "float32"]
    assert len(set(df["image"])) == 3
    image = rk.load("rehearsal/base", dtype="bfloat16")(
        PROMPT, sampler="Euler", steps=2, size=64, guidance=2.0
    )
    from PIL import Image

    assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / df["image"][1])))


def test_latents_that_overflow_fail_at_once(base):
    with pytest.raises(FloatingPointError, match="not finite"):
        base.decode(torch.full((8, 16, 16), float("nan")))
