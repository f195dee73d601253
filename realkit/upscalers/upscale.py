"""The work of upscalers: a picture → one of exactly the size asked for, by one tool or a chain of
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from realkit.base import measure, pictures
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import FITS, Fit
from realkit.models import provenance
from realkit.models.lock import ModelLock, lock_model
from realkit.upscalers.engines import Tool, load_tool
from realkit.upscalers.identity import determined_upscale, lock_upscaler
from realkit.upscalers.resample import resample
from realkit.upscalers.settings import Settings, checked
from realkit.upscalers.table import NETWORKS, Upscaler, canonical, chain, uses
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BYTES_MADE = (
    18  # a pixel of a network's result: three float32 while tiles are joined, and twice three bytes
)
BYTES_KEPT = {
    "redraw": 40,
    "diffusers-x4": 40,
    "diffusers-latent": 40,
    "faces": 12,
}  # a pixel of the final picture, measured; of the other engines
BYTES_OTHER = 6


@dataclass
class Loaded:
    """The tools of an upscaler, ready: pictures of any size → exactly the size asked for."""

    name: str
    tools: list[tuple[Upscaler, Tool | None]]
    device: torch.device

    def warm(self, native: tuple[int, int], size: tuple[int, int]) -> None:
        """Let the first tool see a picture of this size before anything is timed, where that takes
        no more than one run of a network."""
        warm = getattr(self.tools[0][1], "warm", None)
        if warm:
            left, top, right, bottom = pictures.frame(native, size)
            warm((round(right - left), round(bottom - top)))

    def __call__(
        self, image: Image, size: tuple[int, int], settings: Mapping[str, Any] | None = None
    ) -> tuple[Image, dict[str, Any]]:
        """An RGB picture at the size (width, height), and how each tool made it.

        The last tool that enlarges goes on until the size is reached, the tools before it work once
        each, and the rest at the final size. Raises RequestError beforehand where the memory for
        the picture is not there.
        """
        given = dict(settings or {})
        seen, image = pictures.frame(image.size, size), pictures.framed(image, size)
        check_memory(
            self.name,
            image.size,
            size,
            [(spec.engine, tool.scale if tool else 1) for spec, tool in self.tools],
        )
        used: dict[str, Any] = {}
        last = max(
            (i for i, (spec, tool) in enumerate(self.tools) if _enlarges(spec, tool)), default=-1
        )
        if last < 0 and self.tools[0][0].engine not in NETWORKS:
            image = pictures.resized(image, size)
        for place, (spec, tool) in enumerate(self.tools):
            if tool is None:
                image = resample(image, size if place == last else image.size, spec)
                continue
            image = tool(image, given | _moved(given, seen, image.size))
            used = tool.used | _said(used)
            while (
                place == last
                and tool.scale > 1
                and (image.width < size[0] or image.height < size[1])
            ):
                image = tool(image, given)
                used = tool.used | _said(used)
            if place == last:
                image = pictures.resized(image, size)
        return pictures.resized(image, size), used


def _said(used: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in used.items() if value is not None}


def _moved(
    given: Mapping[str, Any], seen: tuple[float, float, float, float], size: tuple[int, int]
) -> dict[str, Any]:
    """Landmarks, which are said of the picture given, where they lie in one that has become this
    large."""
    if not given.get("landmarks"):
        return {}
    left, top, right, bottom = seen
    scale = size[0] / (right - left), size[1] / (bottom - top)
    return {
        "landmarks": [
            [((x - left) * scale[0], (y - top) * scale[1]) for x, y in face]
            for face in given["landmarks"]
        ]
    }


def _enlarges(spec: Upscaler, tool: Tool | None) -> bool:
    return tool is None or tool.scale > 1


def check_memory(
    name: str, native: tuple[int, int], size: tuple[int, int], tools: list[tuple[str, int]]
) -> None:
    """Raise RequestError, with the figures, where the pictures on the way to `size` do not fit into
    main memory. `tools`: the engine and scale of each."""
    scale = [1, *(scale for _, scale in tools if scale > 1)][-1]
    largest, now = native[0] * native[1], native
    while scale > 1:
        now = (now[0] * scale, now[1] * scale)
        largest = now[0] * now[1]
        if now[0] >= size[0] and now[1] >= size[1]:
            break
    kept = max(BYTES_KEPT.get(engine, BYTES_OTHER) for engine, _ in tools)
    needed = (BYTES_MADE * largest + kept * size[0] * size[1]) / 2**30
    free = measure.ram_free()
    if free is not None and needed > free:
        raise RequestError(
            f"{size[0]}×{size[1]} by {name!r} needs {needed:.1f} GiB of memory for the pictures on"
            f" the way ({largest / 1e6:.0f} megapixels), {free:.1f} GiB are free: ask for a smaller"
            " size"
        )


def load_upscaler(
    name: str, locks: Mapping[str, Lock] | None = None, model: ModelLock | None = None, **where: Any
) -> Loaded:
    """The tools of an upscaler on this machine. `model` is the lock of the model that redraws;
    `where` (device, rung, dtype) is as in `rk.load`.

    Raises RequestError for weights that are no upscaler.
    """
    from realkit.base.device import device_for

    on = device_for(where.get("device"))
    locks = lock_upscaler(name) if locks is None else locks
    return Loaded(
        name,
        [
            (spec, load_tool(known, spec, locks.get(known), model, on, where))
            for known, spec in chain(name)
        ],
        on,
    )


def probe(name: str, locks: Mapping[str, Lock]) -> None:
    """Load an upscaler's networks once and let them go, so that files which are none are found
    before anything is made. Raises RequestError."""
    import torch

    for known, spec in chain(name):
        if spec.engine in (*NETWORKS, "faces"):
            load_tool(known, spec, locks.get(known), None, torch.device("cpu"), {})


def upscale(
    image: Image,
    name: str,
    to: int | tuple[int, int],
    prompt: str | None = None,
    seed: int = 0,
    *,
    fit: Fit = "crop",
    **settings: Any,
) -> Image:
    """The picture enlarged to `to`: an int for the longer side, or (width, height), which `fit`
    "crop" fills with the picture's middle and "keep" holds it within.

    `prompt` and `seed` matter where the upscaler uses them; `settings` are those of Settings.
    Transparency is kept, enlarged by FINISH; what is grey stays grey. What the picture says of
    itself in `info` is kept, with the upscaler added. Raises RequestError for anything that cannot
    be done.
    """
    plain = pictures.plain(image)
    to = pictures.checked_target(to)
    if fit not in FITS:
        raise RequestError(f"fit {shown(fit)}: expected one of {', '.join(FITS)}")
    known = canonical(name)
    given = checked(known, {"prompt": prompt, "seed": seed, **settings})
    how = determined_upscale(known, given)
    grey, image = pictures.is_grey(image), plain
    before = provenance.noted(image)
    size = pictures.target_size(image.size, to, fit)
    colours = pictures.under_transparency(image) if image.mode == "RGBA" else image
    try:
        made = _loaded(known, given.get("model"), str(how))(colours, size, given)[0]
    except FloatingPointError as error:
        raise RequestError(f"Upscaler {known!r} gave no picture: {error}") from error
    if grey:
        made = made.convert("L").convert("RGB")
    if image.mode == "RGBA":
        made.putalpha(pictures.resized(image.getchannel("A"), size))
    source, cell = _source(image, before), None
    if before.get("stage") == "decode" and "pixels" not in source:
        cell = _enlarged_cell(before["cell"], known, size, given)
    record = {
        "stage": "upscale",
        "cell": cell,
        "determined": source | {"upscaler": how, "target": size},
        "pixels": provenance.pixel_hash(made),
    }
    return provenance.annotate(made, record)


def _source(image: Image, before: Mapping[str, Any]) -> dict[str, Any]:
    """What determined a picture: as it says of itself, if it is still the picture it says that of;
    else its pixels."""
    pixels = provenance.pixel_hash(image)
    if before.get("pixels") != pixels or not before.get("determined"):
        return {"pixels": pixels}
    return (
        {"before": before["determined"]}
        if "upscaler" in before["determined"]
        else dict(before["determined"])
    )


def _enlarged_cell(
    cell: Mapping[str, Any] | None, name: str, size: tuple[int, int], given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The cell of a picture that was made and enlarged; None where the upscaler was told other
    words, seeds or settings than made it."""
    used = uses(name)
    said = {key: value for key, value in given.items() if key in used}
    strength = said.pop("strength", Settings().strength if "strength" in used else None)
    if cell is None or any(cell.get(key) != value for key, value in said.items()):
        return None
    enlarged = {**cell, "upscaler": name, "target": size}
    return enlarged if strength is None else enlarged | {"strength": strength}


@lru_cache(maxsize=1)
def _loaded(
    name: str, model: str | None, determined: str
) -> Loaded:  # keyed by the weights too: a file may change
    return load_upscaler(name, model=lock_model(model) if model else None)
