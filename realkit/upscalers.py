"""Upscalers behind one verb: any spandrel network or plain resampling, to the exact size asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from realkit import hub, placement, provenance
from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find, shown

if TYPE_CHECKING:
    from PIL.Image import Image


class Upscaler(Spec):
    engine: Literal["resample", "spandrel"]
    source: str
    tflop: float = 0.0  # 10¹² operations a megapixel of input
    licence: str = "unknown"
    about: str = ""
    aliases: tuple[str, ...] = ()


UPSCALERS: Table[Upscaler] = Table("upscaler", Upscaler)
Enlarge = Callable[["Image", tuple[int, int]], "Image"]
FINISH = "LANCZOS"  # the filter from a network's own scale to the exact target
MAX_PASSES = 4
MARGIN = 8  # pixels of reflection around a network's input


def identify(name: str) -> tuple[str, Upscaler]:
    """A catalogue name as the table spells it, or a weight file as itself, with its entry."""
    if isinstance(name, str) and name.endswith(".safetensors"):
        path = hub.local(name)
        if path is None or not path.is_file():
            raise RequestError(f"Upscaler file {shown(name)} is not there: expected an existing .safetensors file")
        return name, Upscaler(engine="spandrel", source=name)
    known = find(UPSCALERS, name)
    return known, UPSCALERS[known]


def target_size(native: tuple[int, int], to: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) to make of a picture of this size; an int is the longer side, the other follows to the nearest pixel."""
    if not isinstance(to, int):
        return to
    longer = max(native)
    width, height = (max(1, round(side * to / longer)) for side in native)
    return width, height


def plain(image: Image) -> Image:
    """A picture as people see it, in 8-bit RGB, or in RGBA where it has transparency: turned upright, 16-bit grey scaled."""
    import numpy as np
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise RequestError(f"picture {shown(image)}: expected a PIL image, such as PIL.Image.open(path)")
    if image.mode == "F":
        raise RequestError("A picture of floating-point numbers has no known white: expected 8 or 16 bits a channel, scale it to them first")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.asarray(image.convert("I")).clip(0, 65_535) / 257
        image = Image.fromarray(grey.round().astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def opaque(image: Image) -> Image:
    """The plain picture without transparency: on white."""
    from PIL import Image

    image = plain(image)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB") if image.mode == "RGBA" else image


def determined(name: str) -> dict[str, Any]:
    """What determines an upscaler's result: engine, weights, and the filter that finishes to the exact size. Raises RequestError for a wrong entry."""
    from PIL import Image

    known, spec = identify(name)
    if spec.engine == "spandrel":
        locked = hub.lock(spec.source)
        if locked.kind != "file":
            raise RequestError(f"Upscaler {known!r} has the source {spec.source!r}: expected a .safetensors file")
        return {"engine": spec.engine, "weights": locked.fingerprint, "finish": FINISH}
    if spec.source not in Image.Resampling.__members__:
        raise RequestError(f"Upscaler {known!r} has the source {spec.source!r}: expected a filter, one of {', '.join(Image.Resampling.__members__)}")
    return {"engine": spec.engine, "filter": spec.source}


def load(name: str) -> Enlarge:
    """A function (RGB picture, (width, height)) → RGB picture. Raises RequestError for weights that are no upscaler."""
    from PIL import Image

    spec = identify(name)[1]
    if spec.engine == "resample":
        kernel = Image.Resampling[spec.source]
        return lambda image, size: image.resize(size, kernel)
    return _network(name, hub.fetch(hub.lock(spec.source)))


def upscale(image: Image, name: str, to: int | tuple[int, int]) -> Image:
    """The picture enlarged to `to`: an int for the longer side, or (width, height). Transparency is kept, enlarged by FINISH.

    What the picture says of itself in `info` is kept, with the upscaler added.
    """
    from PIL import Image

    sides = to if isinstance(to, (tuple, list)) else (to, to)
    if len(sides) != 2 or any(type(side) is not int or not 1 <= side <= 32_768 for side in sides):
        raise RequestError(f"Target size {shown(to)}: expected 1 to 32768 pixels for the longer side, or (width, height)")
    known, how = identify(name)[0], determined(name)
    image = plain(image)
    before = provenance.noted(image)
    size = target_size(image.size, to if isinstance(to, int) else (sides[0], sides[1]))
    made = _loaded(known, str(how))(image.convert("RGB"), size)
    if image.mode == "RGBA":
        made.putalpha(image.getchannel("A").resize(size, Image.Resampling[FINISH]))
    cell = before["cell"] | {"upscaler": known, "target": size} if before.get("cell") else None
    source = before.get("determined") or {"pixels": provenance.pixel_hash(image)}
    return provenance.annotate(made, {"stage": "upscale", "cell": cell, "determined": source | {"upscaler": how, "target": size}})


@lru_cache(maxsize=2)
def _loaded(name: str, determined: str) -> Enlarge:  # keyed by the weights too: a file may change
    return load(name)


def _network(name: str, path: Path) -> Enlarge:
    import numpy as np
    import torch
    from PIL import Image
    from spandrel import ImageModelDescriptor, ModelLoader

    on = placement.device()
    try:
        network = ModelLoader(device=on).load_from_file(path)
    except Exception as error:  # spandrel raises what the file provokes: each means that it is not usable here
        raise RequestError(f"Upscaler {name!r} does not load from {path.name!r}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(network, ImageModelDescriptor) or network.input_channels != 3 or network.scale < 2:
        raise RequestError(f"Upscaler {name!r}: {path.name!r} is no network that enlarges RGB pictures")
    network.eval()
    if on.type == "cuda" and network.supports_half:
        network.half()

    def enlarge(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        made = image
        for _ in range(MAX_PASSES):
            if made.width >= size[0] and made.height >= size[1]:
                break
            around = np.pad(np.array(made), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), "reflect")  # networks darken what they pad with zeros
            x = torch.from_numpy(around).permute(2, 0, 1)[None].to(on, network.dtype) / 255
            with torch.inference_mode():
                y = network(x)[0].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
            edge = MARGIN * network.scale
            made = Image.fromarray((y[edge:-edge, edge:-edge] * 255).round().astype(np.uint8))
        return made if made.size == size else made.resize(size, Image.Resampling[FINISH])

    return enlarge
