"""Legs of denoising: the request of a second leg, and whether a request's legs can be run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from realkit.base.errors import RequestError
from realkit.models.families import FAMILIES
from realkit.models.request import Request
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.lock import ModelLock
    from realkit.models.spec import ModelSpec

RequestT = TypeVar("RequestT", bound=Request)


def check_legs(request: Request, lock: ModelLock) -> None:
    """Raise RequestError where the request's sampler cannot run the legs of its model."""
    build.check(request.sampler, request.steps, lock.scheduler)
    if lock.family.second:
        raise RequestError(
            f"Model {request.model!r} continues another model's latents: take a model that ends"
            " with it (realkit list models)"
        )
    if lock.then:
        second = second_leg(request, lock.then.spec)
        build.check(second.sampler, second.steps, lock.then.scheduler)
        if second.sampler == request.sampler and not SAMPLERS[request.sampler].divides:
            raise RequestError(
                f"Sampler {request.sampler!r} cannot hand over in the middle, as model"
                f" {request.model!r} asks: take Euler or DPM++ 2M"
            )
        if lock.then.family.refines and lock.spec.then:
            _check_share(request, lock.scheduler, lock.spec.then.at)


def _check_share(request: Request, scheduler: dict[str, Any], at: float) -> None:
    """Raise RequestError for so few steps that one of the two legs has none of them."""
    from realkit.samplers import share  # imports numpy, which most plans do without

    spec = SAMPLERS[request.sampler]

    def divides(steps: int) -> bool:
        return 0 < share.steps_before(spec, steps, scheduler, at) < steps

    if divides(request.steps):
        return
    enough = next((n for n in range(request.steps + 1, 200) if divides(n)), None)
    advice = f"take {enough} or more" if enough else "take another sampler"
    raise RequestError(
        f"steps {request.steps} with model {request.model!r} and sampler {request.sampler!r}: one"
        f" of its two models, which change at {at:g} of the noise schedule, would have no step:"
        f" {advice}"
    )


def second_leg(request: RequestT, spec: ModelSpec) -> RequestT:
    """The request of the second leg: a refiner shares the first's settings, others have their
    own."""
    if FAMILIES[spec.family].refines:
        return request
    advice = spec.settings
    guidance = float(advice.guidance)
    return replace(request, sampler=advice.sampler, steps=advice.steps, guidance=guidance)


def second_leg_seed(seed: int) -> int:
    """The seed of a second leg's noise: another stream than the first leg's, made of its seed."""
    return int.from_bytes(hashlib.sha256(f"second leg of {seed}".encode()).digest()[:7], "big")
