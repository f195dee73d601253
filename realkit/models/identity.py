"""What determines latents, and the ids made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realkit.models.legs import second_leg
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.lock import ModelLock
    from realkit.models.request import Request

ID_VERSION = 1  # raised when the meaning of an id changes
CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def name_of(stage: str, determined: Mapping[str, Any]) -> str:
    """The id of an artifact: 16 hex digits of a SHA-256 over its stage and what determines it."""
    canonical = CANONICAL.encode([ID_VERSION, stage, determined])
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def denoise_determined(request: Request, lock: ModelLock) -> dict[str, Any]:
    """What determines a request's latents, all legs together.

    Without guidance (1 or below), guidance and negative prompt do not; neither do the steps of a
    sampler that chooses them itself.
    """
    determined = _leg_determined(request, lock)
    for setting in ("prompt", "seed", "width", "height"):
        determined[setting] = getattr(request, setting)
    if request.dtype:
        determined["dtype"] = request.dtype
    if lock.then and lock.spec.then:
        leg = _leg_determined(second_leg(request, lock.then.spec), lock.then)
        determined["then"] = {"at": lock.spec.then.at, **leg}
    return determined


def _leg_determined(request: Request, lock: ModelLock) -> dict[str, Any]:
    """What determines one leg, apart from prompt, seed and size."""
    guided = request.guidance > 1
    sampler = SAMPLERS[request.sampler]
    return {
        "model": {part: sha for part, sha in lock.fingerprint.items() if part != "vae"},
        "family": lock.spec.family,
        "scheduler": lock.scheduler,
        "sampler": request.sampler,
        "sampler_entry": sampler.determined,
        "steps": None if sampler.adaptive else request.steps,
        "guidance": request.guidance if guided else None,
        "negative": request.negative if guided else None,
    }
