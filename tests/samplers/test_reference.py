"""Our samplers against k-diffusion's: the same levels, and the same final state from the same start
and noise."""

import inspect
import re
from contextlib import contextmanager

import pytest
import torch

import realkit as rk
from realkit.samplers import build
from realkit.samplers.noise import SOURCES
from tests.cuts import representatives, solvers
from tests.kdiffusion import modules

CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "_class_name": "PNDMScheduler",
}
STEPS = [1, 2, 5, 7, 20, 21, 50]
SEEDS = [3, 14]
# What k-diffusion has no function for, and what holds it instead.
ELSEWHERE = {
    "Restart": "built of k-diffusion's Heun below",
    "DDIM": "equal to k-diffusion's Euler on its levels, below",
    "DDPM": "equal to k-diffusion's Euler a on its levels, below", "PLMS": "test_samplers_papers",
    "DEIS": "test_samplers_papers",
    "UniPC": "test_samplers_papers and its order of convergence", "LCM": "test_samplers_papers",
    "TCD": "test_samplers_papers",
    "SA-Solver": "test_samplers_papers, in distribution", "Flow Euler": "test_samplers_papers",
    "Flow Heun": "test_samplers_papers",
    "DDPM Wuerstchen": "test_samplers_papers",
}  # fmt: skip
REFERENCED = [
    name
    for name, spec in rk.SAMPLERS.items()
    if spec.reference.startswith("k-diffusion") and spec.solver
]


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in for a UNet, of scaled input and timestep."""
    t = t.to(x.dtype).view(-1, 1, 1, 1) / 1000
    return 0.6 * x.roll(1, 1) * (0.5 + t) + 0.4 * torch.tanh(x.roll(1, 3) + 2 * t) + 0.1 * x


def start() -> torch.Tensor:
    return torch.stack(
        [torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    )


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def ours(
    name: str, steps: int, prediction: str
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Final state, levels and the noise drawn on the way, by the loop of a diffusers pipeline, in
    float32."""
    scheduler = build.build(name, CONFIG | {"prediction_type": prediction})
    scheduler.set_timesteps(steps)
    x, drawn, kept = start() * scheduler.init_noise_sigma, generators(), []
    with _kept(kept):
        for t in scheduler.timesteps:
            out = network(scheduler.scale_model_input(x, t), t.expand(len(x)))
            x = scheduler.step(out, t, x, generator=drawn).prev_sample
    return x, scheduler.sigmas, kept


@contextmanager
def _kept(kept: list[torch.Tensor]):
    """Write down the noise that our samplers draw."""

    def listening(source):
        def of(*arguments):
            draw = source(*arguments)

            def heard(now, then):
                kept.append(draw(now, then))
                return kept[-1]

            return heard

        return of

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "realkit.samplers.scheduler.SOURCES",
            {name: listening(source) for name, source in SOURCES.items()},
        )
        yield


def reference(
    name: str, steps: int, prediction: str, noise: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by k-diffusion, fed this noise, in float64, on levels laid out as
    stable-diffusion-webui lays them out."""
    sampling, external = modules()
    spec = rk.SAMPLERS[name]
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0).double()
    kind = (
        external.DiscreteVDDPMDenoiser
        if prediction == "v_prediction"
        else external.DiscreteEpsDDPMDenoiser
    )
    model = kind(network, alphas, quantize=False)
    low, high = model.sigma_min.item(), model.sigma_max.item()
    n = steps + spec.discard
    sigmas = {
        "uniform": lambda: model.get_sigmas(n),
        "karras": lambda: sampling.get_sigmas_karras(n, low, high),
        "exponential": lambda: sampling.get_sigmas_exponential(n, low, high),
        "sgm_uniform": lambda: sampling.append_zero(
            model.t_to_sigma(torch.linspace(999, 0, n + 1)[:-1])
        ),
        "trailing": lambda: sampling.append_zero(
            model.t_to_sigma(torch.arange(1000, 0, -1000 / n)[:n].round() - 1)
        ),
        "beta": lambda: sampling.append_zero(_beta_levels(n, low, high)),
    }[spec.schedule]().double()
    if spec.discard:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    function = getattr(sampling, re.search(r"sample_\w+", spec.reference)[0])
    if steps == 1 and function in (sampling.sample_dpmpp_2m_sde, sampling.sample_dpmpp_3m_sde):
        function = (
            sampling.sample_euler
        )  # one step to zero is the denoised start for both; 0.1.1's own functions fail there
    replay = iter(noise)
    settings = {
        "noise_sampler": lambda *_: next(replay).double(),
        "eta": 1.0,
        "solver_type": "heun" if spec.settings.get("heun") else "midpoint",
    }
    settings |= {"sigma_min": low, "sigma_max": high, "n": steps}
    settings = {
        key: value
        for key, value in settings.items()
        if key in inspect.signature(function).parameters
    }
    if "sigma_min" in settings:
        sigmas = torch.tensor([high, low], dtype=torch.float64)
    else:
        settings["sigmas"] = sigmas
    x = function(model, start().double() * sigmas[0], **settings, disable=True)
    assert next(replay, None) is None, "noise that the reference does not draw"
    return x, sigmas


def _beta_levels(n: int, low: float, high: float) -> torch.Tensor:
    from scipy import stats

    return torch.tensor(
        [low + stats.beta.ppf(1 - i / max(n - 1, 1), 0.6, 0.6) * (high - low) for i in range(n)]
    )


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


# The prediction's kind is undone before a solver sees it: the solver that asks least, and the one
# that asks most.
FAST = [(name, "epsilon") for name in REFERENCED if name in representatives()] + [
    ("Euler", "v_prediction"),
    ("DPM++ 2S a", "v_prediction"),
]
SLOW = [(name, "epsilon") for name in REFERENCED] + [
    (name, "v_prediction") for name in REFERENCED if name in solvers()
]


@pytest.mark.parametrize(("name", "prediction"), FAST)
def test_levels_and_final_state_are_k_diffusions(name, prediction):
    check_against_k_diffusion(name, prediction, [1, 2, 5, 20])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prediction"), SLOW)
def test_levels_and_final_state_are_k_diffusions_at_every_number_of_steps(name, prediction):
    check_against_k_diffusion(name, prediction, STEPS)


def check_against_k_diffusion(name, prediction, counts):
    spec = rk.SAMPLERS[name]
    for steps in [20] if spec.adaptive else counts:
        x, levels, noise = ours(name, steps, prediction)
        wanted, wanted_levels = reference(name, steps, prediction, noise)
        assert bool(noise) == ((spec.stochastic and steps > 1) or name == "DPM fast")
        assert distance(levels, wanted_levels) < 2e-6, f"levels at {steps} steps"
        assert distance(x, wanted) < 1e-5, f"final state at {steps} steps"


def test_every_sampler_has_a_reference():
    rest = {
        name.removesuffix(" Karras")
        .removesuffix(" Exponential")
        .removesuffix(" Beta")
        .removesuffix(" Trailing")
        for name in rk.SAMPLERS
    }
    assert rest - set(REFERENCED) == set(ELSEWHERE)


def test_the_brownian_path_is_k_diffusions():
    sampling, _ = modules()
    x, levels = start(), [10.0, 5.0, 2.0, 0.5, 0.0]
    mine = SOURCES["brownian"](x, generators(), levels)
    theirs = sampling.BrownianTreeNoiseSampler(x, torch.tensor(0.5), torch.tensor(10.0), seed=SEEDS)
    for now, then in [(10.0, 5.0), (10.0, 7.0), (7.0, 5.0), (5.0, 2.0), (2.0, 0.5)]:
        assert torch.equal(mine(now, then), theirs(torch.tensor(now), torch.tensor(then)))
