"""Samplers: label → scheduler, built from the model's original config with everything that matters pinned."""

from __future__ import annotations

import inspect
import math
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find

ADAPTIVE_CALLS = 60  # what an adaptive sampler is expected to take, for estimates only
CALLS = {"n": lambda n: n, "n+1": lambda n: n + 1, "2n-1": lambda n: 2 * n - 1, "adaptive": lambda n: ADAPTIVE_CALLS}
LABELS = {"uniform": "", "karras": "Karras", "exponential": "Exponential", "beta": "Beta", "sgm_uniform": "SGM Uniform", "trailing": "Trailing"}

OF_THE_MODEL = {  # fields of a scheduler config that tell how the model was trained; all others are the sampler's, which the table pins
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "rescale_betas_zero_snr",
    "scaler", "s", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type", "shift_terminal",
}  # fmt: skip


def _plain_schedule() -> dict[str, dict[str, Any]]:
    return {"uniform": {}}


class Sampler(Spec):
    scheduler: str = Field("", alias="class")
    solver: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = Field(default_factory=_plain_schedule)
    schedule: str = "uniform"
    discard: bool = False
    calls: Literal["n", "n+1", "2n-1", "adaptive"]
    order: int
    noise: Literal["none", "gaussian", "brownian"] = "none"
    model: Literal["diffusion", "flow", "wuerstchen"] = "diffusion"
    most_steps: int = 1000
    paper: str
    reference: str
    aliases: tuple[str, ...] = ()
    version: int = 1

    @field_validator("schedules", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {name: {} for name in value} if isinstance(value, list) else value

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise on its way."""
        return self.noise != "none"

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps itself: the number asked for does not matter, and images go one by one."""
        return self.calls == "adaptive"

    @property
    def divides(self) -> bool:
        """Whether its way can be cut into legs: not where it lays out the whole of it beforehand, goes back, or begins with a call of its own."""
        return not self.adaptive and self.calls != "n+1" and self.solver not in ("dpm_fast", "restart")

    @property
    def determined(self) -> dict[str, Any]:
        """What of the entry determines a result."""
        return self.model_dump(include={"scheduler", "solver", "overrides", "settings", "schedule", "discard", "noise", "version"})

    def nfe(self, steps: int) -> int:
        """Denoiser evaluations of a run of this many steps (a guided pair is one); of an adaptive sampler, what to expect."""
        return 1 if steps == 1 and not self.adaptive else CALLS[self.calls](steps)

    def steps_within(self, calls: int) -> int:
        """The most steps, at least one, that take no more denoiser calls than this."""
        return next((n for n in range(min(calls, self.most_steps), 1, -1) if self.nfe(n) <= calls and not self.refusal(n)), 1)

    def refusal(self, steps: int, training_steps: int = 1000) -> str:
        """Why the sampler cannot take this many steps on a model of so many training timesteps; empty where it can."""
        if self.adaptive:
            return ""
        if not 1 <= steps <= training_steps:
            return f"expected 1 to {training_steps}, the model's training timesteps"
        if steps > self.most_steps:
            return f"expected at most {self.most_steps}, the steps it was distilled on"
        spacing = self.overrides.get("timestep_spacing")
        if steps == training_steps and ((self.schedule == "trailing" and self.discard) or spacing in ("leading", "linspace")):
            return f"it lays out one timestep more than steps. Use {training_steps - 1} or fewer"
        if spacing == "leading" and not self.most_steps < training_steps and (training_steps % steps) * (steps - 1) > steps * training_steps / 10:
            begins = (training_steps // steps) * (steps - 1) + 1
            return f"its whole strides would begin at timestep {begins} of {training_steps}. Use {training_steps // (training_steps // steps + 1)}"
        return ""


class Samplers(Table[Sampler]):
    """The catalogue's samplers, each of an entry's schedules under a name of its own."""

    @cached_property
    def _entries(self) -> dict[str, Sampler]:
        found = {}
        for name, entry in super()._entries.items():
            for place, (schedule, overrides) in enumerate(entry.schedules.items()):
                label = "" if place == 0 else LABELS.get(schedule, schedule)
                own = {"schedule": schedule, "schedules": {schedule: overrides}, "overrides": entry.overrides | overrides}
                aliases = tuple(f"{alias} {label}".strip() for alias in entry.aliases)
                if label == "Karras":
                    aliases += tuple(f"{alias}_ka" for alias in entry.aliases)
                elif entry.solver and schedule == "uniform":
                    aliases += (f"{name} Uniform",)
                found[f"{name} {label}".strip()] = entry.model_copy(update=own | {"aliases": aliases})
        return found


SAMPLERS: Samplers = Samplers("sampler", Sampler)


def build(name: str, original: dict[str, Any]) -> Any:
    """A fresh scheduler for a sampler, from a model's original scheduler config (never from a swapped one).

    Raises RequestError where the model cannot be run by it.
    """
    name = find(SAMPLERS, name)
    check_model(name, original)
    spec = SAMPLERS[name]
    if spec.solver:
        from realkit.schedulers.adapter import SolverScheduler

        ours = {"solver": spec.solver, "schedule": spec.schedule, "discard_penultimate": spec.discard, "settings": spec.settings}
        scheduler: Any = SolverScheduler
        pinned = ours | {"noise": spec.noise}
    else:
        import diffusers

        scheduler, pinned = getattr(diffusers, spec.scheduler, None), spec.overrides
        if scheduler is None:
            raise RequestError(f"Sampler {name!r} has the class {spec.scheduler!r}, which diffusers lacks: correct its catalogue entry")
    takes = inspect.signature(scheduler.__init__).parameters
    if original.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in takes:
        raise RequestError(f"Sampler {name!r} cannot run a model trained to zero terminal SNR: take one of k-diffusion's, such as Euler")
    return scheduler.from_config({key: value for key, value in original.items() if key in takes and key in OF_THE_MODEL} | pinned)


def swap(pipe: Any, name: str) -> dict[str, Any]:
    """Give a pipeline the named sampler; return the resolved scheduler config. Swapping back restores the first exactly."""
    if not hasattr(pipe, "original_scheduler_config"):
        pipe.original_scheduler_config = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    pipe.scheduler = build(name, pipe.original_scheduler_config)
    resolved = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    resolved["_class_name"] = type(pipe.scheduler).__name__
    return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in resolved.items()}


def call_settings(name: str) -> dict[str, Any]:
    """Arguments the sampler needs in the pipeline's call."""
    spec = SAMPLERS[find(SAMPLERS, name)]
    return {} if spec.solver else spec.settings


def check_steps(name: str, steps: int, training_steps: int = 1000) -> None:
    """Raise RequestError for a number of steps that the sampler cannot take on this many training timesteps."""
    if why := SAMPLERS[name].refusal(steps, training_steps):
        raise RequestError(f"steps {steps} with sampler {name!r}: {why}")


def check(name: str, steps: int, original: dict[str, Any]) -> None:
    """Raise RequestError where a model, known by its original scheduler config, cannot be run by a sampler in so many steps."""
    check_model(name, original)
    check_steps(name, steps, original.get("num_train_timesteps", 1000))


def check_model(name: str, original: dict[str, Any]) -> None:
    """Raise RequestError where a model, known by its original scheduler config, cannot be run by a sampler, or its entry means nothing."""
    from realkit.schedulers.sigmas import SCHEDULES
    from realkit.schedulers.solvers import SOLVERS

    spec = SAMPLERS[name]
    if spec.solver and (spec.solver not in SOLVERS or spec.schedule not in SCHEDULES):
        wrong, known = (spec.solver, SOLVERS) if spec.solver not in SOLVERS else (spec.schedule, SCHEDULES)
        raise RequestError(f"Sampler {name!r} has the entry {wrong!r}: expected one of {', '.join(known)}")
    made_for, kind = str(original.get("_class_name", "")), "diffusion"
    if made_for.startswith("FlowMatch") or original.get("prediction_type") == "flow_prediction":
        kind = "flow"
    elif made_for.startswith("EDM"):
        kind = "EDM"
    elif made_for.startswith("DDPMWuerstchen"):
        kind = "wuerstchen"
    if SAMPLERS[name].model != kind:
        able = [label for label, spec in SAMPLERS.items() if spec.model == kind and spec.schedule == "uniform"] or ["none yet"]
        said = {"flow": "rectified-flow", "wuerstchen": "Stable Cascade"}.get(kind, kind)
        raise RequestError(f"Sampler {name!r} does not run {said} models. Those that do: {', '.join(able)}")
