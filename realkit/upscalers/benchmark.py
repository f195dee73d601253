"""Downscale and restore with a known truth: which upscaler restores most of a picture, and what
that costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import measure, pictures
from realkit.base.device import release
from realkit.base.door import door, expanded
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.measure import Stopwatch, forget_peak
from realkit.base.pictures import MOST
from realkit.base.suggest import instead
from realkit.scorers.likeness import MEASURES, colour_shift, lpips, psnr, psnr_y, sharpness, ssim
from realkit.upscalers import upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.settings import check_names

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    Measures = dict[str, Callable[[Image, Image], float | None]]
    Row = dict[str, Any]

REHEARSAL = "rehearsal"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
LEAST = 32  # pixels a side: SSIM's window takes 11
Truths = Sequence[tuple[str, "Image"]]
NUMBERS = (
    *MEASURES, "seconds", "load_s", "peak_vram_gib", "peak_vram_reserved_gib", "peak_ram_gib",
)  # fmt: skip
COLUMNS = (
    "upscaler", "picture", *NUMBERS, "tile", "dtype", "device", "input_width", "input_height",
    "image_width", "image_height", "status", "error",
)  # fmt: skip


@door
def truths(source: str | Path, count: int, size: int = 512) -> list[tuple[str, Image]]:
    """Square RGB pictures of `size` pixels, each with a name: "rehearsal" renders scenes held out
    of every training, a folder gives its first photographs.

    A photograph is turned upright, converted to sRGB, cut to its largest middle square and shrunk,
    antialiased. A file that is unreadable or smaller than `size` is skipped with a warning. Raises
    RequestError where nothing is left.
    """
    if type(count) is not int or count < 1:
        raise RequestError(f"count {shown(count)}: expected a number of pictures, 1 or more")
    if type(size) is not int or not LEAST <= size <= MOST:
        raise RequestError(f"size {shown(size)}: expected {LEAST} to {MOST} pixels")
    if source == REHEARSAL:
        return _rendered(count, size)
    return _photographs(expanded(source), count, size)


def _rendered(count: int, size: int) -> list[tuple[str, Image]]:
    from realkit.rehearsal.data import held_out
    from realkit.rehearsal.scenes import render

    scenes: dict[str, Image] = {}
    for number, (caption, seed) in enumerate(held_out(count)):
        name = caption.removeprefix("a photo of ")
        scenes[f"{name} {number}" if name in scenes else name] = render(caption, seed, size)
    return list(scenes.items())


def _photographs(folder: Path, count: int, size: int) -> list[tuple[str, Image]]:
    if not folder.is_dir():
        raise RequestError(
            f"Source {shown(str(folder))}: expected {REHEARSAL!r} or a folder of pictures"
        )
    squares: list[tuple[str, Image]] = []
    skipped: list[str] = []
    listed = sorted(folder.rglob("*"))
    for path in listed:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        name = path.relative_to(folder).as_posix()
        try:
            squares.append((name, _square(path, size)))
        except RequestError as error:
            skipped.append(f"{name} {error}")
        if len(squares) == count:
            break
    left_out = pictures.of_other_endings(listed, SUFFIXES) if len(squares) < count else ""
    reason = left_out or f"looked for {', '.join(SUFFIXES)}"
    if skipped:
        reason = f"{len(skipped)} skipped, such as {skipped[0]}{left_out and f'; {left_out}'}"
    if not squares:
        raise RequestError(
            f"Folder {shown(str(folder))} holds no picture of {size}×{size} pixels or more:"
            f" {reason}"
        )
    if skipped or left_out:
        warnings.warn(f"{len(squares)} pictures of {str(folder)!r}; {reason}", stacklevel=3)
    return squares


def _square(path: Path, size: int) -> Image:
    with pictures.opened(path, "cannot be read") as picture:
        image = pictures.opaque(picture)
    if min(image.size) < size:
        raise RequestError(f"is {image.width}×{image.height}: expected {size}×{size} or more")
    return pictures.resized(image, (size, size))


@door
def shrunk(truth: Image, scale: int) -> Image:
    """The truth at 1/scale of its size: bicubic, antialiased, 8 bits, as the benchmarks of
    super-resolution do. Raises RequestError where `scale` does not divide both sides."""
    from PIL import Image

    pictures.check_picture(truth)
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
            end = instead(picture, self.truths)
            raise RequestError(f"Unknown picture {shown(picture)}{end}"[:400])
        truth = self.truths[picture]
        restored = {name: image for (name, of), image in self.restored.items() if of == picture}
        return {"truth": truth, "small": shrunk(truth, self.scale)} | restored


@door
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

    `settings` are those of `rk.upscale`; each upscaler is given those it uses. `download` is
    LPIPS's. A failing upscaler is a line with its error. Raises RequestError beforehand for an
    unknown or unused setting, an unknown upscaler, pictures that `scale` does not divide, and where
    there is nothing to compare.
    """
    import pandas as pd
    from tqdm import tqdm

    by_name = {name: pictures.opaque(truth) for name, truth in truths}
    chains = list(dict.fromkeys(Chain.parse_checked(name) for name in names))
    if not chains or not by_name or len(by_name) < len(truths):
        raise RequestError(
            f"{len(chains)} upscalers, {len(truths)} pictures of {len(by_name)} names: expected one"
            " or more of each, and a name for every picture"
        )
    small = {name: shrunk(truth, scale) for name, truth in by_name.items()}
    settings = {key: value for key, value in settings.items() if value is not None}
    _check_used(chains, settings)
    measures, notes = _measures(scale, download)
    comparison = Comparison(pd.DataFrame(), by_name, scale, notes=notes)
    rows = []
    with tqdm(total=len(chains) * len(small), desc="restoring", mininterval=1) as bar:
        for chain in chains:
            for row, restored in _restored(chain, small, by_name, settings, device):
                picture = row["picture"]
                if restored is not None:
                    truth = by_name[picture]
                    row |= {key: measured(truth, restored) for key, measured in measures.items()}
                    if keep:
                        comparison.restored[str(chain), picture] = restored
                rows.append(row)
                bar.update()
            release()
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    comparison.frame = frame.astype(dict.fromkeys(NUMBERS, float))
    return comparison


def _measures(scale: int, download: bool) -> tuple[Measures, list[str]]:
    """The measures of MEASURES that can be taken here, and why others cannot."""
    measures: Measures = {
        "psnr_db": psnr,
        "psnr_shaved_db": partial(psnr, shave=scale),
        "psnr_y_db": partial(psnr_y, shave=scale),
        "ssim": ssim,
        "sharpness": sharpness,
        "colour_shift": colour_shift,
    }
    distance = lpips(download)
    if isinstance(distance, str):
        return measures, [f"lpips is empty: {distance}"]
    return measures | {"lpips": distance}, []


def _check_used(chains: list[Chain], settings: Mapping[str, Any]) -> None:
    """Raise RequestError for an unknown setting, and for one that no upscaler uses."""
    check_names(settings)
    understood = set().union(*(chain.understands for chain in chains))
    if idle := [key for key in settings if key not in understood]:
        names = ", ".join(map(str, chains))
        raise RequestError(f"None of the upscalers uses {idle[0]!r}: {names}")


def _restored(
    chain: Chain,
    small: Mapping[str, Image],
    truths: Mapping[str, Image],
    settings: Mapping[str, Any],
    device: str | None,
) -> Iterator[tuple[Row, Image | None]]:
    """Of each picture its row without the measures, and what was restored, None where that
    failed."""
    failure: Exception | None = None
    began = time.perf_counter()
    try:
        checked = chain.settings({k: v for k, v in settings.items() if k in chain.understands})
        loaded = upscale.load_upscaler(chain.redrawn_by(checked.model), device=device)
    except Exception as error:  # every picture has a line that tells it
        failure = error
    load_s, warm = time.perf_counter() - began, set()
    for picture, image in small.items():
        size = truths[picture].size
        row: Row = {
            "upscaler": str(chain),
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
                loaded(image, size, checked)
                warm.add(image.size)
            forget_peak()
            with Stopwatch(loaded.device) as watch:
                restored, used = loaded(image, size, checked)
            row |= {"seconds": watch.seconds, **measure.memory(loaded.device)}
            row |= {"tile": used.get("tile"), "dtype": used.get("dtype")}
            yield row | {"image_width": restored.width, "image_height": restored.height}, restored
        except Exception as error:  # whatever an upscaler raises is its line in the table
            message = f"{type(error).__name__}: {one_line(error, 300)}"
            yield row | {"status": "failed", "error": message}, None
