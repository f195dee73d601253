"""Sampler name, as the table spells it → scheduler, with everything that matters pinned."""

from __future__ import annotations

import inspect
import math
from typing import Any

from realkit.base.errors import RequestError, shown
from realkit.samplers.table import PREDICTIONS, SAMPLERS

# Fields of a scheduler config that tell how the model was trained. All others are the sampler's:
# the table pins them.
OF_THE_MODEL = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr",
    "scaler", "s", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "time_shift_type", "shift_terminal",
}  # fmt: skip
KIND_NAMES = {"flow": "rectified-flow", "wuerstchen": "Stable Cascade"}


def build(name: str, original: dict[str, Any]) -> Any:
    """A fresh scheduler of a sampler, from a model's original scheduler config (never from a
    swapped one).

    Raises RequestError where the sampler cannot run the model.
    """
    check_model(name, original)
    spec = SAMPLERS[name]
    scheduler: Any
    if spec.solver:
        from realkit.samplers.scheduler import SolverScheduler

        scheduler = SolverScheduler
        pinned = {
            "solver": spec.solver,
            "schedule": spec.schedule,
            "discard_penultimate": spec.discard,
            "settings": spec.settings,
            "noise": spec.noise,
        }
    else:
        import diffusers

        scheduler, pinned = getattr(diffusers, spec.scheduler, None), spec.overrides
        if scheduler is None:
            raise RequestError(
                f"Sampler {name!r} has the class {spec.scheduler!r}, which diffusers lacks: correct"
                " its catalogue entry"
            )
    accepted = inspect.signature(scheduler.__init__).parameters
    if original.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in accepted:
        raise RequestError(
            f"Sampler {name!r} cannot run a model trained to zero terminal SNR: take one of"
            " k-diffusion's, such as Euler"
        )
    inherited = OF_THE_MODEL & set(accepted)
    trained = {key: value for key, value in original.items() if key in inherited}
    return scheduler.from_config(trained | pinned)


def swap(pipe: Any, name: str) -> dict[str, Any]:
    """Give a pipeline a sampler; return the resolved config. Swapping back restores exactly."""
    if not hasattr(pipe, "original_scheduler_config"):
        pipe.original_scheduler_config = {
            **pipe.scheduler.config,
            "_class_name": type(pipe.scheduler).__name__,
        }
    pipe.scheduler = build(name, pipe.original_scheduler_config)
    config: dict[str, Any] = {}
    for key, value in pipe.scheduler.config.items():
        if not key.startswith("_"):
            infinite = isinstance(value, float) and not math.isfinite(value)
            config[key] = str(value) if infinite else value  # JSON has no infinity
    config["_class_name"] = type(pipe.scheduler).__name__
    return config


def call_settings(name: str) -> dict[str, Any]:
    """Arguments that the sampler adds to the pipeline's call."""
    spec = SAMPLERS[name]
    return {} if spec.solver else spec.settings


def check(name: str, steps: int, original: dict[str, Any]) -> None:
    """Raise RequestError where a sampler cannot run a model (`original`) in this many steps."""
    check_model(name, original)
    check_steps(name, steps, original.get("num_train_timesteps", 1000))


def check_steps(name: str, steps: int, training_steps: int = 1000) -> None:
    """Raise RequestError for a number of steps that the sampler cannot take."""
    if reason := SAMPLERS[name].refusal(steps, training_steps):
        raise RequestError(f"steps {steps} with sampler {name!r}: {reason}")


def check_model(name: str, original: dict[str, Any]) -> None:
    """Raise RequestError where a sampler cannot run a model, or where its entry is wrong.

    `original` is the model's own scheduler config.
    """
    spec, kind = SAMPLERS[name], _kind(original)
    if spec.solver:
        _check_entry(name, spec.solver, spec.schedule)
    if spec.model != kind:
        able = [
            label
            for label, other in SAMPLERS.items()
            if other.model == kind and other.schedule == "uniform"
        ]
        raise RequestError(
            f"Sampler {name!r} does not run {KIND_NAMES.get(kind, kind)} models. Those that do:"
            f" {', '.join(able) or 'none yet'}"
        )
    if kind == "diffusion":
        _check_prediction(name, original.get("prediction_type", "epsilon"))


def _check_prediction(name: str, prediction: Any) -> None:
    """Raise RequestError where a sampler cannot read what a diffusion model predicts."""
    if prediction not in PREDICTIONS:
        raise RequestError(
            f"The model's scheduler config has the prediction_type {shown(prediction)}: expected"
            f" one of {', '.join(PREDICTIONS)}"
        )
    able = SAMPLERS[name].predictions
    if prediction not in able:
        raise RequestError(
            f"Sampler {name!r} cannot run a model that predicts {shown(prediction)}, only"
            f" {' and '.join(able)}: take another, such as Euler"
        )


def _check_entry(name: str, solver: str, schedule: str) -> None:
    from realkit.samplers.sigmas import SCHEDULES
    from realkit.samplers.solvers import SOLVERS

    for value, table in ((solver, SOLVERS), (schedule, SCHEDULES)):
        if value not in table:
            raise RequestError(
                f"Sampler {name!r} has the entry {value!r}: expected one of {', '.join(table)}"
            )


def _kind(original: dict[str, Any]) -> str:
    """The kind of model that a scheduler config was written for, as in Sampler.model."""
    scheduler = str(original.get("_class_name", ""))
    if scheduler.startswith("FlowMatch") or original.get("prediction_type") == "flow_prediction":
        return "flow"
    if scheduler.startswith("EDM"):
        return "EDM"
    if scheduler.startswith("DDPMWuerstchen"):
        return "wuerstchen"
    return "diffusion"
