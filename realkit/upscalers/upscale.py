"""The work of upscalers: a picture → one of exactly the size asked for, by one tool or a chain of
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import measure, metadata, pictures
from realkit.base.cache import readable
from realkit.base.device import device_for
from realkit.base.door import worded
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import FITS, Fit
from realkit.base.warn import warn_once
from realkit.models import notices, provenance
from realkit.models.lock import ModelLock
from realkit.upscalers.chain import Chain, Part
from realkit.upscalers.identity import determined_upscale, lock_upscaler, redraws_with
from realkit.upscalers.resample import Resampler
from realkit.upscalers.settings import Settings
from realkit.upscalers.tool import LoadRequest, Tool
from realkit.weights import folders, header, pickles, resolve
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

# Bytes a pixel of a network's result: three float32 while tiles are joined, and twice three bytes.
BYTES_MADE = 18


@dataclass
class Loaded:
    """The tools of a chain, ready: pictures of any size → exactly the size asked for."""

    chain: Chain
    tools: list[Tool | Resampler]
    device: torch.device

    def warm(self, native: tuple[int, int], size: tuple[int, int]) -> None:
        """Show the first tool a picture of this size before anything is timed, where that takes at
        most one run of a network."""
        warm = getattr(self.tools[0], "warm", None)
        if warm:
            left, top, right, bottom = pictures.frame(native, size)
            warm((round(right - left), round(bottom - top)))

    def __call__(
        self, image: Image, size: tuple[int, int], settings: Settings | None = None
    ) -> tuple[Image, dict[str, Any]]:
        """An RGB picture at the size (width, height), and how the tools made it, as row columns.

        The last tool that enlarges runs until the size is reached; tools before it run once each,
        tools after it at the final size. Raises RequestError beforehand where memory lacks room.
        """
        settings = settings or Settings()
        frame, image = pictures.frame(image.size, size), pictures.framed(image, size)
        scales = [_scale(tool) for tool in self.tools]
        check_memory(self.chain, image.size, size, scales)
        last = max((place for place, scale in enumerate(scales) if scale != 1), default=-1)
        if last < 0 and not self.chain.parts[0].engine.network:
            image = pictures.resized(image, size)
        used: dict[str, Any] = {}
        cut: dict[int, Any] = {}  # tiles, by the tool's place
        for place, tool in enumerate(self.tools):
            if isinstance(tool, Resampler):
                image = tool.to_size(image, size) if place == last else image
                continue
            while True:
                image = tool(image, _moved(settings, frame, image.size))
                # The last tool describes the picture, and an earlier one what it leaves out.
                used = tool.used | {key: value for key, value in used.items() if value is not None}
                if tool.used.get("tile"):
                    cut[place] = tool.used["tile"]
                if place != last or (image.width >= size[0] and image.height >= size[1]):
                    break
            if place == last:
                image = pictures.resized(image, size)
        if len(cut) > 1:
            used["tile"] = " + ".join(map(str, cut.values()))
        return pictures.resized(image, size), used


def _scale(tool: Tool | Resampler) -> int:
    """What a tool multiplies a side by in one pass; 0 where it reaches any size."""
    return 0 if isinstance(tool, Resampler) else tool.scale


def _moved(settings: Settings, frame: Box, size: tuple[int, int]) -> Settings:
    """The settings for a picture of (width, height) that shows the `frame` of the one given, whose
    pixels landmarks count."""
    if not settings.landmarks:
        return settings
    left, top, right, bottom = frame
    across, down = size[0] / (right - left), size[1] / (bottom - top)

    def moved(face: Any) -> list[tuple[float, float]]:
        return [((x - left) * across, (y - top) * down) for x, y in face]

    return settings.model_copy(update={"landmarks": [moved(face) for face in settings.landmarks]})


def check_memory(
    chain: Chain, native: tuple[int, int], size: tuple[int, int], scales: Sequence[int]
) -> None:
    """Raise RequestError, with the figures, where the pictures on the way to `size` do not fit into
    main memory. `scales`: what each part multiplies a side by."""
    scale = next((scale for scale in reversed(scales) if scale > 1), 1)
    width, height = native
    largest = width * height
    while scale > 1:
        width, height = width * scale, height * scale
        largest = width * height
        if width >= size[0] and height >= size[1]:
            break
    bytes_kept = max(part.engine.bytes_kept for part in chain.parts)
    needed = BYTES_MADE * largest + bytes_kept * size[0] * size[1]
    free = measure.ram_free()
    if free is not None and needed > free * 2**30:
        raise RequestError(
            f"{size[0]}×{size[1]} by {str(chain)!r} needs {readable(needed)} of memory for the"
            f" pictures on the way ({largest / 1e6:.0f} megapixels),"
            f" {readable(free * 2**30)} are free: ask for a smaller size"
        )


def load_upscaler(
    chain: Chain,
    locks: Mapping[str, Lock] | None = None,
    model: ModelLock | None = None,
    **placement: Any,
) -> Loaded:
    """The tools of a chain on this machine. `model` is the lock of the model that made the picture;
    `placement` (device, rung, dtype) is as in `rk.load`.

    Raises RequestError for weights that are no upscaler.
    """
    on = device_for(placement.get("device"))
    locks = lock_upscaler(chain) if locks is None else locks
    tools = [_load(part, locks.get(part.name), model, on, placement) for part in chain.parts]
    return Loaded(chain, tools, on)


def _load(
    part: Part,
    lock: Lock | None,
    model: ModelLock | None,
    on: torch.device,
    placement: Mapping[str, Any],
) -> Tool | Resampler:
    path, file = Path(), ""
    if lock:
        file = Path(lock.ref.partition("?")[0]).name
        try:
            with pickles.reading_pickles():
                path = resolve.fetch(lock)
            names = [""] if lock.single else folders.weights(lock.files, lock.variant)
            for name in names:
                header.check_numbers(f"{file!r}", header.read(path / name))
        except RequestError as error:
            raise RequestError(f"Upscaler {part.name!r}: {error}") from None
    by = redraws_with(part, model) if part.engine.redraws else None
    with worded(f"Upscaler {part.name!r} does not load"):
        return part.engine.load(LoadRequest(part.name, part.entry, on, path, file, by, placement))


def probe(chain: Chain, locks: Mapping[str, Lock]) -> None:
    """Load each network once and discard it, so that bad weight files fail before work starts.
    Raises RequestError."""
    import torch

    for part in chain.parts:
        if part.engine.probed:
            _load(part, locks.get(part.name), None, torch.device("cpu"), {})


def upscale(
    image: Image | str | Path,
    name: str | Path,
    to: int | tuple[int, int],
    prompt: str | None = None,
    seed: int = 0,
    *,
    fit: Fit = "crop",
    **settings: Any,
) -> Image:
    """The picture, or that of a file, enlarged to `to`: an int for the longer side, or (width,
    height), which `fit` "crop" fills with the picture's middle and "keep" holds it within.

    `prompt` and `seed` matter where the upscaler uses them; `settings` are those of Settings.
    Transparency is kept, enlarged by FINISH; grey stays grey; colours stay in the picture's own
    space, whose profile is kept. What the picture says of itself (texts, EXIF, resolution) is kept
    in `info`, with the upscaler added, and `rk.save` writes it. Raises RequestError for anything
    that cannot be done.
    """
    if isinstance(image, (str, Path)):
        image = pictures.read(image)
    pictures.check_picture(image)
    about = metadata.of(image)
    plain, profile = pictures.in_own_space(image)
    to = pictures.checked_target(to)
    if fit not in FITS:
        raise RequestError(f"fit {shown(fit)}: expected one of {', '.join(FITS)}")
    chain = Chain.parse_checked(name)
    checked = chain.settings({"prompt": prompt, "seed": seed, **settings})
    chain = chain.redrawn_by(checked.model)
    determined = determined_upscale(chain, checked)
    _say_unread(chain, checked)
    metadata.say_lost(about)
    grey, image = pictures.is_grey(image), plain
    size = pictures.target_size(image.size, to, fit)
    colours = pictures.under_transparency(image) if image.mode == "RGBA" else image
    with worded(f"Upscaler {str(chain)!r} gave no picture"):
        loaded = _loaded(chain, str(determined))
        enlarged = loaded(colours, size, checked)[0]
    if grey:
        enlarged = enlarged.convert("L").convert("RGB")
    if image.mode == "RGBA":
        enlarged.putalpha(pictures.resized(image.getchannel("A"), size))
    enlarged.info = replace(about, profile=profile).upright(size).info()
    record = _record(image, enlarged, chain, checked, determined)
    record["made"] = provenance.made_with(loaded.device)
    return provenance.annotate(enlarged, record)


def _say_unread(chain: Chain, settings: Settings) -> None:
    """Say, once, what of the prompt the chain's models will not read."""
    if "prompt" not in chain.uses or not settings.prompt:
        return
    texts = dict.fromkeys([(settings.prompt, False), (settings.negative or "", True)])
    locks = [redraws_with(part, None) for part in chain.parts if part.engine.redraws]
    models = {lock.name: lock for lock in locks if lock}
    for line in notices.unread({name: texts for name in models or [str(chain)]}, models):
        warn_once(line)


@lru_cache(maxsize=1)
def _loaded(chain: Chain, determined: str) -> Loaded:
    # Keyed by what determines the result too: a file of weights may change.
    return load_upscaler(chain)


def _record(
    image: Image, enlarged: Image, chain: Chain, settings: Settings, determined: dict[str, Any]
) -> dict[str, Any]:
    """What an enlarged picture says of itself."""
    before = provenance.read(enlarged.info.get(provenance.CHUNK, ""))
    source, cell = _source(image, before), None
    if before.get("stage") == "decode" and "pixels" not in source:
        cell = _enlarged_cell(before.get("cell"), chain, enlarged.size, settings)
    record = {
        "stage": "upscale",
        "cell": cell,
        "upscaler": str(chain),
        "determined": source | {"upscaler": determined, "target": enlarged.size},
        "pixels": provenance.pixel_hash(enlarged),
    }
    if "model_hash" in before:
        record["model_hash"] = before["model_hash"]
    if before:  # what determined it is in `determined`, where it still does
        record["before"] = before
        if "pixels" not in source:
            record["before"] = {key: before[key] for key in before if key != "determined"}
    return record


def _source(image: Image, before: Mapping[str, Any]) -> dict[str, Any]:
    """What determined a picture: as it says of itself where its pixels are unchanged, else its
    pixels."""
    pixels = provenance.pixel_hash(image)
    if before.get("pixels") != pixels or not before.get("determined"):
        return {"pixels": pixels}
    if "upscaler" in before["determined"]:
        return {"before": before["determined"]}
    return dict(before["determined"])


def _enlarged_cell(
    cell: Mapping[str, Any] | None, chain: Chain, size: tuple[int, int], settings: Settings
) -> dict[str, Any] | None:
    """The cell of a picture that was made and enlarged; None where the upscaler had another prompt,
    seed or setting than the picture was made with."""
    values = settings.model_dump(include=settings.model_fields_set & chain.uses)
    values.pop("strength", None)
    if cell is None or any(cell.get(name) != value for name, value in values.items()):
        return None
    enlarged = {**cell, "upscaler": str(chain), "target": size}
    return enlarged | {"strength": settings.strength} if "strength" in chain.uses else enlarged
