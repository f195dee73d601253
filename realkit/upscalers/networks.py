"""Networks that enlarge: any that spandrel reads, Swin2SR as transformers publishes it, and the
original realesrgan engine; in tiles where memory asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import measure
from realkit.base.device import out_of_memory, release
from realkit.base.errors import RequestError, one_line
from realkit.upscalers import tiles
from realkit.upscalers.tiles import RAMP

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL.Image import Image

# pixels: more overlap than this is not taken by itself. RRDBNet's 23 blocks could see 350, trained
# ones look a few tens of pixels far
BLIND = 64
# pixels of overlap for a network that attends to, or pools over, more than its neighbourhood
GLOBAL = 24
LOCAL = (  # modules that see as far as their kernels, or no further than one pixel
    "Conv2d", "PReLU", "ReLU", "LeakyReLU", "GELU", "SiLU", "Mish", "Tanh", "Sigmoid",
    "PixelShuffle", "PixelUnshuffle", "Upsample", "Identity", "Dropout",
)  # fmt: skip
SHARE = 0.6  # of the free memory, for the tiles in work


@dataclass
class Network:
    """A network as a function of tensors, (B, 3, h, w) in [0, 1] → (B, 3, h · scale, w · scale),
    and what it needs to know of its input.

    `multiple`: what the sides must be multiples of. `least`: the shortest side it takes. `reach`:
    pixels of the small picture beyond which nothing changes a result, None where that is not known.
    `divides`: whether the picture may be cut into tiles.
    """

    run: Callable[[torch.Tensor], torch.Tensor]
    scale: int
    on: torch.device
    number: torch.dtype
    modules: torch.nn.Module
    multiple: int = 1
    least: int = 1
    reach: int | None = None
    divides: bool = True


@dataclass
class Enlarger:
    """An RGB picture → one `scale` times as large. `used` tells how the last one was made."""

    network: Network
    pre_pad: int = 0
    used: dict[str, Any] = field(default_factory=dict)
    _warm: set[tuple[int, int]] = field(default_factory=set)

    @property
    def scale(self) -> int:
        return self.network.scale

    @property
    def device(self) -> torch.device:
        return self.network.on

    def warm(self, size: tuple[int, int]) -> None:
        """One run of the network on a GPU at a size that it has not seen, so that set-up costs are
        not timed."""
        import torch

        net = self.network
        width, height = (
            side + 2 * self.pre_pad + _missing(side + 2 * self.pre_pad, net) for side in size
        )
        if net.on.type == "cuda" and size not in self._warm and width * height <= self._pixels():
            with torch.inference_mode():
                net.run(torch.zeros(1, 3, height, width, device=net.on, dtype=net.number))
        self._warm.add(size)

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """`tile` and `overlap` (pixels of the small picture) are chosen by what is free where
        `settings` leave them out; `pre_pad` pixels are added by reflection, and as many more as the
        network's sizes ask for, and cut off again. Out of memory, the tiles are halved."""
        import numpy as np
        from PIL import Image

        net, pad = self.network, settings.get("pre_pad", self.pre_pad)
        width, height = image.size
        x = surrounded(image, pad, net).astype(np.float32) / 255
        overlap = settings.get("overlap", GLOBAL if net.reach is None else min(net.reach, BLIND))
        limit = self._pixels()
        whole = x.shape[0] * x.shape[1] <= limit or not net.divides
        tile = settings.get("tile") or (
            max(x.shape[:2]) if whole else tiles.largest(limit, overlap, net.multiple)
        )
        y = self._in_tiles(x, tile, overlap, limit)
        if not np.isfinite(y).all():
            raise FloatingPointError(
                "the network's picture is not finite: it overflowed in its number format"
            )
        edge = pad * net.scale
        y = y[edge : edge + height * net.scale, edge : edge + width * net.scale]
        np.clip(y, 0, 1, out=y)
        y *= 255
        return Image.fromarray(np.rint(y, out=y).astype(np.uint8))

    def _in_tiles(
        self, x: npt.NDArray[Any], tile: int, overlap: int, limit: float
    ) -> npt.NDArray[Any]:
        net = self.network
        while True:
            piece = tile + 2 * (overlap + RAMP)
            batch = max(1, min(16, int(limit / piece**2))) if net.on.type == "cuda" else 1
            try:
                made = tiles.enlarged(x, self._run, net.scale, tile, overlap, net.multiple, batch)
                break
            except Exception as error:
                if not out_of_memory(error) or tile <= 2 * RAMP or not net.divides:
                    raise
            release()
            tile, limit = min(tile, max(x.shape[:2])) // 2, limit / 4
        cut = tile < max(x.shape[:2])
        self.used = {
            "tile": tile if cut else None,
            "overlap": overlap if cut else None,
            "dtype": str(net.number).removeprefix("torch."),
        }
        return made

    def _run(self, pieces: npt.NDArray[Any]) -> npt.NDArray[Any]:
        import torch

        net = self.network
        with torch.inference_mode():
            x = torch.from_numpy(pieces).permute(0, 3, 1, 2).to(net.on, net.number)
            return net.run(x).float().permute(0, 2, 3, 1).cpu().numpy()

    def _pixels(self) -> float:
        """How many pixels of a small picture fit into what is free, by what a small piece takes."""
        import torch

        net = self.network
        side = max(net.least, tiles.up(32, net.multiple))
        x = torch.zeros(1, 3, side, side, device=net.on, dtype=net.number)
        with torch.inference_mode():
            if net.on.type == "cuda":
                torch.cuda.reset_peak_memory_stats(net.on)
                before = torch.cuda.memory_allocated(net.on)
                net.run(x)
                took, free = (
                    torch.cuda.max_memory_allocated(net.on) - before,
                    torch.cuda.mem_get_info(net.on)[0],
                )
            else:
                took, free = _widest(net, x), int((measure.ram_free() or 4) * 2**30)
        return SHARE * free / (took / side**2)


def surrounded(image: Image, pad: int, net: Network) -> npt.NDArray[np.uint8]:
    """A picture's pixels (H, W, 3) with `pad` more all round by reflection, and as many on the
    right and below as the network's sizes ask for."""
    import numpy as np

    right, below = (_missing(side + 2 * pad, net) for side in image.size)
    return np.pad(
        np.asarray(image),
        ((pad, pad + below), (pad, pad + right), (0, 0)),
        "reflect" if min(image.size) > 1 else "edge",
    )


def _missing(side: int, net: Network) -> int:
    return -(-max(side, net.least) // net.multiple) * net.multiple - side


def _widest(net: Network, x: torch.Tensor) -> int:
    """Bytes at the widest place of a network: twice what goes into and comes out of one module."""
    import torch

    most = 0

    def look(_: Any, given: Any, made: Any) -> None:
        nonlocal most
        held = [t for t in (*given, made) if isinstance(t, torch.Tensor)]
        most = max(most, 2 * sum(t.numel() * t.element_size() for t in held))

    hooks = [module.register_forward_hook(look) for module in net.modules.modules()]
    net.run(x)
    for hook in hooks:
        hook.remove()
    return max(1, most)


def reach(model: torch.nn.Module) -> int | None:
    """Pixels that a network of plain convolutions sees on either side, an upper bound: the sum over
    its kernels. None where other modules see further."""
    leaves = [module for module in model.modules() if not list(module.children())]
    if any(type(module).__name__ not in LOCAL for module in leaves) or _holds_bare_parameters(
        model
    ):
        return None
    convolutions: list[Any] = [leaf for leaf in leaves if type(leaf).__name__ == "Conv2d"]
    if any(max(layer.stride) > 1 for layer in convolutions):
        return None
    return sum((max(layer.kernel_size) - 1) // 2 * max(layer.dilation) for layer in convolutions)


def _holds_bare_parameters(model: torch.nn.Module) -> bool:
    """Whether modules with children have parameters of their own, as those with attention do."""
    return any(
        list(module.children()) and list(module.parameters(recurse=False))
        for module in model.modules()
    )


def load_spandrel(name: str, path: Path, on: torch.device, called: str = "") -> Network:
    """Any architecture that spandrel knows, told by its weights; in half precision on a GPU where
    it bears it. Raises RequestError for anything else, with the file as `called`."""
    from spandrel import ImageModelDescriptor, ModelLoader

    called = called or path.name
    try:
        found = ModelLoader(device=on).load_from_file(path)
    except (
        Exception
    ) as error:  # spandrel raises what the file provokes: each means that it is not usable here
        raise RequestError(
            f"Upscaler {name!r} does not load from {called!r}: {_reason(error)}"
        ) from error
    if not isinstance(found, ImageModelDescriptor) or (
        found.input_channels,
        found.output_channels,
    ) != (3, 3):
        raise RequestError(
            f"Upscaler {name!r}: {called!r} is of {found.architecture.name}, expected a network"
            " that takes and makes RGB pictures"
        )
    found.eval()
    if on.type == "cuda" and found.supports_half:
        found.half()
    needs, inner = found.size_requirements, found.model
    window = getattr(inner, "window_size", 1)
    multiple = math.lcm(needs.multiple_of or 1, window if isinstance(window, int) else 1)
    least, seen = (
        max(needs.minimum or 1, multiple),
        reach(inner),
    )  # a network that unshuffles pixels first sees as many times further
    return Network(
        found,
        found.scale,
        on,
        found.dtype,
        inner,
        multiple,
        least,
        seen and seen * (needs.multiple_of or 1),
        found.tiling.name != "INTERNAL",
    )


def _reason(error: Exception) -> str:
    said = one_line(error)
    if "UnsupportedModelError" in type(error).__name__:
        return "its tensors are of no architecture that spandrel knows"
    if "nsupported" in said and "global" in said.lower():
        return "it holds more than tensors, and is not run"
    return said[:160] or type(error).__name__


def load_transformers(name: str, folder: Path, on: torch.device) -> Network:
    """Swin2SR in a folder as transformers saves it. float32: half precision overflows its
    attention. Raises RequestError for anything else."""
    import torch
    from transformers import Swin2SRForImageSuperResolution

    from realkit.base.files import json_object
    from realkit.models.loading import quiet

    quiet()
    config = json_object(folder / "config.json")
    if config.get("model_type") != "swin2sr":
        raise RequestError(
            f"Upscaler {name!r} is of type {config.get('model_type')!r}: expected a folder of"
            " Swin2SR, whose config.json says 'swin2sr'"
        )
    try:
        model, found = Swin2SRForImageSuperResolution.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (
        Exception
    ) as error:  # transformers raises what the files provoke: each means that it is not usable here
        raise RequestError(
            f"Upscaler {name!r} does not load from {folder.name!r}: {_reason(error)}"
        ) from error
    if wrong := sorted(map(str, (*found["missing_keys"], *found["mismatched_keys"]))):
        raise RequestError(
            f"Upscaler {name!r}: the weights in {folder.name!r} lack {wrong[0]!r}, or have it in"
            " another shape than config.json says: get both again"
        )
    model.eval().to(on)
    window = model.config.window_size * model.config.patch_size

    def run(x: torch.Tensor) -> torch.Tensor:
        return model(x).reconstruction  # type: ignore[no-any-return]

    return Network(run, model.config.upscale, on, torch.float32, model, window, window)
