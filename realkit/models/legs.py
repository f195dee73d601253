"""Legs of denoising: what a second model is asked with, and whether a request's legs can be run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.models.families import FAMILIES
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.lock import ModelLock
    from realkit.models.spec import ModelSpec
    from realkit.sweeps.cell import Cell


def check_legs(cell: Cell, lock: ModelLock) -> None:
    """Raise RequestError where a cell's legs cannot be run by its sampler."""
    build.check(cell.sampler, cell.steps, lock.scheduler)
    if FAMILIES[lock.spec.family].second:
        raise RequestError(f"Model {cell.model!r} goes on from another's latents: take a model that ends with it (realkit list models)")
    if lock.then and lock.spec.then:
        sampler, steps, _ = second_leg(cell.sampler, cell.steps, cell.guidance, lock.then.spec)
        build.check(sampler, steps, lock.then.scheduler)
        if sampler == cell.sampler and not SAMPLERS[sampler].divides:
            raise RequestError(f"Sampler {sampler!r} cannot hand over in the middle, as model {cell.model!r} asks: take Euler or DPM++ 2M")


def second_leg(sampler: str, steps: int, guidance: float, second: ModelSpec) -> tuple[str, int, float]:
    """(sampler, steps, guidance) of a second leg: a refiner goes on with the first's, a decoder of another kind has its own."""
    if FAMILIES[second.family].vae == "vae":
        return sampler, steps, guidance
    own = second.settings
    return find(SAMPLERS, own.sampler), own.steps, float(own.guidance)


def second_leg_seed(seed: int) -> int:
    """The seed of a second leg's own noise: another stream than the first leg's, which began with the same seed."""
    return int.from_bytes(hashlib.sha256(f"second leg of {seed}".encode()).digest()[:7], "big")
