"""Downscale and restore with a known truth: which upscaler gives back most of a picture, and what
that costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import credentials, measure, pictures
from realkit.base.device import release
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.measure import Stopwatch, forget_peak
from realkit.base.pictures import MOST
from realkit.models.lock import lock_model
from realkit.scorers.likeness import MEASURES, colour_shift, lpips, psnr, sharpness, ssim
from realkit.upscalers import upscale
from realkit.upscalers.settings import Settings, checked
from realkit.upscalers.table import NETWORKS, canonical, chain, uses

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

REHEARSAL = "rehearsal"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
LEAST = 32  # pixels a side: SSIM's window takes 11
Truths = Sequence[tuple[str, "Image"]]
NUMBERS = (
    *MEASURES,
    "seconds",
    "load_s",
    "peak_vram_gib",
    "peak_vram_reserved_gib",
    "peak_ram_gib",
)
COLUMNS = (
    "upscaler", "picture", *NUMBERS, "tile", "dtype", "device", "input_width", "input_height",
    "image_width", "image_height", "status", "error",
)  # fmt: skip


def truths(source: str | Path, count: int, size: int = 512) -> list[tuple[str, Image]]:
    """Square RGB pictures of `size` pixels, each with a name: "rehearsal" renders scenes held out
    of every training, a folder gives its first photographs.

    A photograph is turned upright, brought to sRGB, cut to its largest middle square and shrunk,
    antialiased. What cannot be read or is smaller than `size` is left out with a warning. Raises
    RequestError where nothing is left.
    """
    if type(count) is not int or count < 1:
        raise RequestError(f"count {shown(count)}: expected a number of pictures, 1 or more")
    if type(size) is not int or not LEAST <= size <= MOST:
        raise RequestError(f"size {shown(size)}: expected {LEAST} to {MOST} pixels")
    if source == REHEARSAL:
        from realkit.rehearsal.data import held_out
        from realkit.rehearsal.scenes import render

        scenes = held_out(count)
        names = [caption.removeprefix("a photo of ") for caption, _ in scenes]
        return [
            (f"{name} {n}" if names.index(name) < n else name, render(*scene, size))
            for n, (name, scene) in enumerate(zip(names, scenes, strict=True))
        ]
    return _photographs(Path(source).expanduser(), count, size)


def _photographs(folder: Path, count: int, size: int) -> list[tuple[str, Image]]:
    if not folder.is_dir():
        raise RequestError(
            f"Source {shown(str(folder))}: expected {REHEARSAL!r} or a folder of pictures"
        )
    found: list[tuple[str, Image]] = []
    left_out: list[str] = []
    for path in sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ):
        name = path.relative_to(folder).as_posix()
        try:
            found.append((name, _square(path, size)))
        except RequestError as error:
            left_out.append(f"{name} {error}")
        if len(found) == count:
            break
    said = (
        f"{len(left_out)} left out, such as {left_out[0]}"
        if left_out
        else f"looked for {', '.join(SUFFIXES)}"
    )
    if not found:
        raise RequestError(
            f"Folder {shown(str(folder))} holds no picture of {size}×{size} pixels or more: {said}"
        )
    if left_out:
        warnings.warn(f"{len(found)} pictures of {str(folder)!r}; {said}", stacklevel=3)
    return found


def _square(path: Path, size: int) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = pictures.opaque(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"cannot be read: {one_line(error)}") from error
    if min(image.size) < size:
        raise RequestError(f"is {image.width}×{image.height}: expected {size}×{size} or more")
    return pictures.resized(image, (size, size))


def shrunk(truth: Image, scale: int) -> Image:
    """The truth at 1/scale of its size: bicubic, antialiased, 8 bits, as the benchmarks of
    super-resolution do. Raises RequestError for a remainder."""
    from PIL import Image

    if type(scale) is not int or scale < 2 or truth.width % scale or truth.height % scale:
        raise RequestError(
            f"A picture of {truth.width}×{truth.height} cannot be shrunk by {shown(scale)}:"
            " expected 2 or more, which divides both sides"
        )
    return truth.resize((truth.width // scale, truth.height // scale), Image.Resampling.BICUBIC)


@dataclass
class Comparison:
    """`frame`: one line an upscaler and picture. `restored`: the pictures by (upscaler, picture),
    where kept. `notes`: what was not measured, and why."""

    frame: pd.DataFrame
    truths: dict[str, Image]
    scale: int
    restored: dict[tuple[str, str], Image] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, picture: str) -> dict[str, Image]:
        """The truth, the small picture, and what each upscaler made of it, by name."""
        if picture not in self.truths:
            raise RequestError(
                f"Unknown picture {shown(picture)}: expected one of {', '.join(self.truths)}"[:400]
            )
        truth = self.truths[picture]
        return {"truth": truth, "small": shrunk(truth, self.scale)} | {
            name: made for (name, of), made in self.restored.items() if of == picture
        }


def compare(
    truths: Truths,
    names: Sequence[str],
    scale: int = 4,
    *,
    keep: bool = True,
    download: bool = False,
    device: str | None = None,
    **settings: Any,
) -> Comparison:
    """Each truth shrunk by `scale` and restored by each upscaler: the measures, and seconds a
    picture once warm, memory, and how it was done.

    `settings` are those of `rk.upscale`; an upscaler is given the ones it uses. `download` is
    LPIPS's. A failing upscaler is a line with its error. Raises RequestError beforehand for an
    unknown upscaler or setting, pictures that `scale` does not divide, and where there is nothing
    to compare.
    """
    import pandas as pd
    from tqdm import tqdm

    known = list(dict.fromkeys(canonical(name) for name in names))
    by_name = {name: pictures.opaque(truth) for name, truth in truths}
    if not known or not by_name or len(by_name) < len(truths):
        raise RequestError(
            f"{len(known)} upscalers, {len(truths)} pictures of {len(by_name)} names: expected one"
            " or more of each, and a name for every picture"
        )
    small = {name: shrunk(truth, scale) for name, truth in by_name.items()}
    given = {name: _used_by(name, settings) for name in known}
    if idle := [
        key
        for key, value in settings.items()
        if value is not None and not any(key in found for found in given.values())
    ]:
        raise RequestError(f"None of the upscalers uses {idle[0]!r}: {', '.join(known)}")
    distance = lpips(download)
    calls: dict[str, Callable[[Image, Image], float | None]] = {
        "psnr_db": psnr,
        "psnr_shaved_db": partial(psnr, shave=scale),
        "ssim": ssim,
        "sharpness": sharpness,
        "colour_shift": colour_shift,
    }
    if not isinstance(distance, str):
        calls["lpips"] = distance
    found = Comparison(
        pd.DataFrame(),
        by_name,
        scale,
        notes=[f"lpips is empty: {distance}"] if isinstance(distance, str) else [],
    )
    rows = []
    with tqdm(total=len(known) * len(small), desc="restoring", mininterval=1) as bar:
        for name in known:
            for picture, row, made in _restored(name, small, by_name, given[name], device):
                if made is not None:
                    row |= {key: call(by_name[picture], made) for key, call in calls.items()}
                    if keep:
                        found.restored[name, picture] = made
                rows.append(row)
                bar.update()
            release()
    found.frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(NUMBERS, float))
    return found


def _used_by(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in Settings.model_fields:
            raise RequestError(
                f"Unknown setting {key!r} of an upscaler: expected some of"
                f" {', '.join(Settings.model_fields)}"
            )
        engines = {spec.engine for _, spec in chain(name)}
        cut = key in ("tile", "overlap", "pre_pad") and not engines.isdisjoint(NETWORKS)
        if value is not None and (
            cut or key in uses(name) or (key == "landmarks" and "faces" in engines)
        ):
            found[key] = value
    return found


def _restored(
    name: str,
    small: Mapping[str, Image],
    truths: Mapping[str, Image],
    settings: dict[str, Any],
    device: str | None,
) -> Iterator[tuple[str, dict[str, Any], Image | None]]:
    """Of each picture its name, its row without the measures, and what was restored, None where
    that failed."""
    failure: Exception | None = None
    began = time.perf_counter()
    try:
        given = checked(name, settings)
        loaded = upscale.load_upscaler(
            name, model=lock_model(given["model"]) if given.get("model") else None, device=device
        )
    except Exception as error:
        failure = error
    load_s, warm = time.perf_counter() - began, set()
    for picture, image in small.items():
        size = truths[picture].size
        row: dict[str, Any] = {
            "upscaler": name,
            "picture": picture,
            "input_width": image.width,
            "input_height": image.height,
            "status": "ok",
        }
        try:
            if failure:
                raise failure
            row |= {"device": loaded.device.type, "load_s": load_s}
            if image.size not in warm:
                loaded(image, size, given)
                warm.add(image.size)
            forget_peak()
            with Stopwatch(loaded.device) as watch:
                made, used = loaded(image, size, given)
            row |= {
                "seconds": watch.seconds,
                **measure.memory(loaded.device),
                **{key: used.get(key) for key in ("tile", "dtype")},
            }
            yield picture, row | {"image_width": made.width, "image_height": made.height}, made
        except Exception as error:  # whatever an upscaler raises is its line in the table
            yield (
                picture,
                row
                | {
                    "status": "failed",
                    "error": f"{type(error).__name__}: {credentials.scrub(one_line(error))[:300]}",
                },
                None,
            )
