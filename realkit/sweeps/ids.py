"""The ids of a cell and of what its stages make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from realkit.models.identity import denoise_determined, name_of
from realkit.models.lock import ModelLock
from realkit.sweeps.cell import Cell
from realkit.upscalers.chain import Chain
from realkit.upscalers.identity import determined_upscale
from realkit.upscalers.settings import Settings
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class Ids:
    """The names of what a cell's stages make."""

    latents: str  # of the last leg
    decoded: str
    image: str  # the final picture's: `decoded` where nothing upscales it
    begun: str = ""  # latents of the first of two legs


def ids(cell: Cell, lock: ModelLock, upscaler: Mapping[str, Any] | None) -> Ids:
    """The names of what a cell's stages make; `upscaler` is what `of_cell` returns."""
    determined = denoise_determined(cell, lock)
    latents = name_of("denoise", determined)
    decoded = name_of("decode", {"latents": latents, "vae": lock.vae_fingerprint})
    begun, image = "", decoded
    if then := determined.pop("then", None):
        begun = name_of("denoise", determined | {"end": then["at"]})
    if upscaler is not None:
        upscaled = {"image": decoded, "upscaler": upscaler, "target": cell.pixels}
        image = name_of("upscale", upscaled)
    return Ids(latents, decoded, image, begun)


def cell_id(settings: Mapping[str, Any], image: str) -> str:
    """The name of a cell: of its settings, and of its final picture."""
    hashed = dict(settings)
    for name in ("dtype", "strength"):  # younger than the ids: hashed only where they are set
        if hashed.get(name) is None:
            hashed.pop(name, None)
    return name_of("cell", {"settings": hashed, "image": image})


def settings_of(cell: Cell, chain: Chain) -> Settings:
    """The settings of a cell's upscaler: the cell's own, as far as the upscaler uses them. Raises
    RequestError for a value that the upscaler cannot take."""
    names = {"prompt", "negative", "seed", "strength"}
    if chain.redraws:  # which continues with what made the picture
        names |= {"steps", "guidance", "sampler"}
    return chain.settings({name: getattr(cell, name) for name in names & chain.uses})


def of_cell(cell: Cell, locks: Mapping[str, Mapping[str, Lock]], model: ModelLock) -> Any:
    """What determines how a cell's picture is upscaled; None without an upscaler."""
    if cell.upscaler is None:
        return None
    chain = Chain.parse(cell.upscaler)
    return determined_upscale(chain, settings_of(cell, chain), locks[cell.upscaler], model)
