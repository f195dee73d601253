"""A picture enlarged four times by ncnn on the CPU: run as
`python -m tests.upscalers.by_ncnn PACKAGES PARAM IMAGE OUT`, where PACKAGES holds `ncnn`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def enlarged(param: Path, image: Image.Image) -> Image.Image:
    """The network's picture in float32 throughout, rounded as `rk.upscale` rounds."""
    import ncnn

    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = 1
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = network.opt.use_bf16_storage = False
    if network.load_param(str(param)) or network.load_model(str(param.with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot read {param}")
    planes = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
    pixels = np.ascontiguousarray(planes)  # ncnn reads it in place: it must live until then
    extractor = network.create_extractor()
    extractor.input("data", ncnn.Mat(pixels))
    failed, output = extractor.extract("output")
    if failed:
        raise ValueError(f"ncnn cannot run {param}")
    made = np.array(output).transpose(1, 2, 0).clip(0, 1)
    return Image.fromarray(np.rint(made * 255).astype(np.uint8))


if __name__ == "__main__":
    packages, param, image, out = map(Path, sys.argv[1:])
    sys.path.append(str(packages))
    with Image.open(image) as opened:
        enlarged(param, opened.convert("RGB")).save(out)
