"""The scheduler that runs a solver's coroutine inside the loop of any diffusers pipeline."""

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

# ᾱ at the end of a schedule of zero terminal SNR, as diffusers' EulerDiscreteScheduler takes it.
ALMOST_ZERO = 2**-24


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A diffusers scheduler whose steps are a solver's.

    `timesteps` holds one entry a denoiser call (fractional, float32), not one a step. An adaptive
    solver finds its entries on its way. `sigmas` are the schedule's levels, descending, with the
    final zero. Samples are k-diffusion's x = x₀ + sigma·ε.
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
        betas = (num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas)
        trained = DDPMScheduler(*betas, rescale_betas_zero_snr=rescale_betas_zero_snr)
        self.alphas_cumprod = trained.alphas_cumprod
        if self.alphas_cumprod[-1] == 0:
            # Of more than 1,000 timesteps the last but one may be below that already, and levels
            # ascend.
            before = float(self.alphas_cumprod[-2])
            self.alphas_cumprod[-1] = ALMOST_ZERO if before > ALMOST_ZERO else before / 4
        alphas = self.alphas_cumprod.double().numpy()
        self.trained = np.sqrt((1 - alphas) / alphas)
        self._solver = SOLVERS[solver]
        self.order = self._solver.calls_a_step
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
        divides = self._solver.divides
        if begin_index and (not divides or begin_index % self.order):
            possible = f"a multiple of {self.order}" if divides else "0"
            raise ValueError(
                f"{self.config.solver} cannot begin at call {begin_index}: expected {possible}"
            )
        self._begin = self._call = begin_index

    def cut(self, start: float, end: float) -> None:
        """From the next `set_timesteps` on, take only the steps of this share of the noise schedule
        (0 to 1): one leg of two, cut between whole steps.

        As in SDXL's two models, a step belongs to the first leg where its timestep is at least
        (1 - end) of the trained ones.
        """
        if not self._solver.divides:
            raise ValueError(f"{self.config.solver} cannot be cut into legs")
        self._share = (start, end)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Lay out the levels and the denoiser's timesteps for this many steps."""
        config = self.config
        if self._solver.span:
            levels = [self.trained[-1], self.trained[0]]
        elif config.discard_penultimate:
            levels = SCHEDULES[config.schedule](num_inference_steps + 1, self.trained).tolist()
            levels[-1] = 0.0
        else:
            levels = SCHEDULES[config.schedule](num_inference_steps, self.trained).tolist()
            levels.append(0.0)
        self.num_inference_steps = num_inference_steps
        self._levels = self._of_share([float(level) for level in levels])
        self.sigmas = torch.tensor(self._levels, dtype=torch.float32)
        self._settings = dict(config.settings or {})
        if self._solver.takes_steps:
            self._settings["steps"] = num_inference_steps
        self._begin = self._call = 0
        self._steps: Any = None
        # The level of each denoiser call; an adaptive solver's grow as it steps.
        self._call_levels: list[float] = self._levels[:1]
        if self._solver.adaptive:
            self.timesteps: Any = _AdaptiveTimesteps(self)
        else:
            self._call_levels = self._rehearse()
            timesteps = timestep_of(np.array(self._call_levels), self.trained)
            self.timesteps = torch.from_numpy(timesteps).to(device, torch.float32)

    def _of_share(self, levels: list[float]) -> list[float]:
        """The levels of the leg that `cut` asked for."""
        start, end = self._share
        if (start, end) == (0.0, 1.0):
            return levels
        trained = len(self.trained)
        timesteps = timestep_of(np.array(levels[:-1]), self.trained)

        def steps_before(share: float) -> int:
            return int((timesteps >= trained - round(share * trained)).sum())

        first = steps_before(start) if start > 0 else 0
        last = steps_before(end) if end < 1 else len(levels) - 1
        if first == last:
            raise ValueError(
                f"{len(levels) - 1} steps leave none to the leg from {start} to {end}:"
                " take more steps"
            )
        return levels[first : last + 1]

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The network's input: x / √(sigma² + 1)."""
        if self._call >= len(self._call_levels):
            raise RuntimeError("this run is over: call set_timesteps before another")
        fresh = self._steps is None and self._begin == 0 and self._solver.divides
        if fresh and timestep is not None and timestep != self.timesteps[0]:
            # A pipeline sliced `timesteps` without calling set_begin_index.
            first_calls = self.timesteps[:: self.order]
            self.set_begin_index(self.order * _nearest(first_calls, timestep))
        return sample / (self._call_levels[self._call] ** 2 + 1) ** 0.5

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor, ...]:
        """Answer the solver with the network's output. The new sample is where it calls next."""
        if self._steps is None:
            source = None
            if self.config.noise != "none":
                generators = _one_each(generator, len(sample))
                source = SOURCES[self.config.noise](sample, generators, self._levels)
            levels = self._levels[self._begin // self.order :]
            self._steps = self._solver(sample, levels, source, **self._settings)
            next(self._steps)
        denoised = self._denoised(model_output, sample, self._call_levels[self._call])
        try:
            sample, sigma = self._steps.send((denoised, sample))
            self._call += 1
            if self._solver.adaptive:
                self._call_levels.append(sigma)
        except StopIteration as stop:
            sample, self._steps = stop.value, None
            self._call = len(self._call_levels)
        return SchedulerOutput(prev_sample=sample) if return_dict else (sample,)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """x₀ + sigma·ε at these entries of `timesteps`, (B,)."""
        entries = torch.as_tensor(self.timesteps)
        levels = [self._call_levels[_nearest(entries.to(t.device), t)] for t in timesteps]
        sigma = original_samples.new_tensor(levels)
        return original_samples + noise * sigma.view(-1, *[1] * (original_samples.ndim - 1))

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def _denoised(self, output: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """x₀ from the network's output at a level (v: arXiv 2202.00512, appendix D)."""
        if self.config.prediction_type == "sample":
            return output
        if self.config.prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1) ** 0.5)
        return x - output * sigma

    def _rehearse(self) -> list[float]:
        """The levels of the solver's calls: those of a run on a zero that is denoised to zero."""
        zero = torch.zeros(1)
        steps = self._solver(zero, self._levels, lambda now, then: zero, **self._settings)
        levels = [next(steps)[1]]
        try:
            while True:
                levels.append(steps.send((zero, zero))[1])
        except StopIteration:
            return levels


class _AdaptiveTimesteps:
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
        while scheduler._call < len(scheduler._call_levels):
            if scheduler._call == answered:
                self[0]
            answered = scheduler._call
            level = np.array(scheduler._call_levels[answered])
            yield torch.tensor(timestep_of(level, scheduler.trained), dtype=torch.float32)


def _nearest(timesteps: torch.Tensor, timestep: Any) -> int:
    """The index of the entry nearest to a timestep."""
    return int((timesteps - timestep).abs().argmin())


def _one_each(
    generator: torch.Generator | list[torch.Generator] | None, images: int
) -> list[torch.Generator]:
    """A generator an image: those given, or new ones seeded from a single one or at random."""
    if isinstance(generator, list):
        if len(generator) != images:
            raise ValueError(f"{len(generator)} generators for {images} images: expected one each")
        return generator
    device = generator.device if generator else None
    seeds = torch.randint(2**62, (images,), generator=generator, device=device).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]
