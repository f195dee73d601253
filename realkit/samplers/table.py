"""The catalogue's samplers: schedules, denoiser calls, and the step counts that each can take."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from realkit.catalog.lookup import Spec, Table

ADAPTIVE_CALLS = 60  # expected of an adaptive sampler, for estimates only
CALLS = {
    "n": lambda n: n,
    "n+1": lambda n: n + 1,
    "2n-1": lambda n: 2 * n - 1,
    "adaptive": lambda n: ADAPTIVE_CALLS,
}
# What a diffusion network can predict, as diffusers' prediction_type names it: the noise, the
# velocity, the clean picture.
PREDICTIONS = ("epsilon", "v_prediction", "sample")
LABELS = {
    "uniform": "",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "sgm_uniform": "SGM Uniform",
    "trailing": "Trailing",
}


# Fields of an entry that determine a result: ids hash them.
DETERMINING = {
    "scheduler", "solver", "overrides", "settings", "schedule", "discard", "noise", "version",
}  # fmt: skip


class Sampler(Spec):
    """An entry of the samplers' table, or one of its schedules under a name of its own.

    The catalogue's own file says what each field means.
    """

    scheduler: str = Field("", alias="class")
    solver: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = Field({"uniform": {}})
    schedule: str = "uniform"
    discard: bool = False
    calls: Literal["n", "n+1", "2n-1", "adaptive"]
    order: int
    noise: Literal["none", "gaussian", "brownian"] = "none"
    model: Literal["diffusion", "flow", "wuerstchen"] = "diffusion"
    predictions: tuple[str, ...] = PREDICTIONS
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
        """Whether its steps draw noise."""
        return self.noise != "none"

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps by the picture: it ignores `steps`, and takes no batch."""
        return self.calls == "adaptive"

    @property
    def divides(self) -> bool:
        """Whether it can hand over to another leg, or begin, in the middle of the schedule."""
        from realkit.samplers.solvers import SOLVERS  # imports numpy

        if self.solver in SOLVERS:
            return SOLVERS[self.solver].divides
        # An additional first call needs the beginning.
        return not self.adaptive and self.calls != "n+1"

    @property
    def determined(self) -> dict[str, Any]:
        """The fields that determine a result."""
        return self.model_dump(include=DETERMINING)

    def nfe(self, steps: int) -> int:
        """Denoiser evaluations of a run of this many steps (a guided pair is one); of an adaptive
        sampler, an estimate."""
        return 1 if steps == 1 and not self.adaptive else CALLS[self.calls](steps)

    def steps_within(self, calls: int) -> int:
        """The most steps, at least one, that take no more denoiser calls than this."""
        for steps in range(min(calls, self.most_steps), 1, -1):
            if self.nfe(steps) <= calls and not self.refusal(steps):
                return steps
        return 1

    def refusal(self, steps: int, training_steps: int = 1000) -> str:
        """Why the sampler cannot take this many steps of so many trained; empty where it can."""
        if self.adaptive:
            return ""
        if not 1 <= steps <= training_steps:
            return f"expected 1 to {training_steps}, the model's training timesteps"
        if steps > self.most_steps:
            return f"expected at most {self.most_steps}, the steps it was distilled on"
        spacing = self.overrides.get("timestep_spacing")
        one_more = spacing in ("leading", "linspace") or (
            self.schedule == "trailing" and self.discard
        )
        if steps == training_steps and one_more:
            return f"it lays out one timestep more than steps. Use {training_steps - 1} or fewer"
        # Leading timesteps are whole strides from 0: what the division leaves is missing at the
        # top, where the noise begins. A tenth of the range is too much. Distilled samplers lay out
        # their timesteps otherwise.
        stride, rest = divmod(training_steps, steps)
        too_low = 10 * rest * (steps - 1) > steps * training_steps
        distilled = self.most_steps < training_steps
        if spacing == "leading" and too_low and not distilled:
            begins = stride * (steps - 1) + 1
            return (
                f"its whole strides would begin at timestep {begins} of {training_steps}. Use"
                f" {training_steps // (stride + 1)}"
            )
        return ""


class Samplers(Table[Sampler]):
    """The catalogue's samplers, each schedule of an entry under a name of its own."""

    def _read(self) -> dict[str, Sampler]:
        entries = {}
        for name, entry in super()._read().items():
            for schedule, overrides in entry.schedules.items():
                first = schedule == next(iter(entry.schedules))
                label = "" if first else LABELS.get(schedule, schedule)
                aliases = [f"{alias} {label}".strip() for alias in entry.aliases]
                if label == "Karras":
                    aliases += [f"{alias}_ka" for alias in entry.aliases]
                elif entry.solver and schedule == "uniform":
                    aliases.append(f"{name} Uniform")
                update = {
                    "schedule": schedule,
                    "schedules": {schedule: overrides},
                    "overrides": entry.overrides | overrides,
                    "aliases": tuple(aliases),
                }
                entries[f"{name} {label}".strip()] = entry.model_copy(update=update)
        return entries


SAMPLERS: Samplers = Samplers("sampler", Sampler)
