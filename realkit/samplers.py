"""Samplers: label → diffusers scheduler, built from the model's original config with everything that matters pinned."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find

CALLS = {"n": lambda n: n, "n+1": lambda n: n + 1, "2n-1": lambda n: 2 * n - 1}


class Sampler(Spec):
    scheduler: str = Field(alias="class")
    overrides: dict[str, Any]
    calls: Literal["n", "n+1", "2n-1"]
    order: int
    stochastic: bool = False
    paper: str
    version: int = 1

    def nfe(self, steps: int) -> int:
        """Denoiser evaluations of a run of this many steps (a guided pair is one)."""
        return 1 if steps == 1 else CALLS[self.calls](steps)


SAMPLERS: Table[Sampler] = Table("sampler", Sampler)


def build(name: str, original: dict[str, Any]) -> Any:
    """A fresh scheduler for a sampler, from a model's original scheduler config (never from a swapped one)."""
    import diffusers

    spec = SAMPLERS[find(SAMPLERS, name)]
    scheduler = getattr(diffusers, spec.scheduler)
    known = {key: value for key, value in original.items() if not key.startswith("_")}
    return scheduler.from_config(known, **spec.overrides)


def swap(pipe: Any, name: str) -> dict[str, Any]:
    """Give a pipeline the named sampler; return the resolved scheduler config. Swapping back restores the first exactly."""
    if not hasattr(pipe, "original_scheduler_config"):
        pipe.original_scheduler_config = dict(pipe.scheduler.config)
    pipe.scheduler = build(name, pipe.original_scheduler_config)
    resolved = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in resolved.items()}


def check_steps(name: str, steps: int, training_steps: int = 1000) -> None:
    """Raise RequestError for a number of steps that the sampler cannot take on this many training timesteps."""
    if not 1 <= steps <= training_steps:
        raise RequestError(f"steps {steps}: expected 1 to {training_steps}, the model's training timesteps")
    if steps == training_steps and SAMPLERS[name].overrides.get("timestep_spacing") == "leading" and training_steps % steps == 0:
        raise RequestError(f"steps {steps} with sampler {name!r}: its leading timesteps would pass the last one. Use {training_steps - 1} or fewer")
