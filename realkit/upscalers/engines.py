"""The engines of upscalers: a row for each says how it loads, what it needs, which settings it
understands, and what determines its result."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from realkit.upscalers import resample
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import DETECTOR, Upscaler
from realkit.upscalers.tool import LoadRequest, Tool

Identity = Callable[[Upscaler, Settings], dict[str, Any]]
REDRAWN = (
    "model", "prompt", "negative", "seed", "strength", "steps", "guidance", "sampler",
)  # fmt: skip


def _nothing(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    return {}


def _filter(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    return {"filter": entry.source}


def _detection(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    if settings.landmarks is None:
        return {"detector": DETECTOR}
    return {"landmarks": settings.landmarks}


def _padding(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    return {"pre_pad": entry.pre_pad if settings.pre_pad is None else settings.pre_pad}


def _overlap(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    # Without a given overlap, tiles overlap by what the network sees: they change nothing.
    overlap = {} if settings.overlap is None else {"overlap": settings.overlap}
    return _padding(entry, settings) | overlap


def _visible_tiles(entry: Upscaler, settings: Settings) -> dict[str, Any]:
    # The realesrgan package cuts hard between tiles.
    if settings.tile:
        return _padding(entry, settings) | {"tiles": [settings.tile, settings.overlap]}
    return _overlap(entry, settings)


@dataclass(frozen=True)
class Engine:
    """One way to compute an upscaler.

    `loader` names a function LoadRequest → Tool as "module:function"; it is imported when first
    used, since most modules load numpy. `uses` are the settings that determine every result, and
    `accepts` those of which `identity` says how they do.
    """

    loader: str
    weights: Literal["", "file", "folder"] = ""
    uses: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    identity: Identity = _nothing
    check: Callable[[str, Upscaler], None] | None = None  # raises RequestError for a wrong source
    prompt: Literal["", "always", "guided"] = ""  # when it needs one; "guided": with guidance > 0
    # At a guidance of at most `unguided` (None: 0), the settings of `idle` change nothing.
    unguided: float = 0.0
    idle: tuple[str, ...] = ()
    network: bool = False  # sees the picture at its own size, in tiles; else at the final size
    probed: bool = False  # weights are loaded once before a sweep starts, to find bad files
    redraws: bool = False  # by a model, which continues with the settings that made the picture
    # Bytes a pixel of the final picture, measured.
    bytes_kept: int = 6
    instead_of: str = ""  # an engine whose entries this one runs too, as "ENGINE:NAME"

    def load(self, request: LoadRequest) -> Tool | resample.Resampler:
        tool: Tool | resample.Resampler = pkgutil.resolve_name(self.loader)(request)
        return tool

    def idle_at(self, guidance: float | None) -> tuple[str, ...]:
        """The settings that change nothing at this guidance (None: the engine's own)."""
        return self.idle if (guidance or 0.0) <= self.unguided else ()

    def needs_prompt(self, settings: Settings) -> bool:
        return self.prompt == "always" or (self.prompt == "guided" and bool(settings.guidance))


HERE = "realkit.upscalers."
TILING = ("tile", "overlap", "pre_pad")

ENGINES: dict[str, Engine] = {
    "resample": Engine(
        HERE + "resample:load_filter", identity=_filter, check=resample.check_filter
    ),
    "opencv": Engine(
        HERE + "resample:load_interpolation",
        identity=_filter,
        check=resample.check_interpolation,
    ),
    "spandrel": Engine(
        HERE + "networks:load_file",
        weights="file", accepts=TILING, identity=_overlap, network=True, probed=True,
    ),
    "transformers": Engine(
        HERE + "networks:load_folder",
        weights="folder", accepts=TILING, identity=_overlap, network=True, probed=True,
    ),
    "realesrgan": Engine(
        HERE + "realesrgan:load",
        weights="file", accepts=TILING, identity=_visible_tiles, network=True, probed=True,
        instead_of="spandrel",
    ),
    "diffusers-x4": Engine(
        HERE + "stability:load_x4",
        weights="folder", prompt="always", bytes_kept=40,
        uses=("prompt", "negative", "seed", "noise_level", "steps", "guidance"),
    ),
    "diffusers-latent": Engine(
        HERE + "stability:load_latent",
        weights="folder", prompt="guided", idle=("prompt", "negative"), bytes_kept=40,
        uses=("prompt", "negative", "seed", "steps", "guidance"),
    ),
    "redraw": Engine(
        HERE + "redraw:load",
        prompt="always", unguided=1.0, idle=("negative", "guidance"), bytes_kept=40,
        uses=REDRAWN, redraws=True,
    ),
    "faces": Engine(
        HERE + "faces:load",
        weights="file", accepts=("landmarks",), identity=_detection, probed=True, bytes_kept=12,
    ),
}  # fmt: skip

# The engines of weights that no entry describes: of a file, and of a folder.
OF_FILE, OF_FOLDER = "spandrel", "transformers"
