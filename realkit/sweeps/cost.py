"""What a sweep will cost, before it runs: counted operations over the speed that machines were seen
to reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from realkit.catalog.lookup import find
from realkit.models.families import FAMILIES, Family
from realkit.models.legs import second_leg
from realkit.models.request import Request
from realkit.models.spec import MODELS
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.spec import ModelSpec
    from realkit.sweeps.cell import Cell

SMALL_TFLOP = 0.1  # denoisers below this leave a GPU waiting for its launches: no estimate there
CPU = "two CPU cores"
SPEED = {
    CPU: 0.14,
    "a T4": 11.2,
    "a P100": 6.1,
}  # TFLOP/s: of results/sample; of 25 guided steps of SD1.5 in 3.8 s and in 7 s
BYTES_A_PIXEL = 1.6  # of a PNG, a rough guess
LOAD_S = 6.0  # to read a model of full size again: seen 2 to 11
SMALL_LOAD_S = 0.1
RELOADING_SHARE = 0.1  # of the work


def denoise_tflop(cell: Request, spec: ModelSpec) -> float:
    """Operations, in 10¹², of a cell's denoiser passes (two a call where guidance is above 1); one
    multiply-add is two operations."""
    family = _family(spec)
    passes = SAMPLERS[cell.sampler].nfe(cell.steps) * (2 if cell.guidance > 1 else 1)
    at, per_pass = (
        (spec.size, spec.pass_tflop) if spec.pass_tflop else (family.native, family.pass_tflop)
    )
    first = passes * per_pass * cell.width * cell.height / at**2
    if spec.then is None:
        return first
    second = MODELS[find(MODELS, spec.then.model)]
    rest = denoise_tflop(second_leg(cell, second), second)
    share = 1 - spec.then.at if _family(second).refines else 1
    return first * spec.then.at + rest * share


def _family(spec: ModelSpec) -> Family:
    return FAMILIES[
        spec.family or "sd1"
    ]  # before its files are looked at, a reference counts as the smallest


def tflop(cells: Iterable[Cell], specs: dict[str, ModelSpec], scorers: Iterable[str]) -> float:
    """Operations, in 10¹², of all stages of these cells, each distinct result made once."""
    from realkit.scorers.table import SCORERS
    from realkit.upscalers import table

    cells = list(cells)
    pictures = {denoised(cell): cell for cell in cells}
    total = sum(denoise_tflop(cell, specs[cell.model]) for cell in pictures.values())
    for cell in pictures.values():
        spec = specs[cell.model]
        per_megapixel = spec.decode_tflop or _family(spec).decode_tflop
        total += per_megapixel * cell.width * cell.height / 1e6
    total += sum(
        table.tflop(cell.upscaler, (cell.width, cell.height)) for cell in cells if cell.upscaler
    )
    return total + len(cells) * sum(SCORERS[name].tflop for name in scorers)


def denoised(cell: Cell) -> tuple:
    """What tells a cell's latents from another's, by name: cells that are equal in it share one
    denoising."""
    steps = None if SAMPLERS[cell.sampler].adaptive else cell.steps
    guided = (cell.negative, cell.guidance) if cell.guidance > 1 else None
    return (
        cell.model,
        cell.sampler,
        cell.prompt,
        cell.seed,
        steps,
        guided,
        cell.width,
        cell.height,
        cell.dtype,
    )


def estimate(
    cells: Iterable[Cell], specs: dict[str, ModelSpec], scorers: Iterable[str], loads: int
) -> str:
    """The expected time by machine, in words; from counted operations, so that it holds within a
    factor of about two."""
    work, small = tflop(cells, specs, scorers), _small(specs.values())
    machines = [CPU] if small else [name for name in SPEED if name != CPU]
    return ", ".join(
        f"{_words(work / SPEED[machine] + loads * (SMALL_LOAD_S if small else LOAD_S))} on"
        f" {machine}"
        for machine in machines
    )


def describe(cells: list[Cell], specs: dict[str, ModelSpec], scorers: list[str]) -> str:
    """What making these cells takes, in a few lines: pictures, loads, denoiser calls, time and
    disk."""
    pictures = {denoised(cell): cell for cell in cells}
    nfe = sum(SAMPLERS[cell.sampler].nfe(cell.steps) for cell in pictures.values())
    disk = sum(cell.pixels[0] * cell.pixels[1] * BYTES_A_PIXEL for cell in cells) / 2**20
    axes = {
        name: len({getattr(c, name) for c in cells})
        for name in ("model", "sampler", "prompt", "seed", "steps", "guidance", "upscaler")
    }
    varied = (
        " × ".join(
            f"{count} {name}{'s' if count > 1 and name != 'steps' else ''}"
            for name, count in axes.items()
            if count > 1
        )
        or "one setting"
    )
    vaes = {spec.parts.get("vae", spec.source) for spec in specs.values()}
    loads = len(specs) + len(vaes) + len({c.upscaler for c in cells} - {None}) + len(scorers)
    return (
        f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {varied}\n{len(pictures)} pictures to"
        f" denoise in {nfe:,} denoiser calls, {loads} loads, {len(cells) * len(scorers)} scores,"
        f" about {disk:.1f} MiB of pictures\nabout {estimate(cells, specs, scorers, loads)}"
        + _shares(cells)
    )


def _shares(cells: list[Cell]) -> str:
    """What the equal-nfe profile gives each sampler, a line each: its steps, its calls and how many
    are left over."""
    given = dict.fromkeys(
        (c.sampler, c.steps, c.nfe_budget) for c in cells if c.nfe_budget is not None
    )
    counted = [
        (sampler, steps, SAMPLERS[sampler].nfe(steps), budget) for sampler, steps, budget in given
    ]
    return "".join(
        f"\n{sampler}: {steps} steps, {calls} of {budget} calls, {budget - calls} left"
        for sampler, steps, calls, budget in counted
    )


def rounds_pay(cells: Iterable[Cell], specs: dict[str, ModelSpec], rounds: int) -> bool:
    """Whether each model may be read again for each of so many rounds: not where that costs more
    than a tenth of the work."""
    cells = list(cells)
    used = {cell.model: specs[cell.model] for cell in cells}
    small = _small(used.values())
    reloading = len(used) * (rounds - 1) * (SMALL_LOAD_S if small else LOAD_S)
    work = (
        sum(denoise_tflop(cell, used[cell.model]) for cell in cells)
        / SPEED[CPU if small else "a T4"]
    )
    return reloading <= RELOADING_SHARE * work


def _small(specs: Iterable[ModelSpec]) -> bool:
    return all((spec.pass_tflop or _family(spec).pass_tflop) < SMALL_TFLOP for spec in specs)


def _words(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(1, round(seconds))} s"
