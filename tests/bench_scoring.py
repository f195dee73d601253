"""What scoring costs beyond the network: 1,000 pictures of 64² by rehearsal/clip as a run scores
them, against decoding the same PNGs and the bare batched forward passes. `make bench` prints it.

Every repetition is of all three, one after another; its figure is a difference within it.
"""

from __future__ import annotations

import io
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image

import realkit as rk
from realkit.scorers import clip
from realkit.scorers.references import SOURCE
from realkit.scorers.score import lock_scorer
from realkit.scorers.table import SCORERS

NAME, BATCH, REPEATS = "rehearsal/clip", 10, 5
SWEEP = dict(
    models="rehearsal/base", samplers="Euler", prompts="suite:rehearsal", seeds=250, steps=1,
    guidance=1.0, size=64,
)  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the milliseconds a picture of each part, and what the run adds."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "made"
        rk.run(SWEEP, made, batch=BATCH)
        encoders = clip.Encoders(NAME, SCORERS[NAME].source, lock_scorer(NAME)[SOURCE])
        files = [path.read_bytes() for path in sorted((made / "images").glob("*.png"))]
        pictures: list[Image.Image] = []

        def decode() -> None:
            pictures[:] = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]

        decode()
        batches = [
            encoders._pixels(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)
        ]

        def forward() -> None:
            with torch.no_grad():
                for batch in batches:
                    encoders._model.encode_image(batch)

        added = []
        for repeat in range(REPEATS):
            folder = shutil.copytree(made, Path(place) / str(repeat))
            score = partial(rk.run, SWEEP | {"scorers": [NAME]}, folder, batch=BATCH)
            first, again = seconds(score), seconds(score)
            parts = [first - again, seconds(decode), seconds(forward)]
            added.append(parts[0] - parts[1] - parts[2])
            words = "scoring {:.2f}, decoding {:.2f}, forward passes {:.2f}".format(*parts)
            print(f"ms a picture: {words}, beyond them {added[-1]:.2f}")  # 1,000 pictures
        print(f"{len(files)} pictures, median beyond: {statistics.median(added):.2f} ms a picture")


if __name__ == "__main__":
    sys.exit(main())
