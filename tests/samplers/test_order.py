"""Orders of convergence and distributions on a mixture of Gaussians, whose ideal denoiser is
known."""

import numpy as np
import pytest

import realkit as rk
from realkit.samplers import benchmark
from tests.cuts import thinned

MAIN = [
    name for name, spec in rk.SAMPLERS.items() if name == "Restart" or spec.schedule == "uniform"
]  # the laboratory lays out its own levels
WINDOW = [16, 32, 64, 128]
# What the theory says of each method without noise; (at least, at most) where the start with lower
# orders leaves more than one answer.
ORDERS = {
    "Euler": 1, "DDIM": 1, "Heun": 2, "DPM2": 2, "DPM++ 2M": 2, "DPM++ 2S a": 2, "DPM++ SDE": 2,
    "DPM++ 2M SDE": 2, "DPM++ 2M SDE Heun": 2, "DEIS": 2,
    "Euler a": 1, "DPM2 a": 2, "DPM fast": 3, "DPM++ 3M SDE": (2, 3), "LMS": (3, 4), "PLMS": (2, 4),
    "UniPC": (3, 4),
}  # fmt: skip


# The others are held to k-diffusion's states or to their paper's formulas by fast tests.
@pytest.mark.parametrize("name", thinned(ORDERS, ["Heun", "DPM fast"]))
def test_order_of_convergence(name):
    quiet = {"eta": 0.0} if rk.SAMPLERS[name].solver and rk.SAMPLERS[name].stochastic else {}
    fine = {n: benchmark.run(name, 10 * n, **quiet).points for n in WINDOW}
    errors = [benchmark.error(benchmark.run(name, n, **quiet).points, fine[n]) for n in WINDOW]
    low, high = ORDERS[name] if isinstance(ORDERS[name], tuple) else (ORDERS[name], ORDERS[name])
    assert low - 0.2 < benchmark.order(WINDOW, errors) < high + 0.25


# LCM and TCD are for consistency models, whose network jumps to the end of the path, Wuerstchen's
# for another schedule: held to their formulas in
# test_samplers_papers.
@pytest.mark.parametrize(
    "name",
    thinned(
        [
            n
            for n in MAIN
            if rk.SAMPLERS[n].stochastic and n not in ("LCM", "TCD", "DDPM Wuerstchen")
        ],
        ["SA-Solver"],
    ),
)
def test_stochastic_samplers_reach_the_mixtures_mean_and_covariance(name):
    points = 20_000
    ends = benchmark.run(name, 150, points=points, to_zero=True).points.numpy()
    mean, covariance = benchmark.moments()
    error = 4 * np.sqrt(np.diag(covariance) / points)  # four standard errors of the sample
    assert (np.abs(ends.mean(0) - mean) < error).all()
    assert np.abs(np.cov(ends.T) - covariance).max() < 0.02


@pytest.mark.parametrize(
    ("name", "window"),
    [
        *(
            pytest.param(name, WINDOW, marks=pytest.mark.slow)
            for name in ("DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ SDE")
        )
    ],
)
def test_sde_samplers_follow_one_brownian_path_at_any_number_of_steps(name, window):
    errors = [
        benchmark.error(benchmark.run(name, n).points, benchmark.run(name, 10 * n).points)
        for n in window
    ]
    assert (
        0.35 < benchmark.order(window, errors) < 1.1
    )  # half an order is what a path of noise allows


def test_what_has_no_order_here_says_so():
    for name in ("LCM", "TCD", "Flow Euler"):
        with pytest.raises(rk.RequestError, match="has no order on this target"):
            benchmark.run(name, 16)


def test_the_laboratory_names_samplers_as_the_table_does():
    assert benchmark.with_schedule("euler a", "karras") == "Euler a Karras"
    assert (
        benchmark.with_schedule("ddim", "Karras") == "DDIM"
        and benchmark.with_schedule("dpm2", "") == "DPM2"
    )


def test_ancestral_noise_does_not_converge_to_one_end():
    coarse, fine = (benchmark.run("Euler a", n).points for n in (64, 128))
    assert benchmark.error(coarse, fine) > 0.3
    assert (
        benchmark.error(benchmark.run("Euler", 64).points, benchmark.run("Euler", 128).points)
        < 0.02
    )


def test_an_adaptive_sampler_keeps_its_tolerance():
    loose = benchmark.run("DPM adaptive", 1, points=1, eta=0.0)
    tight = benchmark.run("DPM adaptive", 1, points=1, eta=0.0, rtol=1e-4, atol=1e-5)
    true = benchmark.run("DPM++ 2M", 1280, points=1)
    assert tight.calls > loose.calls
    assert (
        benchmark.error(tight.points, true.points)
        < 1e-3
        < 0.05
        > benchmark.error(loose.points, true.points)
    )


@pytest.mark.parametrize(
    ("schedule", "says"),
    [("Karas", "Did you mean 'Karras'"), ("nope", "expected one of Karras"), (3, "schedule 3")],
)
def test_a_schedule_that_no_sampler_has_is_refused(schedule, says):
    with pytest.raises(ValueError, match=says):
        benchmark.with_schedule("Euler", schedule)
    assert benchmark.with_schedule("euler", "uniform") == "Euler"


def test_one_sampler_and_one_number_of_steps_are_lists_of_one():
    table = benchmark.converge("euler", 4, points=4)
    assert list(table.sampler) == ["Euler"] and list(table.steps) == [4]
    assert table.equals(benchmark.converge(["Euler"], [4], points=4))
