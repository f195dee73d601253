"""The scheduler that runs a solver inside any diffusers pipeline: the pipeline's loop asks, the
solver's coroutine answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DDPMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from realkit.samplers.noise import SOURCES
from realkit.samplers.sigmas import SCHEDULES, timestep_of
from realkit.samplers.solvers import SOLVERS

RANGE_ONLY = {
    "dpm_fast",
    "dpm_adaptive",
}  # take the highest and the lowest level, not a list of them
ADAPTIVE = {"dpm_adaptive"}
CALLS_A_STEP = {
    "heun": 2,
    "dpm_2": 2,
    "dpm_2_ancestral": 2,
    "dpmpp_sde": 2,
    "dpmpp_2s_ancestral": 2,
}
WHOLE_ONLY = RANGE_ONLY | {"restart"}  # cannot begin in the middle
ALMOST_ZERO = (
    2**-24
)  # ᾱ where a zero-terminal-SNR schedule has none, as diffusers' EulerDiscreteScheduler takes it


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A diffusers scheduler whose steps are a solver's.

    `timesteps` holds one entry a denoiser call (fractional, float32), not one a step; an adaptive
    solver's are found as it goes. `sigmas` are the schedule's levels, descending, with the final
    zero. Samples are k-diffusion's x = x₀ + sigma·ε.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        solver: str = "euler",
        schedule: str = "uniform",
        discard_penultimate: bool = False,
        noise: str = "none",
        settings: dict[str, Any] | None = None,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"prediction_type {prediction_type!r}: expected epsilon, v_prediction or sample"
            )
        self.alphas_cumprod = DDPMScheduler(
            num_train_timesteps,
            beta_start,
            beta_end,
            beta_schedule,
            trained_betas,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        ).alphas_cumprod
        if self.alphas_cumprod[-1] == 0:
            self.alphas_cumprod[-1] = ALMOST_ZERO
        alphas = self.alphas_cumprod.double().numpy()
        self.trained = np.sqrt((1 - alphas) / alphas)
        self.order = CALLS_A_STEP.get(solver, 1)
        self._share = (0.0, 1.0)
        self.set_timesteps(1)

    @property
    def init_noise_sigma(self) -> float:
        return self.sigmas[0].item()

    @property
    def begin_index(self) -> int | None:
        return self._begin or None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at a later entry of `timesteps`, as image-to-image pipelines do."""
        possible = "0" if self.config.solver in WHOLE_ONLY else f"a multiple of {self.order}"
        if begin_index and (self.config.solver in WHOLE_ONLY or begin_index % self.order):
            raise ValueError(
                f"{self.config.solver} cannot begin at call {begin_index}: expected {possible}"
            )
        self._begin = self._call = begin_index

    def cut(self, start: float, end: float) -> None:
        """From the next `set_timesteps` on, go only the steps of this share of the noise schedule
        (0 to 1): one leg of two, cut between whole steps.

        As in SDXL's two models, a step belongs to the first where its timestep is at least (1 -
        end) of the trained ones.
        """
        if self.config.solver in WHOLE_ONLY:
            raise ValueError(f"{self.config.solver} cannot be cut into legs")
        self._share = (start, end)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Lay out the levels and the denoiser's timesteps for this many steps."""
        config, extra = self.config, int(self.config.discard_penultimate)
        if config.solver in RANGE_ONLY:
            levels = [self.trained[-1], self.trained[0]]
        else:
            levels = SCHEDULES[config.schedule](num_inference_steps + extra, self.trained).tolist()
            levels = [*(levels[:-1] if extra else levels), 0.0]
        self.num_inference_steps, self._levels = (
            num_inference_steps,
            self._of_share([float(level) for level in levels]),
        )
        self.sigmas = torch.tensor(self._levels, dtype=torch.float32)
        self._settings = dict(config.settings or {}) | (
            {"steps": num_inference_steps} if config.solver == "dpm_fast" else {}
        )
        self._begin = self._call = 0
        self._steps: Any = None
        if config.solver in ADAPTIVE:
            self._asked: list[float] = self._levels[:1]
            self.timesteps: Any = _AsItGoes(self)
        else:
            self._asked = self._rehearse()
            self.timesteps = torch.from_numpy(timestep_of(np.array(self._asked), self.trained)).to(
                device, torch.float32
            )

    def _of_share(self, levels: list[float]) -> list[float]:
        if self._share == (0.0, 1.0):
            return levels
        trained, at = len(self.trained), timestep_of(np.array(levels[:-1]), self.trained)
        first, last = (
            int((at >= trained - round(share * trained)).sum()) if share < 1 else len(levels) - 1
            for share in self._share
        )
        first = first if self._share[0] > 0 else 0
        if first == last:
            raise ValueError(
                f"{len(levels) - 1} steps leave none to the leg from {self._share[0]} to"
                f" {self._share[1]}: take more steps"
            )
        return levels[first : last + 1]

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The network's input: x / √(sigma² + 1)."""
        if self._call >= len(self._asked):
            raise RuntimeError("this run is over: call set_timesteps before another")
        fresh = self._steps is None and self._begin == 0 and self.config.solver not in WHOLE_ONLY
        if (
            fresh and timestep is not None and timestep != self.timesteps[0]
        ):  # a pipeline that slices `timesteps` and says nothing
            self.set_begin_index(
                self.order * int((self.timesteps[:: self.order] - timestep).abs().argmin())
            )
        return sample / (self._asked[self._call] ** 2 + 1) ** 0.5

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor, ...]:
        """Answer the solver's call with the network's output; the new sample is where the solver
        wants the next one."""
        if self._steps is None:
            start, source = self._begin // self.order, None
            if self.config.noise != "none":
                source = SOURCES[self.config.noise](
                    sample, _one_each(generator, len(sample)), self._levels
                )
            self._steps = SOLVERS[self.config.solver](
                sample, self._levels[start:], source, **self._settings
            )
            next(self._steps)
        denoised = self._denoised(model_output, sample, self._asked[self._call])
        try:
            sample, sigma = self._steps.send((denoised, sample))
            self._call += 1
            if self.config.solver in ADAPTIVE:
                self._asked.append(sigma)
        except StopIteration as finished:
            sample, self._steps = finished.value, None
            self._call = len(self._asked)
        return SchedulerOutput(prev_sample=sample) if return_dict else (sample,)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """x₀ + sigma·ε at these entries of `timesteps`, (B,)."""
        known = torch.as_tensor(self.timesteps)
        index = [int((known.to(t.device) - t).abs().argmin()) for t in timesteps]
        sigma = torch.tensor(
            [self._asked[i] for i in index],
            dtype=original_samples.dtype,
            device=original_samples.device,
        )
        return original_samples + noise * sigma.view(-1, *[1] * (original_samples.ndim - 1))

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def _denoised(self, output: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        if self.config.prediction_type == "sample":
            return output
        if self.config.prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1) ** 0.5)
        return x - output * sigma

    def _rehearse(self) -> list[float]:
        """The levels at which the solver will ask: those of a run on a zero that is denoised to
        zero."""
        nothing = torch.zeros(1)
        steps = SOLVERS[self.config.solver](
            nothing, self._levels, lambda now, then: nothing, **self._settings
        )
        asked = [next(steps)[1]]
        try:
            while True:
                asked.append(steps.send((nothing, nothing))[1])
        except StopIteration:
            return asked


class _AsItGoes:
    """The timesteps of an adaptive solver: each is known once the one before is answered."""

    def __init__(self, scheduler: SolverScheduler) -> None:
        self._scheduler = scheduler

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError(
            "an adaptive sampler finds its timesteps as it goes: it makes pictures from text alone,"
            " whole"
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        scheduler, answered = self._scheduler, -1
        while scheduler._call < len(scheduler._asked):
            if scheduler._call == answered:
                self[0]
            answered = scheduler._call
            yield torch.tensor(
                timestep_of(np.array(scheduler._asked[answered]), scheduler.trained),
                dtype=torch.float32,
            )


def _one_each(
    generator: torch.Generator | list[torch.Generator] | None, images: int
) -> list[torch.Generator]:
    """A generator an image: those given, or ones seeded from a single one or at random."""
    if isinstance(generator, list):
        if len(generator) != images:
            raise ValueError(f"{len(generator)} generators for {images} images: expected one each")
        return generator
    seeds = torch.randint(
        2**62, (images,), generator=generator, device=generator.device if generator else None
    ).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]
