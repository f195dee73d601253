"""Solvers as coroutines: each yields (x, sigma) to ask the denoiser, is sent (denoised, x), and
returns the last x.

It continues with the x sent back: a pipeline may have changed it, as inpainting does between steps.

All take x (B, C, h, w) at noise level `sigmas[0]`, the levels with the final zero, and `noise(now,
then)`, which draws unit noise for a step between two levels. Variables follow k-diffusion: x = x₀ +
sigma·ε. Tests hold the arithmetic to k-diffusion's sampling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from math import exp, expm1, isfinite, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from realkit.samplers.registry import SOLVERS as SOLVERS
from realkit.samplers.registry import solver
from realkit.samplers.sigmas import karras

if TYPE_CHECKING:
    from torch import Tensor

    from realkit.samplers.registry import Answer, Steps

    Noise = Callable[[float, float], Tensor]


def ancestral_step(now: float, then: float, eta: float) -> tuple[float, float]:
    """The level to step down to, and that of the noise to add: together they make `then`."""
    up = min(then, eta * sqrt(then**2 * (now**2 - then**2) / now**2))
    return sqrt(max(then**2 - up**2, 0.0)), up


@solver()
def euler(x: Tensor, sigmas: list[float], noise: Noise) -> Steps:
    """Euler's method (arXiv 2206.00364, algorithm 2 without churn)."""
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        x = x + (x - denoised) * ((then - now) / now)
    return x


@solver()
def euler_ancestral(x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Steps:
    """Euler steps to below the next level, then noise up to it."""
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        down, up = ancestral_step(now, then, eta)
        x = x + (x - denoised) * ((down - now) / now)
        if then > 0:
            x = x + noise(now, then) * up
    return x


@solver(calls_a_step=2)
def heun(x: Tensor, sigmas: list[float], noise: Noise) -> Steps:
    """Heun's method; the last step is Euler's (arXiv 2206.00364, algorithm 1)."""
    for now, then in pairwise(sigmas):
        x = yield from _heun_step(x, now, then)
    return x


def _heun_step(x: Tensor, now: float, then: float) -> Steps:
    denoised, x = yield x, now
    slope = (x - denoised) / now
    ahead = x + slope * (then - now)
    if then == 0:
        return ahead
    denoised, ahead = yield ahead, then
    slope_ahead = (ahead - denoised) / then
    return x + (slope + slope_ahead) * ((then - now) / 2)


@solver(calls_a_step=2)
def dpm_2(x: Tensor, sigmas: list[float], noise: Noise) -> Steps:
    """DPM-Solver-2 by the geometric midpoint; the last step is Euler's (arXiv 2206.00927)."""
    for now, then in pairwise(sigmas):
        x = yield from _midpoint_step(x, now, then)
    return x


@solver(calls_a_step=2)
def dpm_2_ancestral(x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Steps:
    """The same with ancestral noise."""
    for now, then in pairwise(sigmas):
        down, up = ancestral_step(now, then, eta)
        x = yield from _midpoint_step(x, now, down)
        if down > 0:
            x = x + noise(now, then) * up
    return x


def _midpoint_step(x: Tensor, now: float, then: float) -> Steps:
    denoised, x = yield x, now
    slope = (x - denoised) / now
    if then == 0:
        return x + slope * (then - now)
    middle = sqrt(now * then)
    halfway = x + slope * (middle - now)
    denoised, halfway = yield halfway, middle
    slope = (halfway - denoised) / middle
    return x + slope * (then - now)


@solver()
def lms(x: Tensor, sigmas: list[float], noise: Noise, order: int = 4) -> Steps:
    """Linear multistep: the slope's polynomial through up to four levels, integrated exactly."""
    slopes: list[Tensor] = []
    for i, now in enumerate(sigmas[:-1]):
        denoised, x = yield x, now
        slopes = [(x - denoised) / now, *slopes[: order - 1]]
        levels = [sigmas[i - j] for j in range(len(slopes))]
        weights = _lagrange_integrals(levels, now, sigmas[i + 1])
        for weight, slope in zip(weights, slopes, strict=True):
            x = x + slope * weight
    return x


def _lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """∫ of each Lagrange basis polynomial, by Gauss-Legendre points: exact to degree 7."""
    points, weights = np.polynomial.legendre.leggauss(4)
    at = start + (end - start) * (points + 1) / 2
    integrals = []
    for j, node in enumerate(nodes):
        others = nodes[:j] + nodes[j + 1 :]
        basis = np.prod([(at - other) / (node - other) for other in others], axis=0)
        integrals.append(float(np.sum(weights * basis) * (end - start) / 2))
    return integrals


@solver()
def dpmpp_2m(x: Tensor, sigmas: list[float], noise: Noise) -> Steps:
    """DPM-Solver++(2M), first order where it begins and ends (arXiv 2211.01095, algorithm 2)."""
    older: Tensor | None = None
    for i, (now, then) in enumerate(pairwise(sigmas)):
        denoised, x = yield x, now
        if then == 0:
            return denoised
        guess = denoised
        if older is not None:
            ratio = log(sigmas[i - 1] / now) / log(now / then)
            guess = denoised + (denoised - older) / (2 * ratio)
        x = x * (then / now) + guess * (1 - then / now)
        older = denoised
    return x


@solver()
def dpmpp_2m_sde(
    x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0, heun: bool = False
) -> Steps:
    """SDE-DPM-Solver++(2M), midpoint or Heun's form (arXiv 2211.01095, appendix; k-diffusion,
    sample_dpmpp_2m_sde)."""
    older: Tensor | None = None
    h_last = 0.0
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        if then == 0:
            return denoised
        h = log(now / then)
        full = (1 + eta) * h
        x = x * (then / now * exp(-eta * h)) + denoised * -expm1(-full)
        if older is not None:
            weight = (1 + expm1(-full) / full) if heun else -expm1(-full) / 2
            x = x + (denoised - older) * (weight * h / h_last)
        if eta:
            x = x + noise(now, then) * (then * sqrt(-expm1(-2 * eta * h)))
        older, h_last = denoised, h
    return x


@solver()
def dpmpp_3m_sde(x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Steps:
    """SDE-DPM-Solver++(3M) (k-diffusion, sample_dpmpp_3m_sde)."""
    past: list[Tensor] = []
    lengths: list[float] = []
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        if then == 0:
            return denoised
        h = log(now / then)
        full = (1 + eta) * h
        x = x * exp(-full) + denoised * -expm1(-full)
        phi_2 = 1 + expm1(-full) / full
        if len(past) == 2:
            r0, r1 = lengths[0] / h, lengths[1] / h
            near, far = (denoised - past[0]) / r0, (past[0] - past[1]) / r1
            bend = (near - far) / (r0 + r1)
            x = x + (near + bend * r0) * phi_2 - bend * (phi_2 / full - 0.5)
        elif past:
            x = x + (denoised - past[0]) * (phi_2 * h / lengths[0])
        if eta:
            x = x + noise(now, then) * (then * sqrt(-expm1(-2 * eta * h)))
        past, lengths = [denoised, *past[:1]], [h, *lengths[:1]]
    return x


@solver(calls_a_step=2)
def dpmpp_sde(x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Steps:
    """SDE-DPM-Solver++ of second order, by the geometric midpoint (as sample_dpmpp_sde)."""
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        if then == 0:
            return denoised
        middle = sqrt(now * then)
        down, up = ancestral_step(now, middle, eta)
        halfway = x * (down / now) + denoised * (1 - down / now) + noise(now, middle) * up
        denoised, halfway = yield halfway, middle
        down, up = ancestral_step(now, then, eta)
        x = x * (down / now) + denoised * (1 - down / now) + noise(now, then) * up
    return x


@solver(calls_a_step=2)
def dpmpp_2s_ancestral(x: Tensor, sigmas: list[float], noise: Noise, eta: float = 1.0) -> Steps:
    """DPM-Solver++(2S) with ancestral noise, by the geometric midpoint (arXiv 2211.01095)."""
    for now, then in pairwise(sigmas):
        denoised, x = yield x, now
        down, up = ancestral_step(now, then, eta)
        if down == 0:
            return denoised
        middle = sqrt(now * down)
        halfway = x * (middle / now) + denoised * (1 - middle / now)
        denoised, halfway = yield halfway, middle
        x = x * (down / now) + denoised * (1 - down / now)
        if up > 0:
            x = x + noise(now, then) * up
    return x


@solver(span=True, divides=False)
def dpm_fast(x: Tensor, sigmas: list[float], noise: Noise, steps: int, eta: float = 1.0) -> Steps:
    """DPM-Solver-fast: `steps` calls in steps of third order, evenly spaced in log sigma, ending at
    the lowest level (arXiv 2206.00927)."""
    times = np.linspace(-log(sigmas[0]), -log(sigmas[-1]), steps // 3 + 2).tolist()
    orders = [3] * (steps // 3 - 1) + [2, 1] if steps % 3 == 0 else [3] * (steps // 3) + [steps % 3]
    for order, (t, t_next) in zip(orders, pairwise(times), strict=True):
        t_down, up = _ancestral_time(t, t_next, times[-1], eta)
        x, *_ = yield from _dpm_step(x, t, t_down, order)
        x = x + noise(exp(-t), exp(-t_next)) * up
    return x


@solver(span=True, adaptive=True, divides=False)
def dpm_adaptive(
    x: Tensor,
    sigmas: list[float],
    noise: Noise,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    accept_safety: float = 0.81,
    eta: float = 1.0,
) -> Steps:
    """DPM-Solver-23: steps as long as the error of the second order against the third allows.

    arXiv 2206.00927, algorithm C."""
    import torch

    t, end, h, earlier = -log(sigmas[0]), -log(sigmas[-1]), h_init, x
    while t < end - 1e-5:
        t_next = min(end, t + h)
        t_down, up = _ancestral_time(t, t_next, end, eta)
        high, low = yield from _dpm_step(x, t, t_down, 3)
        allowed = torch.clamp(rtol * torch.maximum(low.abs(), earlier.abs()), min=atol)
        error = torch.linalg.norm((low - high) / allowed).item() / x.numel() ** 0.5
        if not isfinite(error):
            raise FloatingPointError(
                "the denoiser's output is not finite: the model overflowed in its number format;"
                " try float32"
            )
        factor = 1 + np.arctan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else 3)) - 1)
        h *= factor
        if factor >= accept_safety:
            earlier, x, t = low, high + noise(exp(-t), exp(-t_next)) * up, t_next
    return x


def _ancestral_time(t: float, t_next: float, end: float, eta: float) -> tuple[float, float]:
    down, _ = ancestral_step(exp(-t), exp(-t_next), eta)
    t_down = min(end, -log(down))
    return t_down, sqrt(max(exp(-2 * t_next) - exp(-2 * t_down), 0.0))


def _dpm_step(
    x: Tensor, t: float, t_next: float, order: int
) -> Generator[tuple[Tensor, float], Answer, tuple[Tensor, Tensor]]:
    """A DPM-Solver step of order 1, 2 (r = 1/2) or 3 (r = 1/3, 2/3) in t = -log sigma, and the one
    of the order below from the same calls."""
    h, last = t_next - t, exp(-t_next)
    slope, x = yield from _slope(x, t)
    first = x - slope * (last * expm1(h))
    if order == 1:
        return first, first
    r = 1 / 2 if order == 2 else 1 / 3
    s = t + r * h
    slope_1, _ = yield from _slope(x - slope * (exp(-s) * expm1(r * h)), s)
    second = first - (slope_1 - slope) * (last / (2 * r) * expm1(h))
    if order == 2:
        return second, first
    s, r2 = t + 2 / 3 * h, 2 / 3
    phi = expm1(r2 * h) / (r2 * h) - 1
    slope_2, _ = yield from _slope(
        x - slope * (exp(-s) * expm1(r2 * h)) - (slope_1 - slope) * (exp(-s) * r2 / r * phi), s
    )
    return first - (slope_2 - slope) * (last / r2 * (expm1(h) / h - 1)), second


def _slope(x: Tensor, t: float) -> Generator[tuple[Tensor, float], Answer, Answer]:
    sigma = exp(-t)
    denoised, x = yield x, sigma
    return (x - denoised) / sigma, x


@solver(divides=False)
def restart(x: Tensor, sigmas: list[float], noise: Noise) -> Steps:
    """Restart sampling: Heun steps down; from 20 steps on, once or twice back from 0.1 up to 2 with
    fresh noise (arXiv 2306.14878).

    The number of steps in restarts, and their levels, are stable-diffusion-webui's.
    """
    before = 0.0
    for now, then in _restart_intervals(sigmas):
        if 0 < before < now:
            x = x + noise(before, now) * sqrt(now**2 - before**2)
        x = yield from _heun_step(x, now, then)
        before = then
    return x


def _restart_intervals(sigmas: list[float]) -> list[tuple[float, float]]:
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    each, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    ends = np.array([sigmas[-2], sigmas[0]])
    levels = [*karras(steps - each * times, ends).tolist(), 0.0]
    low, high = (int(np.argmin(np.abs(np.array(levels) - level))) for level in (0.1, 2.0))
    again: list[tuple[float, float]] = []
    if high < low:
        again = list(pairwise(karras(each + 1, np.array([levels[low], levels[high]])).tolist()))
    return [*pairwise(levels[: low + 1]), *again * times, *pairwise(levels[low:])]
