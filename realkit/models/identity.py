"""What determines latents, and the ids made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realkit.samplers.table import SAMPLERS
from realkit.sweeps.cell import Cell

if TYPE_CHECKING:
    from realkit.models.lock import ModelLock

ID_VERSION = 1  # raised when the meaning of an id changes


def name_of(stage: str, determined: Mapping[str, Any]) -> str:
    """The id of an artifact: 16 hex digits of a SHA-256 over the stage and what determines its result."""
    canonical = json.dumps([ID_VERSION, stage, determined], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def denoise_determined(cell: Cell, lock: ModelLock) -> dict[str, Any]:
    """What determines a cell's latents, all legs together. Guidance and negative prompt do not where there is no guidance (at 1 or below), nor
    steps where the sampler chooses them."""
    from realkit.models.legs import second_leg

    found = _leg_determined(cell, lock, cell.sampler, cell.steps, cell.guidance)
    found |= {"prompt": cell.prompt, "seed": cell.seed, "width": cell.width, "height": cell.height} | ({"dtype": cell.dtype} if cell.dtype else {})
    if lock.then and lock.spec.then:
        went = second_leg(cell.sampler, cell.steps, cell.guidance, lock.then.spec)
        found["then"] = {"at": lock.spec.then.at, **_leg_determined(cell, lock.then, *went)}
    return found


def _leg_determined(cell: Cell, lock: ModelLock, sampler: str, steps: int, guidance: float) -> dict[str, Any]:
    guided = guidance > 1
    prints = {part: value for part, value in lock.fingerprint.items() if part != "vae"}
    entry = SAMPLERS[sampler]
    return {
        "model": prints, "family": lock.spec.family, "scheduler": lock.scheduler, "sampler": sampler, "sampler_entry": entry.determined,
        "steps": None if entry.adaptive else steps, "guidance": guidance if guided else None, "negative": cell.negative if guided else None,
    }  # fmt: skip
