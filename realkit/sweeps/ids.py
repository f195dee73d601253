"""The ids of what a cell's stages make, and of the cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    """The names of what a cell's stages make; `latents` are what its last leg leaves, `image` is
    the final picture's, the decoded one's where nothing upscales it."""

    latents: str
    decoded: str
    image: str
    begun: str = ""  # what the first of two legs leaves


def ids(cell: Cell, lock: ModelLock, upscaler: Mapping[str, Any] | None) -> Ids:
    """The ids of what a cell's stages make; `upscaler` is what determines its upscaler's result,
    None where it has none."""
    determined = denoise_determined(cell, lock)
    latents = name_of("denoise", determined)
    decoded = name_of("decode", {"latents": latents, "vae": lock.vae_fingerprint})
    then = determined.pop("then", None)
    begun = name_of("denoise", determined | {"end": then["at"]}) if then else ""
    if upscaler is None:
        return Ids(latents, decoded, decoded, begun)
    return Ids(
        latents,
        decoded,
        name_of("upscale", {"image": decoded, "upscaler": upscaler, "target": cell.pixels}),
        begun,
    )


def cell_id(cell: Cell, made: Ids) -> str:
    settings = {
        name: value
        for name, value in asdict(cell).items()
        if name not in ("dtype", "strength") or value is not None
    }
    return name_of("cell", {"settings": settings, "image": made.image})


def settings_of(cell: Cell, chain: Chain) -> Settings:
    """The settings of a cell's upscaler: the cell's own, as far as the upscaler uses them. Raises
    RequestError for a value that the upscaler cannot take."""
    names = {"prompt", "negative", "seed", "strength"}
    if chain.redraws:  # which continues with what made the picture
        names |= {"steps", "guidance", "sampler"}
    return chain.settings({name: getattr(cell, name) for name in names & chain.uses})


def of_cell(cell: Cell, locks: Mapping[str, Mapping[str, Lock]], model: ModelLock) -> Any:
    """What determines how a cell's picture is enlarged; None where it is not."""
    if cell.upscaler is None:
        return None
    chain = Chain.parse(cell.upscaler)
    return determined_upscale(chain, settings_of(cell, chain), locks[cell.upscaler], model)
