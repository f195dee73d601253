"""What tests.gpu does on a card, part by part: each yields (labels, function → measurements).

Every picture is compared with the same on this machine's CPU in float32: `apart` is the mean
distance in levels of 255, of latents the mean distance over their spread, `allowed` what rounding
explains.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import realkit as rk
from realkit.base import device, measure
from realkit.base.measure import Stopwatch
from realkit.models import ladder
from realkit.models.ladder import LADDERS
from realkit.models.loading import load, load_decoder
from realkit.models.lock import lock_model
from realkit.models.request import Request
from realkit.rehearsal.scenes import render
from realkit.runs import environment
from realkit.samplers.table import SAMPLERS
from realkit.upscalers import stability
from realkit.upscalers.chain import Chain
from realkit.upscalers.redraw import Redraw
from realkit.upscalers.settings import Settings
from realkit.upscalers.upscale import load_upscaler
from tests import miniatures, upscaler_miniatures
from tests.half import FORMATS, LEVELS, apart, permitted, without_upcast

Cases = Iterator[tuple[dict[str, Any], Any]]
MODEL = "rehearsal/base"
ON = device.default_device()
CARD = ON.type == "cuda"
CPU = torch.device("cpu")
PROMPTS = [
    "a photo of a matte red cube on grass at noon", "a shiny blue sphere on sand at sunset",
    "a photo of a green cone on tiles at night", "a matte yellow cylinder on grass at dawn",
]  # fmt: skip
SIDE, STEPS, BATCHES, TARGET = (256, 20, (1, 4), 512) if CARD else (64, 2, (1, 2), 96)
# A card's convolutions take TF32 for float32 (torch's default), which has float16's 11 bits.
ALLOWED = LEVELS | {"float32": LEVELS["float16"] if CARD else LEVELS["float32"]}
LATENTS = 0.1  # of latents' spread: after a whole schedule in float32 (a card's: TF32)
ROOT = Path(__file__).resolve().parents[1]


def facts() -> dict[str, Any]:
    """The machine's, as a run records them, and what a card's own words add."""
    found = environment.environment(ON)
    if CARD:
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(ON)))
        found["built for"] = " ".join(torch.cuda.get_arch_list())
    found["missing"] = [
        name for name in ("pandas", "pyarrow", "scipy", "cv2", "skimage", "open_clip", "spandrel",
        "torchsde", "matplotlib") if importlib.util.find_spec(name) is None
    ]  # fmt: skip
    return found


@contextmanager
def on_cpu() -> Iterator[None]:
    """Tools that ask for no device by name take the CPU: the reference's."""
    with mock.patch.object(device, "default_device", lambda: CPU):
        yield


def requests(name: str, sampler: str | None, count: int, steps: int, side: int) -> list[Request]:
    advice = lock_model(name).spec.settings
    guidance = advice.guidance and 5.0
    return [
        Request(
            name, sampler or advice.sampler, PROMPTS[seed], "", seed, steps, guidance, side, side
        )
        for seed in range(count)
    ]


def decoded(name: str, latents: Any, on: str, number: str | None, rung: str | None) -> Any:
    """The pictures of latents, by the VAE alone, as a run decodes them."""
    decode = load_decoder(lock_model(name), device=on, dtype=number, rung=rung)
    return np.stack([np.asarray(decode(each)) for each in latents])


@lru_cache(maxsize=32)
def reference(name: str, sampler: str | None, count: int, steps: int, side: int) -> Any:
    """Latents and pictures on the CPU in float32."""
    model = load(name, device="cpu", dtype="float32", decoder=False)
    latents = model.denoise(requests(name, sampler, count, steps, side)).latents
    return latents, decoded(name, latents, "cpu", "float32", None)


def draw(
    name: str, number: str, rung: str, count: int, steps: int = STEPS, side: int = SIDE
) -> dict[str, Any]:
    """A batch denoised and decoded on the device, beside the reference."""
    with permitted():
        model = load(name, device=ON.type, dtype=number, rung=rung)
        denoised = model.denoise(requests(name, None, count, steps, side))
        found = {"seconds": round(denoised.denoise_s, 4), "rung": model.rung}
        found |= {"peak_vram_gib": measure.memory(ON)["peak_vram_gib"]}
        pictures = np.stack([np.asarray(model.decode(each)) for each in denoised.latents])
    _, expected = reference(name, None, count, steps, side)
    allowed = ALLOWED[number]
    if denoised.denoise_j is not None:
        found["note"] = f"{denoised.denoise_j:.1f} J"
    return found | {"apart": apart(pictures, expected), "allowed": allowed}


def sweep() -> Cases:
    """The rehearsal model in every format, on every rung, in two batch sizes."""
    for number in FORMATS:
        for rung in LADDERS["both"][ON.type]:
            for count in BATCHES:
                labels = {"case": MODEL, "dtype": number, "rung": rung, "batch": count}
                yield labels, partial(draw, MODEL, number, rung, count)


def upscalers() -> Cases:
    """Networks whole and in tiles, against the CPU's whole picture; redraws; resizes."""
    side = 128 if CARD else 32
    picture = render("a photo of a shiny red cone on a checkered floor at noon", 4, side)
    size = (4 * side, 4 * side)

    @lru_cache
    def whole(name: str) -> Any:
        return load_upscaler(Chain.parse(name), device="cpu")(picture, size)[0]

    def enlarge(name: str, tile: int | None) -> dict[str, Any]:
        with permitted():
            tool = load_upscaler(Chain.parse(name), device=ON.type)
            with Stopwatch(ON) as watch:
                image, used = tool(picture, size, Settings(tile=tile))
        number = used.get("dtype") or "float32"
        found = {"seconds": round(watch.seconds, 4), "dtype": number}
        found["peak_vram_gib"] = measure.memory(ON)["peak_vram_gib"]
        return found | {"apart": apart(image, whole(name)), "allowed": ALLOWED[number]}

    names = ["rehearsal/compact-x4", "rehearsal/swin2sr-x4", "lanczos", "opencv-cubic"]
    for name in [*names, "rehearsal/esrgan-x4"]:
        for tile in (None, side // 2) if name.startswith("rehearsal/") else (None,):
            yield {"case": name, "tile": tile or "whole"}, partial(enlarge, name, tile)

    def redraw(number: str, on: str) -> Any:
        with permitted():
            tool = Redraw(load(MODEL, device=on, dtype=number))
            asked = Settings(prompt=PROMPTS[0], steps=6, strength=0.5, seed=1, guidance=5.0)
            return tool(picture.resize((2 * SIDE, SIDE)), asked)

    @lru_cache
    def redrawn() -> Any:
        return redraw("float32", "cpu")

    for number in FORMATS:
        yield (
            {"case": "redraw in tiles", "dtype": number},
            lambda number=number: {
                "apart": apart(redraw(number, ON.type), redrawn()), "allowed": ALLOWED[number],
            },
        )  # fmt: skip


def scorers() -> Cases:
    """Scores and embeddings by the device beside the CPU's."""
    picture = render("a photo of a shiny red cone on a checkered floor at noon", 4, 128)

    def score(name: str, load_it: Any) -> dict[str, Any]:
        rates = load_it(name)
        with on_cpu():
            expected = load_it(name)([picture], PROMPTS[:1])[0]
        value = rates([picture], PROMPTS[:1])[0]
        note = f"{value:.4f}, the CPU's {expected:.4f}"
        return {"apart": abs(value - expected), "allowed": 0.1, "note": note}

    from realkit.scorers.score import load_scorer

    names = ["rehearsal/clip", "rehearsal/clip-long", "colour-cast", "sharpness", "noise-floor"]
    for name in names:
        yield {"case": name, "dtype": "float32"}, partial(score, name, load_scorer)

    def embed() -> dict[str, Any]:
        from realkit.scorers import encoders

        def embedding() -> Any:
            name = "rehearsal/clip"
            loaded = encoders.load_encoder(name, encoders.lock_encoder(name))
            return loaded.images([picture])[0].float().cpu()

        ours = embedding()
        with on_cpu():
            cosine = float((ours * embedding()).sum())
        return {"apart": 1 - cosine, "allowed": 0.001}

    yield {"case": "an embedding, 1 - cosine", "dtype": "float32"}, embed


def families() -> Cases:
    """Every kind of pipeline in miniature: in every format, and on the rungs that offload."""
    root = Path(tempfile.mkdtemp(prefix="realkit-gpu-"))

    @lru_cache
    def folder(kind: str) -> str:
        made = miniatures.miniature(kind, root / kind, t5=kind.startswith("sd3"))
        return str(without_upcast(made))

    def small(kind: str, number: str, rung: str) -> dict[str, Any]:
        return draw(folder(kind), number, rung, count=2, steps=3, side=64)

    last = LADDERS["both"][ON.type][-1]
    for kind in ("sd1", "sd2", "sdxl", "sd3", "sd35-medium"):
        for number, rung in [(number, "resident") for number in FORMATS] + [("float32", last)]:
            labels = {"case": kind, "dtype": number, "rung": rung, "batch": 2}
            yield labels, partial(small, kind, number, rung)

    def legs(first: str, second: str, number: str, on: str, side: int, start: float) -> Any:
        with permitted():
            one = load(folder(first), device=on, dtype=number)
            begun = one.denoise(requests(folder(first), None, 1, 4, side)).latents
            two = load(folder(second), device=on, dtype=number)
            asked = requests(folder(second), None, 1, 4, side)
            ended = two.denoise(asked, begun=begun, start=start).latents
            return (one if second == "sdxl-refiner" else two).decode(ended[0])

    pairs = [("sdxl", "sdxl-refiner", 64, 0.5), ("cascade", "cascade-decoder", 128, 0.0)]
    for first, second, side, start in pairs:
        for number in FORMATS if first == "sdxl" else ("float32", "bfloat16"):

            def both(f=first, s=second, n=number, size=side, begin=start) -> dict[str, Any]:
                ours = legs(f, s, n, ON.type, size, begin)
                distance = apart(ours, legs(f, s, "float32", "cpu", size, begin))
                return {"apart": distance, "allowed": ALLOWED[n] if f == "sdxl" else 30.0}

            yield {"case": f"{first} + {second}", "dtype": number}, both

    def stabilitys(kind: Any, number: str) -> dict[str, Any]:
        make = upscaler_miniatures.x4 if kind is stability.X4 else upscaler_miniatures.latent
        made = root / kind.__name__
        if not made.is_dir():
            without_upcast(make(made))
        pictures = []
        for on, own in ((ON, number), (CPU, "float32")):
            with permitted():
                tool = stability.load_stability(kind, made, on, dtype=own)
            asked = Settings(prompt=PROMPTS[0], steps=2, seed=1, guidance=5.0)
            pictures.append(tool(render(PROMPTS[0], 4, 64), asked))
        return {"apart": apart(*pictures), "allowed": ALLOWED[number]}

    for kind in (stability.X4, stability.Latent):
        for number in FORMATS:
            case = f"Stability's {kind.__name__}"
            yield {"case": case, "dtype": number}, partial(stabilitys, kind, number)


def samplers() -> Cases:
    """Each sampler that the rehearsal model takes, on the device beside the CPU."""
    steps = 6 if CARD else 3

    def run(names: Sequence[str]) -> dict[str, Any]:
        (name,) = names
        found = []
        for on in (ON.type, "cpu"):
            model = models[on]
            found.append(model.denoise(requests(MODEL, name, 1, steps, 64)).latents)
        ours, expected = found
        distance = float((ours - expected).abs().mean() / expected.std())
        return {"apart": distance, "allowed": LATENTS}

    models = {on: load(MODEL, device=on, dtype="float32") for on in {ON.type, "cpu"}}
    for name, spec in SAMPLERS.items():
        if spec.model == "diffusion" and (CARD or spec.schedule == "uniform"):
            yield {"case": name, "dtype": "float32"}, partial(run, [name])


def memory() -> Cases:
    """The ladder climbed because a card's memory really runs out."""

    def climb() -> dict[str, Any]:
        total = torch.cuda.mem_get_info(ON)[1]
        asked = requests(MODEL, None, 4, 4, SIDE)
        model = load(MODEL, device="cuda", rung="resident")
        model.denoise(asked)
        weights = torch.cuda.memory_allocated(ON)
        peak = torch.cuda.max_memory_reserved(ON)
        device.release()
        allowed = (weights + peak) // 2
        torch.cuda.set_per_process_memory_fraction(allowed / total, ON)
        try:
            denoised = ladder.climbing(model, lambda: model.denoise(asked))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, ON)
        note = f"{allowed / 2**30:.2f} GiB allowed; from resident to {model.rung}"
        return {"rung": model.rung, "batch": 4, "seconds": denoised.denoise_s, "note": note}

    def gone() -> dict[str, Any]:
        device.release()
        before = torch.cuda.memory_allocated(ON)
        model = load(MODEL, device="cuda")
        model.denoise(requests(MODEL, None, 1, 2, 64))
        del model
        device.release()
        left = (torch.cuda.memory_allocated(ON) - before) / 2**20
        return {"apart": left, "allowed": 16.0, "note": "MiB that stay after a model is let go"}

    if not CARD:
        yield {"case": "out of memory"}, lambda: {"status": "skipped", "note": "needs a card"}
        return
    yield {"case": "out of memory"}, climb
    yield {"case": "memory is given back"}, gone


def runs() -> Cases:
    """A sweep through rk.run on the device and on the CPU, and resumed."""
    folder = Path(tempfile.mkdtemp(prefix="realkit-gpu-"))
    asked = {
        "models": MODEL, "samplers": ["Euler", "DPM++ 2M Karras"], "prompts": PROMPTS[:2],
        "seeds": 1, "steps": min(STEPS, 8), "size": 64, "target": 96,
        "upscalers": [None, "rehearsal/compact-x4"], "scorers": ["rehearsal/clip", "colour-cast"],
        "encoders": ["rehearsal/clip"],
    }  # fmt: skip

    def run() -> dict[str, Any]:
        ours = rk.run(asked, folder / "device", device=ON.type, batch=2)
        with on_cpu():
            theirs = rk.run(asked | {"dtype": "float32"}, folder / "cpu", device="cpu", batch=2)
        one, two = ours.table(), theirs.table()
        if not (one["status"] == "ok").all():
            raise AssertionError(one["error"].dropna().iloc[0])
        from PIL import Image

        distances = []
        for a, b in zip(one["image"], two["image"], strict=True):
            with Image.open(ours.folder / a) as left, Image.open(theirs.folder / b) as right:
                distances.append(apart(left.convert("RGB"), right.convert("RGB")))
        number = one["dtype"].iloc[0]
        scores = (one["rehearsal/clip"] - two["rehearsal/clip"]).abs().max()
        note = f"{len(one)} cells; scores at most {scores:.3f} apart"
        found = {"dtype": number, "rung": one["rung"].iloc[0], "note": note}
        return found | {"apart": max(distances), "allowed": ALLOWED[number]}

    def resumed() -> dict[str, Any]:
        before = (folder / "device" / "rows.jsonl").read_bytes()
        rk.run(asked, folder / "device", device=ON.type, batch=2)
        same = before == (folder / "device" / "rows.jsonl").read_bytes()
        return {"apart": 0.0 if same else 1.0, "allowed": 0.0, "note": "rows made again"}

    yield {"case": "a sweep"}, run
    yield {"case": "the same again"}, resumed


def marked() -> Cases:
    """The tests marked `gpu`, where pytest is there."""

    def test() -> dict[str, Any]:
        if importlib.util.find_spec("pytest") is None:
            return {"status": "skipped", "note": "pytest is not there"}
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        texts = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/*/test_*.py")}
        files = [str(path) for path, text in texts.items() if "pytest.mark.gpu" in text]
        done = subprocess.run(
            [*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
        if done.returncode:
            raise AssertionError(" ".join(lines[-3:]))
        return {"note": lines[-1]}

    if CARD:
        yield {"case": "pytest -m gpu"}, test
    else:
        yield {"case": "pytest -m gpu"}, lambda: {"status": "skipped", "note": "needs a card"}


# What a wrong card shows first comes first.
PARTS = {
    "sweep": sweep, "scorers": scorers, "upscalers": upscalers, "run": runs, "memory": memory,
    "marked": marked, "families": families, "samplers": samplers,
}  # fmt: skip
