"""The catalogue's samplers: schedules, denoiser calls, and the step counts each can take."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from realkit.catalog.lookup import Spec, Table

ADAPTIVE_CALLS = 60  # what an adaptive sampler is expected to take, for estimates only
CALLS = {
    "n": lambda n: n,
    "n+1": lambda n: n + 1,
    "2n-1": lambda n: 2 * n - 1,
    "adaptive": lambda n: ADAPTIVE_CALLS,
}
LABELS = {
    "uniform": "",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "sgm_uniform": "SGM Uniform",
    "trailing": "Trailing",
}


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
        """Whether it chooses its steps itself: the number asked for does not matter, and images go
        one by one."""
        return self.calls == "adaptive"

    @property
    def divides(self) -> bool:
        """Whether its way can be cut into legs: not where it lays out the whole of it beforehand,
        goes back, or begins with a call of its own."""
        return (
            not self.adaptive and self.calls != "n+1" and self.solver not in ("dpm_fast", "restart")
        )

    @property
    def determined(self) -> dict[str, Any]:
        """What of the entry determines a result."""
        return self.model_dump(
            include={
                "scheduler",
                "solver",
                "overrides",
                "settings",
                "schedule",
                "discard",
                "noise",
                "version",
            }
        )

    def nfe(self, steps: int) -> int:
        """Denoiser evaluations of a run of this many steps (a guided pair is one); of an adaptive
        sampler, what to expect."""
        return 1 if steps == 1 and not self.adaptive else CALLS[self.calls](steps)

    def steps_within(self, calls: int) -> int:
        """The most steps, at least one, that take no more denoiser calls than this."""
        return next(
            (
                n
                for n in range(min(calls, self.most_steps), 1, -1)
                if self.nfe(n) <= calls and not self.refusal(n)
            ),
            1,
        )

    def refusal(self, steps: int, training_steps: int = 1000) -> str:
        """Why the sampler cannot take this many steps on a model of so many training timesteps;
        empty where it can."""
        if self.adaptive:
            return ""
        if not 1 <= steps <= training_steps:
            return f"expected 1 to {training_steps}, the model's training timesteps"
        if steps > self.most_steps:
            return f"expected at most {self.most_steps}, the steps it was distilled on"
        spacing = self.overrides.get("timestep_spacing")
        if steps == training_steps and (
            (self.schedule == "trailing" and self.discard) or spacing in ("leading", "linspace")
        ):
            return f"it lays out one timestep more than steps. Use {training_steps - 1} or fewer"
        if (
            spacing == "leading"
            and not self.most_steps < training_steps
            and (training_steps % steps) * (steps - 1) > steps * training_steps / 10
        ):
            begins = (training_steps // steps) * (steps - 1) + 1
            return (
                f"its whole strides would begin at timestep {begins} of {training_steps}. Use"
                f" {training_steps // (training_steps // steps + 1)}"
            )
        return ""


class Samplers(Table[Sampler]):
    """The catalogue's samplers, each of an entry's schedules under a name of its own."""

    @cached_property
    def _entries(self) -> dict[str, Sampler]:
        found = {}
        for name, entry in super()._entries.items():
            for place, (schedule, overrides) in enumerate(entry.schedules.items()):
                label = "" if place == 0 else LABELS.get(schedule, schedule)
                own = {
                    "schedule": schedule,
                    "schedules": {schedule: overrides},
                    "overrides": entry.overrides | overrides,
                }
                aliases = tuple(f"{alias} {label}".strip() for alias in entry.aliases)
                if label == "Karras":
                    aliases += tuple(f"{alias}_ka" for alias in entry.aliases)
                elif entry.solver and schedule == "uniform":
                    aliases += (f"{name} Uniform",)
                found[f"{name} {label}".strip()] = entry.model_copy(
                    update=own | {"aliases": aliases}
                )
        return found


SAMPLERS: Samplers = Samplers("sampler", Sampler)
