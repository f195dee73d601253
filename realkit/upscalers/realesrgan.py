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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.upscalers import networks
from realkit.upscalers.networks import Network

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

INSTALL = (
    "pip install opencv-python-headless && pip install --no-deps --no-build-isolation realesrgan"
    " basicsr"
)
ORIGINAL = "realesrgan:"
BLOCKS = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.")


@dataclass
class Enlarger:
    """An RGB picture → one `scale` times as large, by RealESRGANer in float32."""

    engine: Any
    network: Network
    device: torch.device
    pre_pad: int = 0
    used: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        return self.network.scale

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """`tile` (pixels; left out: the whole picture) and `overlap` (its `tile_pad`) are the
        package's own. `pre_pad` is ours: it pads two sides only, and no picture smaller than
        that."""
        import numpy as np
        from PIL import Image

        tile, overlap, pad = (
            settings.get("tile") or 0,
            settings.get("overlap", 10),
            settings.get("pre_pad", self.pre_pad),
        )
        self.engine.tile_size, self.engine.tile_pad = tile, overlap
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of every tile
            made, _ = self.engine.enhance(
                np.ascontiguousarray(networks.surrounded(image, pad, self.network)[:, :, ::-1])
            )
        if not self.engine.output.isfinite().all():
            raise FloatingPointError(
                "the network's picture is not finite: it overflowed in its number format"
            )
        self.used = {"tile": tile or None, "overlap": overlap if tile else None, "dtype": "float32"}
        edge, (width, height) = pad * self.scale, image.size
        return Image.fromarray(
            np.ascontiguousarray(
                made[edge : edge + height * self.scale, edge : edge + width * self.scale, ::-1]
            )
        )


def load(name: str, path: Path, on: torch.device, pre_pad: int = 0, called: str = "") -> Enlarger:
    """RRDBNet and Compact weights, under any of their key names. Raises RequestError for others,
    and where the package is not there."""
    import torch

    found = networks.load_spandrel(name, path, torch.device("cpu"), called)
    package = _package(name)
    kind, weights = type(found.modules).__name__, found.modules.state_dict()
    if kind == "RRDBNet":
        blocks = 1 + max(int(match[1]) for key in weights if (match := BLOCKS.match(key)))
        filters, growth = (
            len(weights["model.0.weight"]),
            len(weights["model.1.sub.0.RDB1.conv1.0.weight"]),
        )
        model = package["RRDBNet"](
            num_in_ch=3,
            num_out_ch=3,
            scale=found.scale,
            num_feat=filters,
            num_block=blocks,
            num_grow_ch=growth,
        )
        weights = _renamed(name, weights, blocks)
    elif kind == "SRVGGNetCompact":
        inner: Any = found.modules
        model = package["SRVGGNetCompact"](
            num_feat=inner.num_feat,
            num_conv=inner.num_conv,
            upscale=inner.upscale,
            act_type=inner.act_type,
        )
    else:
        raise RequestError(
            f"Upscaler {name!r} is a {kind}: the realesrgan package runs RRDBNet and Compact"
            " weights"
        )
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "weights.pth"
        torch.save({"params": {key: value.float() for key, value in weights.items()}}, kept)
        engine = package["RealESRGANer"](
            scale=found.scale,
            model_path=str(kept),
            model=model,
            tile=0,
            tile_pad=10,
            pre_pad=0,
            half=False,
            device=on,
        )
    return Enlarger(engine, found, on, pre_pad)


def _package(name: str) -> dict[str, Any]:
    """What is used of it. basicsr, which it is built on, imports a module that torchvision dropped
    with 0.17; only this function of it is wanted."""
    gone = "torchvision.transforms.functional_tensor"
    try:
        import torchvision.transforms.functional as functional

        if gone not in sys.modules:
            alias = types.ModuleType(gone)
            alias.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
            sys.modules[gone] = alias
        from basicsr.archs.rrdbnet_arch import RRDBNet
        from realesrgan import RealESRGANer
        from realesrgan.archs.srvgg_arch import SRVGGNetCompact
    except ImportError as error:
        raise RequestError(
            f"Upscaler {name!r} needs the package {error.name or 'realesrgan'}: {INSTALL}"
        ) from error
    return {"RealESRGANer": RealESRGANer, "RRDBNet": RRDBNet, "SRVGGNetCompact": SRVGGNetCompact}


def _renamed(name: str, weights: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """An RRDBNet's weights under basicsr's names, from those of the first ESRGAN, which spandrel
    uses."""
    outer = [("model.0", "conv_first"), (f"model.1.sub.{blocks}", "conv_body")]
    tail = sorted({int(key.split(".")[1]) for key in weights} - {0, 1})
    if len(tail) != 4:
        raise RequestError(
            f"Upscaler {name!r}: the realesrgan package runs RRDBNet of two doublings (x4, x2plus),"
            f" this one has another number: take it without {ORIGINAL!r}"
        )
    outer += [
        (f"model.{place}", name)
        for place, name in zip(tail, ("conv_up1", "conv_up2", "conv_hr", "conv_last"), strict=True)
    ]
    found = {}
    for key, value in weights.items():
        if match := BLOCKS.match(key):
            found[f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{key[match.end() :]}"] = value
        else:
            old, new = next((old, new) for old, new in outer if key.startswith(f"{old}."))
            found[new + key.removeprefix(old)] = value
    return found
