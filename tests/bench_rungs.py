"""Peak memory and time of each rung: SD1.5's and SDXL's networks from their shipped configs, with
random weights. `make bench` writes results/rungs-CARD.csv.

Random weights make noise, at the same cost as trained ones. On a CPU, SD1.5 alone at 256 pixels;
what is measured there is main memory.
"""

from __future__ import annotations

import csv
import json
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from realkit.base import device, measure
from realkit.base.measure import Stopwatch
from realkit.models import ladder
from realkit.models.families import FAMILIES, LegInput
from realkit.models.ladder import LADDERS
from realkit.runs import environment
from realkit.weights import checkpoints

STEPS = 5
RESULTS = Path(__file__).parent.parent / "results"
SIDES = {"sd1": 512, "sdxl": 1024}


def pipeline(kind: str, number: torch.dtype) -> Any:
    """A pipeline of a shipped kind with random weights."""
    import diffusers
    import transformers

    given = checkpoints.arguments(kind)
    place = Path(given.pop("config"))
    parts: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, (library, cls) in (
        (name, value)
        for name, value in json.loads((place / "model_index.json").read_text()).items()
        if isinstance(value, list)
    ):
        if library is None or name in parts or not (place / name).is_dir():
            continue
        made = getattr(diffusers if library == "diffusers" else transformers, cls)
        if library == "transformers":
            parts[name] = (
                made(transformers.CLIPTextConfig.from_pretrained(place / name)).to(number).eval()
            )
        else:
            config = json.loads(
                (
                    place / name / f"{'scheduler_config' if name == 'scheduler' else 'config'}.json"
                ).read_text()
            )
            parts[name] = (
                made.from_config(config)
                if name == "scheduler"
                else made.from_config(config).to(number).eval()
            )
    absent = {name: value for name, value in FAMILIES[kind].absent.items() if name not in parts}
    return getattr(diffusers, FAMILIES[kind].pipeline)(**parts, **absent)


def once(kind: str, rung: str) -> dict[str, Any]:
    """One rung, measured in a process of its own."""
    on = device.default_device()
    number = device.dtype_for(on)
    side = SIDES[kind] if on.type == "cuda" else 256
    torch.set_default_dtype(number)  # random weights are drawn in the format they are used in
    pipe = pipeline(kind, number)
    torch.set_default_dtype(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    family = FAMILIES[kind]
    ladder.place(pipe, rung, on)
    with torch.inference_mode():
        words = family.encode(pipe, ["a photo"], [""], True)
        noise = torch.randn(1, *family.shape(pipe, (side, side), None)).to(number)

        def go(steps: int) -> torch.Tensor:
            return pipe(
                **words,
                **family.arguments(pipe, LegInput(noise, (side, side))),
                num_inference_steps=steps,
                guidance_scale=5.0,
            )[0]

        go(1)
        with Stopwatch(on) as denoising:
            latents = go(STEPS)
        denoised = measure.memory(on)
        with Stopwatch(on) as decoding:
            pipe.vae.decode(
                latents.to(pipe.vae.device if rung != "model-offload" else on, number)
                / pipe.vae.config.scaling_factor
            )
    return {
        "model": kind,
        "rung": rung,
        "pixels": side,
        "dtype": str(number).removeprefix("torch."),
        "step_s": round(denoising.seconds / STEPS, 4),
        "decode_s": round(decoding.seconds, 4),
        "denoise_peak_vram_gib": denoised["peak_vram_gib"],
        "decode_peak_vram_gib": measure.memory(on)["peak_vram_gib"],
        "peak_ram_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "torch": torch.__version__,
    }


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(once(sys.argv[1], sys.argv[2])))
        return
    on = device.default_device()
    facts = environment.environment(on)
    card = str(facts.get("gpu") or facts.get("cpu") or platform.machine())
    kinds = SIDES if on.type == "cuda" else {"sd1": 256}
    rows = []
    for kind in kinds:
        for rung in LADDERS["both"][on.type]:
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench_rungs", kind, rung],
                capture_output=True,
                text=True,
            )
            found = (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else {"model": kind, "rung": rung, "error": done.stderr.splitlines()[-1:]}
            )
            print(found, flush=True)
            rows.append(found)
    path = RESULTS / f"rungs-{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    print(path.relative_to(RESULTS.parent))


if __name__ == "__main__":
    main()
