"""Samplers that k-diffusion does not have, against the formulas of their papers or k-diffusion's
equivalent."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from realkit.samplers import build
from tests.kdiffusion import modules
from tests.samplers.test_reference import CONFIG, distance, generators, network, ours, start

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0).double()


def made(name: str, steps: int, prediction: str = "epsilon", **settings):
    """Final state and integer timesteps, in float64, by the loop of a diffusers pipeline."""
    scheduler = build.build(name, CONFIG | {"prediction_type": prediction})
    scheduler.set_timesteps(steps)
    x, drawn = start().double(), generators()
    for t in scheduler.timesteps:
        x = scheduler.step(
            network(x, t.expand(len(x))),
            t,
            x,
            **settings | ({"generator": drawn} if "generator" in settings else {}),
        ).prev_sample
    return x, [int(t) for t in scheduler.timesteps]


def fresh(drawn: list[torch.Generator]) -> torch.Tensor:
    """The next noise of diffusers' schedulers: one draw an image, in the state's own type."""
    return torch.stack([torch.randn(3, 4, 4, generator=g, dtype=torch.float64) for g in drawn])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("name", "last"), [("DDIM", 0), ("DDPM", None)])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_ddim_is_euler_and_ddpm_euler_ancestral_on_their_levels(name, last, steps, prediction):
    sampling, external = modules()
    x, times = made(name, steps, prediction, **({"generator": True} if last is None else {}))
    alphas = [ALPHAS[t] for t in times] + [
        torch.tensor(1.0).double() if last is None else ALPHAS[last]
    ]
    sigmas = torch.stack([((1 - a) / a).sqrt() for a in alphas])
    kind = (
        external.DiscreteVDDPMDenoiser
        if prediction == "v_prediction"
        else external.DiscreteEpsDDPMDenoiser
    )
    model, drawn = kind(network, ALPHAS, quantize=False), generators()
    function, settings = (
        (sampling.sample_euler, {})
        if last == 0
        else (sampling.sample_euler_ancestral, {"noise_sampler": lambda *_: fresh(drawn)})
    )
    wanted = (
        function(model, start().double() / alphas[0].sqrt(), sigmas, disable=True, **settings)
        * alphas[-1].sqrt()
    )
    assert distance(x, wanted) < 1e-4


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_plms_is_pndm_equations_12_and_13(steps):
    def transfer(x, e, now, then):  # equation 11 in the form of DDIM's step
        return (then / now).sqrt() * (x - (1 - now).sqrt() * e) + (1 - then).sqrt() * e

    x, past = start().double(), []
    times = list(range(1000 - 1000 // steps, -1, -(1000 // steps)))
    for i, t in enumerate(times):
        now, then = ALPHAS[t + 1], ALPHAS[times[i + 1] + 1] if i + 1 < steps else ALPHAS[0]
        e = network(x, torch.full((2,), t + 1))
        past = [e, *past[:3]]
        if i == 0:
            ahead = network(transfer(x, e, now, then), torch.full((2,), times[1] + 1))
            slope = (e + ahead) / 2
        else:
            weights = {
                2: [3 / 2, -1 / 2],
                3: [23 / 12, -16 / 12, 5 / 12],
                4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
            }[len(past)]
            slope = sum(w * old for w, old in zip(weights, past, strict=True))
        x = transfer(x, slope, now, then)
    assert distance(made("PLMS", steps)[0], x) < 1e-4


@pytest.mark.parametrize("name", ["DEIS", "DEIS Karras", "DEIS Exponential"])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_deis_integrates_the_line_through_two_slopes_in_log_sigma(name, steps):
    scheduler = build.build(name, CONFIG | {"prediction_type": "epsilon"})
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.double().tolist()
    x, older = start().double() * sqrt(1 + sigmas[0] ** 2), None
    for i, t in enumerate(scheduler.timesteps):
        now, then = sigmas[i], sigmas[i + 1]
        slope = network(x / sqrt(1 + now**2), t.expand(2))
        if older is None or (i == steps - 1 and steps < 15) or then == 0:
            x = x + slope * (then - now)
        else:
            before = sigmas[i - 1]
            weight = [
                quad(lambda s, a=a, b=b: log(s / b) / log(a / b), now, then)[0]
                for a, b in ((now, before), (before, now))
            ]
            x = x + slope * weight[0] + older * weight[1]
        older = slope
    assert distance(made(name, steps)[0], x / sqrt(1 + sigmas[-1] ** 2)) < 1e-4


@pytest.mark.parametrize("name", ["LCM", "LCM Trailing"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm_is_multistep_consistency_sampling(name, steps):
    x, times = made(name, steps, generator=True)
    y, drawn = start().double(), generators()
    for i, t in enumerate(times):
        a = ALPHAS[t]
        scaled = t * 10.0
        clean = (y - (1 - a).sqrt() * network(y, torch.full((2,), t))) / a.sqrt()
        y = scaled / sqrt(scaled**2 + 0.25) * clean + 0.25 / (scaled**2 + 0.25) * y
        if i + 1 < steps:
            then = ALPHAS[times[i + 1]]
            y = then.sqrt() * y + (1 - then).sqrt() * fresh(drawn)
    assert distance(x, y) < 1e-4


def test_lcm_trailing_begins_where_dmd2_was_trained():
    # As its authors' card passes them: tianweiy/DMD2, 4-step generation.
    assert made("LCM Trailing", 4, generator=True)[1] == [999, 749, 499, 249]


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_tcd_jumps_below_the_next_level_and_adds_noise(steps):
    x, times = made("TCD", steps, generator=True, eta=0.3)
    y, drawn = start().double(), generators()
    for i, t in enumerate(times):
        then = times[i + 1] if i + 1 < steps else 0
        a, b, below = (
            ALPHAS[t],
            ALPHAS[then] if i + 1 < steps else torch.tensor(1.0),
            ALPHAS[int((1 - 0.3) * then)],
        )
        e = network(y, torch.full((2,), t))
        y = below.sqrt() * (y - (1 - a).sqrt() * e) / a.sqrt() + (1 - below).sqrt() * e
        if i + 1 < steps:
            y = (b / below).sqrt() * y + (1 - b / below).sqrt() * fresh(drawn)
    assert distance(x, y) < 1e-4


def test_restart_is_heun_down_and_noise_back_up_as_the_web_interface_lays_it_out():
    sampling, external = modules()
    model = external.DiscreteEpsDDPMDenoiser(network, ALPHAS, quantize=False)
    low, high = model.sigma_min.item(), model.sigma_max.item()
    for steps, times, each in ((7, 0, 0), (20, 1, 9), (21, 1, 9), (36, 2, 9), (50, 2, 12)):
        x, _, noise = ours("Restart", steps, "epsilon")
        levels = sampling.get_sigmas_karras(steps - times * each, low, high).double()
        y = start().double() * levels[0]
        bottom = int((levels - 0.1).abs().argmin()) if times else len(levels) - 1
        top = int((levels - 2.0).abs().argmin())
        y = sampling.sample_heun(_to(model), y, levels[: bottom + 1], disable=True)
        for again in range(times):
            y = y + noise[again].double() * (levels[top] ** 2 - levels[bottom] ** 2).sqrt()
            y = sampling.sample_heun(
                _to(model),
                y,
                sampling.get_sigmas_karras(each + 1, levels[bottom].item(), levels[top].item())[
                    :-1
                ].double(),
                disable=True,
            )
        if times:
            y = sampling.sample_heun(_to(model), y, levels[bottom:], disable=True)
        assert len(noise) == times and distance(x, y) < 1e-4


def _to(model):
    return lambda x, sigma, **_: model(x, sigma)


def test_one_step_of_every_multistep_method_is_eulers():
    euler = ours("Euler", 1, "epsilon")[0]
    for name in (
        "DPM++ 2M",
        "LMS",
        "Heun",
        "DPM2",
        "DPM++ SDE",
        "DPM++ 2M SDE",
        "DPM++ 2S a",
        "Euler a",
        "Restart",
    ):
        assert distance(ours(name, 1, "epsilon")[0], euler) < 1e-5, name


@pytest.mark.parametrize("name", ["Flow Euler", "Flow Heun"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_flow_to_one_point_is_straight(name, steps):
    scheduler = build.build(
        name,
        {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0,
        },
    )
    scheduler.set_timesteps(steps)
    point = torch.full((2, 3, 4, 4), 0.7)
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step((x - point) / (t / 1000), t, x).prev_sample
    assert distance(x, point) < 1e-4


def test_quadrature_of_the_multistep_method_is_exact():
    from realkit.samplers.solvers import _lagrange_integrals

    weights = _lagrange_integrals([4.0, 5.0, 7.0, 8.0], 4.0, 3.0)
    assert (
        np.dot(weights, [x**3 for x in (4.0, 5.0, 7.0, 8.0)])
        == pytest.approx((3.0**4 - 4.0**4) / 4)
        and exp(0) == 1
    )


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_wuerstchen_sampler_is_ancestral_sampling_on_a_cosine_schedule(steps):
    scheduler = build.build(
        "DDPM Wuerstchen", {"_class_name": "DDPMWuerstchenScheduler", "scaler": 1.0, "s": 0.008}
    )
    scheduler.set_timesteps(steps)
    times = [1 - i / steps for i in range(steps + 1)]
    assert np.allclose(scheduler.timesteps, times, atol=1e-6)

    def kept(
        t: float,
    ) -> float:  # the share of the signal's variance, arXiv 2102.09672, equation 17
        ratio = (
            np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
        )
        return float(np.clip(ratio, 0.0001, 0.9999))

    x, drawn, again = start().double(), generators(), generators()
    mine = x
    for now, then, t in zip(times, times[1:], scheduler.timesteps, strict=False):
        noise = torch.tanh(x) * 0.8
        x = scheduler.step(noise, t.expand(len(x)), x, generator=drawn).prev_sample
        a = kept(now) / kept(then)
        mean = (mine - (1 - a) / sqrt(1 - kept(now)) * torch.tanh(mine) * 0.8) / sqrt(a)
        spread = sqrt((1 - a) * (1 - kept(then)) / (1 - kept(now)))
        fresh_noise = fresh(again)
        mine = mean + spread * fresh_noise * (then != 0)
    assert distance(x, mine) < 1e-5
