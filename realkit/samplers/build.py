"""Sampler name → scheduler, built from a model's original config with everything that matters
pinned."""

from __future__ import annotations

import inspect
import math
from typing import Any

from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.samplers.table import SAMPLERS

# fields of a scheduler config that tell how the model was trained; all others are the sampler's,
# which the table pins
OF_THE_MODEL = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr",
    "scaler", "s", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "time_shift_type", "shift_terminal",
}  # fmt: skip


def build(name: str, original: dict[str, Any]) -> Any:
    """A fresh scheduler for a sampler, from a model's original scheduler config (never from a
    swapped one).

    Raises RequestError where the model cannot be run by it.
    """
    name = find(SAMPLERS, name)
    check_model(name, original)
    spec = SAMPLERS[name]
    if spec.solver:
        from realkit.samplers.scheduler import SolverScheduler

        ours = {
            "solver": spec.solver,
            "schedule": spec.schedule,
            "discard_penultimate": spec.discard,
            "settings": spec.settings,
        }
        scheduler: Any = SolverScheduler
        pinned = ours | {"noise": spec.noise}
    else:
        import diffusers

        scheduler, pinned = getattr(diffusers, spec.scheduler, None), spec.overrides
        if scheduler is None:
            raise RequestError(
                f"Sampler {name!r} has the class {spec.scheduler!r}, which diffusers lacks: correct"
                " its catalogue entry"
            )
    takes = inspect.signature(scheduler.__init__).parameters
    if original.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in takes:
        raise RequestError(
            f"Sampler {name!r} cannot run a model trained to zero terminal SNR: take one of"
            " k-diffusion's, such as Euler"
        )
    return scheduler.from_config(
        {key: value for key, value in original.items() if key in takes and key in OF_THE_MODEL}
        | pinned
    )


def swap(pipe: Any, name: str) -> dict[str, Any]:
    """Give a pipeline the named sampler; return the resolved scheduler config. Swapping back
    restores the first exactly."""
    if not hasattr(pipe, "original_scheduler_config"):
        pipe.original_scheduler_config = {
            **pipe.scheduler.config,
            "_class_name": type(pipe.scheduler).__name__,
        }
    pipe.scheduler = build(name, pipe.original_scheduler_config)
    resolved = {
        key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")
    }
    resolved["_class_name"] = type(pipe.scheduler).__name__
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in resolved.items()
    }


def call_settings(name: str) -> dict[str, Any]:
    """Arguments the sampler needs in the pipeline's call."""
    spec = SAMPLERS[find(SAMPLERS, name)]
    return {} if spec.solver else spec.settings


def check_steps(name: str, steps: int, training_steps: int = 1000) -> None:
    """Raise RequestError for a number of steps that the sampler cannot take on this many training
    timesteps."""
    if why := SAMPLERS[name].refusal(steps, training_steps):
        raise RequestError(f"steps {steps} with sampler {name!r}: {why}")


def check(name: str, steps: int, original: dict[str, Any]) -> None:
    """Raise RequestError where a model, known by its original scheduler config, cannot be run by a
    sampler in so many steps."""
    check_model(name, original)
    check_steps(name, steps, original.get("num_train_timesteps", 1000))


def check_model(name: str, original: dict[str, Any]) -> None:
    """Raise RequestError where a model, known by its original scheduler config, cannot be run by a
    sampler, or its entry means nothing."""
    from realkit.samplers.sigmas import SCHEDULES
    from realkit.samplers.solvers import SOLVERS

    spec = SAMPLERS[name]
    if spec.solver and (spec.solver not in SOLVERS or spec.schedule not in SCHEDULES):
        wrong, known = (
            (spec.solver, SOLVERS) if spec.solver not in SOLVERS else (spec.schedule, SCHEDULES)
        )
        raise RequestError(
            f"Sampler {name!r} has the entry {wrong!r}: expected one of {', '.join(known)}"
        )
    made_for, kind = str(original.get("_class_name", "")), "diffusion"
    if made_for.startswith("FlowMatch") or original.get("prediction_type") == "flow_prediction":
        kind = "flow"
    elif made_for.startswith("EDM"):
        kind = "EDM"
    elif made_for.startswith("DDPMWuerstchen"):
        kind = "wuerstchen"
    if SAMPLERS[name].model != kind:
        able = [
            label
            for label, spec in SAMPLERS.items()
            if spec.model == kind and spec.schedule == "uniform"
        ] or ["none yet"]
        said = {"flow": "rectified-flow", "wuerstchen": "Stable Cascade"}.get(kind, kind)
        raise RequestError(
            f"Sampler {name!r} does not run {said} models. Those that do: {', '.join(able)}"
        )
