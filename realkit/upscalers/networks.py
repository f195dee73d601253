"""Networks that enlarge: any that spandrel reads, and Swin2SR as transformers publishes it; in
tiles where memory asks for them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.base import measure
from realkit.base.device import computes_half, out_of_memory, release
from realkit.base.errors import RequestError, one_line
from realkit.base.files import json_object
from realkit.models.loading import quiet
from realkit.upscalers import tiles
from realkit.upscalers.settings import Settings
from realkit.upscalers.tiles import RAMP
from realkit.upscalers.tool import LoadRequest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

# The most pixels of overlap taken unasked: RRDBNet's 23 blocks could see 350 pixels far, trained
# networks look a few tens of pixels far.
BLIND = 64
# Pixels of overlap for a network that attends to, or pools over, more than its neighbourhood.
GLOBAL = 24
# Modules that see as far as their kernels, or no further than one pixel.
LOCAL = (
    "Conv2d", "PReLU", "ReLU", "LeakyReLU", "GELU", "SiLU", "Mish", "Tanh", "Sigmoid",
    "PixelShuffle", "PixelUnshuffle", "Upsample", "Identity", "Dropout",
)  # fmt: skip
SHARE = 0.6  # of the free memory, for the tiles in work
OVERFLOWED = "the network's picture is not finite: it overflowed in its number format"


@dataclass
class Network:
    """A network as a function of tensors, (B, 3, h, w) in [0, 1] → (B, 3, h · scale, w · scale),
    and what it needs to know of its input.

    `multiple`: what the sides must be multiples of. `least`: the shortest side it takes. `reach`:
    pixels of the small picture beyond which nothing changes a result, None where unknown.
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

    def padded(self, side: int) -> int:
        """The shortest side from this one on that the network takes."""
        return tiles.up(max(side, self.least), self.multiple)


@dataclass
class Enlarger:
    """An RGB picture → one `scale` times as large. `used` says how the last one was made."""

    network: Network
    pre_pad: int = 0
    used: dict[str, Any] = field(default_factory=dict)
    _warm: set[tuple[int, int]] = field(default_factory=set)

    @property
    def scale(self) -> int:
        return self.network.scale

    def warm(self, size: tuple[int, int]) -> None:
        """Run the network once on a GPU at a size that it has not seen, so that set-up costs are
        not timed."""
        import torch

        net = self.network
        width, height = (net.padded(side + 2 * self.pre_pad) for side in size)
        if net.on.type == "cuda" and size not in self._warm and width * height <= self._pixels():
            with torch.inference_mode():
                net.run(torch.zeros(1, 3, height, width, device=net.on, dtype=net.number))
        self._warm.add(size)

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The picture enlarged. Without `tile` and `overlap`, free memory decides; out of memory,
        tiles are halved. `pre_pad` pixels are added by reflection and cut off again.

        Raises FloatingPointError where numbers are not finite.
        """
        from PIL import Image

        net = self.network
        pad = self.pre_pad if settings.pre_pad is None else settings.pre_pad
        x = surrounded(image, pad, net).astype(np.float32) / 255
        overlap = settings.overlap
        if overlap is None:
            overlap = GLOBAL if net.reach is None else min(net.reach, BLIND)
        limit, tile = self._pixels(), settings.tile
        if not net.divides or (tile is None and x.shape[0] * x.shape[1] <= limit):
            tile = max(x.shape[:2])
        y = self._in_tiles(x, tile or tiles.largest(limit, overlap, net.multiple), overlap, limit)
        if not np.isfinite(y).all():
            raise FloatingPointError(OVERFLOWED)
        y = inner(y, image.size, pad, net.scale)
        np.clip(y, 0, 1, out=y)
        y *= 255
        return Image.fromarray(np.rint(y, out=y).astype(np.uint8))

    def _in_tiles(
        self, x: NDArray[Any], tile: int, overlap: int, limit: float
    ) -> NDArray[np.float32]:
        net = self.network
        while True:
            piece = tile + 2 * (overlap + RAMP)
            batch = max(1, min(16, int(limit / piece**2))) if net.on.type == "cuda" else 1
            try:
                y = tiles.enlarged(x, self._run, net.scale, tile, overlap, net.multiple, batch)
                break
            except Exception as error:
                if not out_of_memory(error) or tile <= 2 * RAMP or not net.divides:
                    raise
            release()
            tile, limit = min(tile, max(x.shape[:2])) // 2, limit / 4
        side = tiles.side_used(x.shape[:2], tile, overlap, net.multiple)
        self.used = {"tile": side, "overlap": overlap if side else None}
        self.used["dtype"] = str(net.number).removeprefix("torch.")
        return y

    def _run(self, pieces: NDArray[Any]) -> NDArray[Any]:
        import torch

        net = self.network
        with torch.inference_mode():
            x = torch.from_numpy(pieces).permute(0, 3, 1, 2).to(net.on, net.number)
            return net.run(x).float().permute(0, 2, 3, 1).cpu().numpy()

    def _pixels(self) -> float:
        """How many pixels of a small picture fit into free memory, by what a small piece takes."""
        import torch

        net = self.network
        side = max(net.least, tiles.up(32, net.multiple))
        x = torch.zeros(1, 3, side, side, device=net.on, dtype=net.number)
        with torch.inference_mode():
            if net.on.type == "cuda":
                torch.cuda.reset_peak_memory_stats(net.on)
                before = torch.cuda.memory_allocated(net.on)
                net.run(x)
                taken = torch.cuda.max_memory_allocated(net.on) - before
                free = torch.cuda.mem_get_info(net.on)[0]
            else:
                taken, free = _widest(net, x), int((measure.ram_free() or 4) * 2**30)
        return SHARE * free / (taken / side**2)


def surrounded(image: Image, pad: int, net: Network) -> NDArray[np.uint8]:
    """A picture's pixels (H, W, 3) with `pad` more all round by reflection, and on the right and
    below the pixels that the network's sizes ask for."""
    right, below = (net.padded(side + 2 * pad) - side - pad for side in image.size)
    mode = "reflect" if min(image.size) > 1 else "edge"
    return np.pad(np.asarray(image), ((pad, below), (pad, right), (0, 0)), mode)  # type: ignore[call-overload, no-any-return]


def inner(pixels: NDArray[Any], size: tuple[int, int], pad: int, scale: int) -> NDArray[Any]:
    """What a network made of a picture of (width, height), without what `surrounded` added."""
    edge, (width, height) = pad * scale, size
    return pixels[edge : edge + height * scale, edge : edge + width * scale]


def _widest(net: Network, x: torch.Tensor) -> int:
    """Bytes at the widest place of a network: twice what goes into and comes out of one module."""
    import torch

    most = 1

    def look(_: Any, inputs: Any, output: Any) -> None:
        nonlocal most
        tensors = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
        most = max(most, 2 * sum(tensor.nbytes for tensor in tensors))

    hooks = [module.register_forward_hook(look) for module in net.modules.modules()]
    net.run(x)
    for hook in hooks:
        hook.remove()
    return most


def reach(model: torch.nn.Module) -> int | None:
    """Pixels that a network of plain convolutions sees on either side, an upper bound: the sum over
    its kernels. None where other modules see further."""
    pixels = 0
    for module in model.modules():
        if list(module.children()):
            # Modules with children have parameters of their own where they attend.
            if list(module.parameters(recurse=False)):
                return None
            continue
        if type(module).__name__ not in LOCAL:
            return None
        if type(module).__name__ == "Conv2d":
            layer: Any = module
            if max(layer.stride) > 1:
                return None
            pixels += (max(layer.kernel_size) - 1) // 2 * max(layer.dilation)
    return pixels


def load_file(request: LoadRequest) -> Enlarger:
    """A network of one file, by spandrel. Raises RequestError for any other file."""
    return _enlarger(request, load_spandrel(request))


def load_folder(request: LoadRequest) -> Enlarger:
    """Swin2SR in a folder, by transformers. Raises RequestError for any other folder."""
    return _enlarger(request, load_transformers(request))


def _enlarger(request: LoadRequest, network: Network) -> Enlarger:
    expected = request.entry.scale
    if expected not in (1, network.scale):
        raise RequestError(
            f"Upscaler {request.name!r}: {request.file!r} enlarges {network.scale} times, expected"
            f" {expected}: it is another file"
        )
    return Enlarger(network, request.entry.pre_pad)


def load_spandrel(request: LoadRequest) -> Network:
    """Any architecture that spandrel recognises by its weights; in half precision on a GPU where
    the architecture allows it. Raises RequestError for anything else."""
    from spandrel import ImageModelDescriptor, ModelLoader

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid")  # DAT builds its masks by it
            descriptor = ModelLoader(device=request.device).load_from_file(request.path)
    except Exception as error:  # spandrel raises what the file provokes: it is not usable here
        raise _unloadable(request, error) from error
    channels = descriptor.input_channels, descriptor.output_channels
    if not isinstance(descriptor, ImageModelDescriptor) or channels != (3, 3):
        raise RequestError(
            f"Upscaler {request.name!r}: {request.file!r} is of {descriptor.architecture.name},"
            " expected a network that takes and makes RGB pictures"
        )
    descriptor.eval()
    if computes_half(request.device) and descriptor.supports_half:
        descriptor.half()
    needs, model = descriptor.size_requirements, descriptor.model
    window = getattr(model, "window_size", 1)
    multiple = math.lcm(needs.multiple_of or 1, window if isinstance(window, int) else 1)
    sight = reach(model)
    if sight is not None:
        # A network that unshuffles pixels first sees as many times further.
        sight *= needs.multiple_of or 1
    return Network(
        descriptor, descriptor.scale, request.device, descriptor.dtype, model,
        multiple=multiple, least=max(needs.minimum or 1, multiple), reach=sight,
        divides=descriptor.tiling.name != "INTERNAL",
    )  # fmt: skip


def _unloadable(request: LoadRequest, error: Exception) -> RequestError:
    reason = one_line(error, 160) or type(error).__name__
    if "UnsupportedModelError" in type(error).__name__:
        reason = "its tensors are of no architecture that spandrel knows"
    elif "nsupported" in str(error) and "global" in str(error).lower():
        reason = "it holds more than tensors, and is not run"
    name = request.file or request.path.name
    return RequestError(f"Upscaler {request.name!r} does not load from {name!r}: {reason}")


def load_transformers(request: LoadRequest) -> Network:
    """Swin2SR in a folder as transformers saves it. float32: half precision overflows its
    attention. Raises RequestError for anything else."""
    import torch
    from transformers import Swin2SRForImageSuperResolution

    quiet()
    config = json_object(request.path / "config.json")
    if config.get("model_type") != "swin2sr":
        raise RequestError(
            f"Upscaler {request.name!r} is of type {config.get('model_type')!r}: expected a folder"
            " of Swin2SR, whose config.json says 'swin2sr'"
        )
    try:
        model, report = Swin2SRForImageSuperResolution.from_pretrained(
            request.path, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises what the files provoke
        raise _unloadable(request, error) from error
    if wrong := sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"]))):
        raise RequestError(
            f"Upscaler {request.name!r}: the weights in {request.file!r} lack {wrong[0]!r}, or have"
            " it in another shape than config.json says: download both again"
        )
    model.eval().to(request.device)
    window = model.config.window_size * model.config.patch_size

    def run(x: torch.Tensor) -> torch.Tensor:
        return model(x).reconstruction  # type: ignore[no-any-return]

    return Network(
        run, model.config.upscale, request.device, torch.float32, model,
        multiple=window, least=window,
    )  # fmt: skip
