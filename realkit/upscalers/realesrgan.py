"""The realesrgan package as an engine, beside spandrel: the original code of Real-ESRGAN, made to
run on today's torchvision."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.base.errors import RequestError
from realkit.upscalers import networks
from realkit.upscalers.networks import Network
from realkit.upscalers.settings import Settings
from realkit.upscalers.tool import LoadRequest

if TYPE_CHECKING:
    from PIL.Image import Image

INSTALL = (
    "pip install opencv-python-headless && pip install --no-deps --no-build-isolation realesrgan"
    " basicsr"
)
TILE_PAD = 10  # the package's own overlap of tiles, pixels
BLOCKS = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.")


@dataclass
class Enlarger:
    """An RGB picture → one `scale` times as large, by RealESRGANer in float32. `used` says how the
    last one was made."""

    engine: Any
    network: Network
    pre_pad: int = 0
    used: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        return self.network.scale

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The picture enlarged, in the package's own tiles (without `tile`: whole). `pre_pad` is
        ours: the package's pads two sides only, and no picture smaller than that.

        Raises FloatingPointError where numbers are not finite.
        """
        from PIL import Image

        tile = settings.tile or 0
        overlap = TILE_PAD if settings.overlap is None else settings.overlap
        pad = self.pre_pad if settings.pre_pad is None else settings.pre_pad
        self.engine.tile_size, self.engine.tile_pad = tile, overlap
        bgr = np.ascontiguousarray(networks.surrounded(image, pad, self.network)[:, :, ::-1])
        with contextlib.redirect_stdout(io.StringIO()):  # it prints every tile
            pixels, _ = self.engine.enhance(bgr)
        if not self.engine.output.isfinite().all():
            raise FloatingPointError(networks.OVERFLOWED)
        if tile >= max(bgr.shape[:2]):
            tile = 0  # one tile is the whole picture
        self.used = {"tile": tile or None, "overlap": overlap if tile else None, "dtype": "float32"}
        rgb = networks.inner(pixels, image.size, pad, self.scale)[:, :, ::-1]
        return Image.fromarray(np.ascontiguousarray(rgb))


def load(request: LoadRequest) -> Enlarger:
    """RRDBNet and Compact weights, under any of their key names. Raises RequestError for other
    weights, and where the package is missing."""
    import torch

    name = request.name
    network = networks.load_spandrel(replace(request, device=torch.device("cpu")))
    package = _package(name)
    kind, modules = type(network.modules).__name__, network.modules
    weights: Mapping[str, Any] = modules.state_dict()
    if kind == "RRDBNet":
        blocks = 1 + max(int(match[1]) for match in map(BLOCKS.match, weights) if match)
        model = package["RRDBNet"](
            num_in_ch=3,
            num_out_ch=3,
            scale=network.scale,
            num_feat=len(weights["model.0.weight"]),
            num_block=blocks,
            num_grow_ch=len(weights["model.1.sub.0.RDB1.conv1.0.weight"]),
        )
        weights = _renamed(name, weights, blocks)
    elif kind == "SRVGGNetCompact":
        names = ("num_feat", "num_conv", "upscale", "act_type")
        model = package[kind](**{key: getattr(modules, key) for key in names})
    else:
        raise RequestError(
            f"Upscaler {name!r} is a {kind}: the realesrgan package runs RRDBNet and Compact"
            " weights"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save({"params": {key: value.float() for key, value in weights.items()}}, path)
        engine = package["RealESRGANer"](
            scale=network.scale,
            model_path=str(path),
            model=model,
            tile=0,
            tile_pad=TILE_PAD,
            pre_pad=0,
            half=False,
            device=request.device,
        )
    return Enlarger(engine, network, request.entry.pre_pad)


def _package(name: str) -> dict[str, Any]:
    """The three classes used of the package. basicsr, which it is built on, imports a module that
    torchvision dropped with 0.17; only one function of that module is needed."""
    dropped = "torchvision.transforms.functional_tensor"
    try:
        import torchvision.transforms.functional as functional

        if dropped not in sys.modules:
            alias = types.ModuleType(dropped)
            alias.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
            sys.modules[dropped] = alias
        from basicsr.archs.rrdbnet_arch import RRDBNet
        from realesrgan import RealESRGANer
        from realesrgan.archs.srvgg_arch import SRVGGNetCompact
    except ImportError as error:
        raise RequestError(
            f"Upscaler {name!r} needs the package {error.name or 'realesrgan'}: {INSTALL}"
        ) from error
    return {"RealESRGANer": RealESRGANer, "RRDBNet": RRDBNet, "SRVGGNetCompact": SRVGGNetCompact}


def _renamed(name: str, weights: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """An RRDBNet's weights under basicsr's names, from the first ESRGAN's, which spandrel uses."""
    tail = sorted({int(key.split(".")[1]) for key in weights} - {0, 1})
    if len(tail) != 4:
        raise RequestError(
            f"Upscaler {name!r}: the realesrgan package runs RRDBNet of two doublings (x4, x2plus)"
            " only: name the weights without 'realesrgan:'"
        )
    outer = {"model.0": "conv_first", f"model.1.sub.{blocks}": "conv_body"}
    ends = ("conv_up1", "conv_up2", "conv_hr", "conv_last")
    outer |= {f"model.{place}": end for place, end in zip(tail, ends, strict=True)}
    renamed = {}
    for key, value in weights.items():
        if match := BLOCKS.match(key):
            key = f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{key[match.end() :]}"
        else:
            layer, _, kind = key.rpartition(".")
            key = f"{outer[layer]}.{kind}"
        renamed[key] = value
    return renamed
