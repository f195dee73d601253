"""What a sweep will cost: counted operations over the speed that machines were seen to reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from realkit.base.cache import readable
from realkit.catalog.lookup import find
from realkit.models.families import FAMILIES, Family
from realkit.models.legs import second_leg
from realkit.models.request import Request
from realkit.models.spec import MODELS, ModelSpec
from realkit.samplers.table import SAMPLERS
from realkit.scorers.table import SCORERS
from realkit.sweeps.cell import Cell
from realkit.sweeps.licences import restricting
from realkit.upscalers.chain import Chain

CPU, GPUS = "two CPU cores", ("a T4", "a P100")
# TFLOP/s: of the demo on idle cores; of 25 guided steps of Stable Diffusion 1.5 in 3.8 s and 7 s
SPEED = {CPU: 0.14, "a T4": 11.2, "a P100": 6.1}
SMALL_TFLOP = 0.1  # a denoiser below this leaves a GPU idle between launches: estimated for a CPU
BYTES_A_PIXEL = 1.6  # of a PNG, roughly
LOAD_S = {CPU: 0.1, "a T4": 6.0, "a P100": 6.0}  # to load a model again: seen 2 to 11 on GPUs
RELOADING_SHARE = 0.1  # of the work: more reloading than this does not pay
VARIED = ("model", "sampler", "prompt", "seed", "steps", "guidance", "upscaler")


def denoise_tflop(request: Request, spec: ModelSpec) -> float:
    """Operations, in 10¹², of a request's denoiser passes: two passes a call at guidance above 1.

    One multiply-add is two operations. The work grows with the picture's area.
    """
    family = _family(spec)
    passes = SAMPLERS[request.sampler].nfe(request.steps) * (2 if request.guidance > 1 else 1)
    side, per_pass = family.native, family.pass_tflop
    if spec.pass_tflop:
        side, per_pass = spec.size, spec.pass_tflop
    first = passes * per_pass * request.width * request.height / side**2
    if spec.then is None:
        return first
    second = MODELS[find(MODELS, spec.then.model)]
    rest = denoise_tflop(second_leg(request, second), second)
    # A refiner takes the rest of one schedule; a decoder of another kind has its own schedule.
    if _family(second).refines:
        rest *= 1 - spec.then.at
    return first * spec.then.at + rest


def _family(spec: ModelSpec) -> Family:
    """A model's family; an unlocked reference counts as the smallest."""
    return FAMILIES[spec.family or "sd1"]


def tflop(cells: Iterable[Cell], specs: Mapping[str, ModelSpec], scorers: Iterable[str]) -> float:
    """Operations, in 10¹², of all stages of these cells, each distinct result made once."""
    cells = list(cells)
    total = len(cells) * sum(SCORERS[name].tflop for name in scorers)
    for cell in _by_latents(cells).values():
        spec = specs[cell.model]
        per_megapixel = spec.decode_tflop or _family(spec).decode_tflop
        total += denoise_tflop(cell, spec) + per_megapixel * cell.width * cell.height / 1e6
    for cell in cells:
        if cell.upscaler:
            total += Chain.parse(cell.upscaler).tflop(cell.size)
    return total


def _by_latents(cells: Iterable[Cell]) -> dict[tuple, Cell]:
    """A cell for each denoising, by what tells its latents from others'."""
    by_latents: dict[tuple, Cell] = {}
    for cell in cells:
        steps = None if SAMPLERS[cell.sampler].adaptive else cell.steps
        guided = (cell.negative, cell.guidance) if cell.guidance > 1 else None
        asked = (cell.model, cell.sampler, cell.prompt, cell.seed, cell.size, cell.dtype)
        by_latents[*asked, steps, guided] = cell
    return by_latents


def describe(cells: list[Cell], specs: Mapping[str, ModelSpec], scorers: list[str]) -> str:
    """What making these cells takes: pictures, loads, denoiser calls, time and disk, in lines; and
    the licences that restrict.

    Counted operations give the time, within a factor of about two.
    """
    pictures = _by_latents(cells).values()
    nfe = sum(SAMPLERS[cell.sampler].nfe(cell.steps) for cell in pictures)
    disk = sum(cell.pixels[0] * cell.pixels[1] for cell in cells) * BYTES_A_PIXEL
    vaes = {spec.parts.get("vae", spec.source) for spec in specs.values()}
    upscalers = set(map(attrgetter("upscaler"), cells)) - {None}
    loads = len(specs) + len(vaes) + len(upscalers) + len(scorers)
    lines = [
        f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {_axes(cells)}",
        f"{len(pictures)} pictures to denoise in {nfe:,} denoiser calls, {loads} loads,"
        f" {len(cells) * len(scorers)} scores, about {readable(disk)} of pictures",
        f"about {_times(tflop(cells, specs, scorers), _machines(specs.values()), loads)}",
        *restricting(cells, specs),
    ]
    budgets = dict.fromkeys(map(attrgetter("sampler", "steps", "nfe_budget"), cells))
    for sampler, steps, budget in budgets:
        if budget is not None:
            calls = SAMPLERS[sampler].nfe(steps)
            left = budget - calls
            lines.append(f"{sampler}: {steps} steps, {calls} of {budget} calls, {left} left")
    return "\n".join(lines)


def _axes(cells: list[Cell]) -> str:
    counts = []
    for name in VARIED:
        count = len(set(map(attrgetter(name), cells)))
        if count > 1:
            counts.append(f"{count} {name.removesuffix('s')}s")
    return " × ".join(counts) or "one setting"


def _machines(specs: Iterable[ModelSpec]) -> tuple[str, ...]:
    """The machines that suit models of this size."""
    if all((spec.pass_tflop or _family(spec).pass_tflop) < SMALL_TFLOP for spec in specs):
        return (CPU,)
    return GPUS


def _times(work: float, machines: Iterable[str], loads: int) -> str:
    times = []
    for machine in machines:
        seconds = work / SPEED[machine] + loads * LOAD_S[machine]
        times.append(f"{_duration(seconds)} on {machine}")
    return ", ".join(times)


def rounds_pay(cells: Iterable[Cell], specs: Mapping[str, ModelSpec], rounds: int) -> bool:
    """Whether loading each model again in each round costs at most a tenth of the work."""
    cells = list(cells)
    used = {cell.model: specs[cell.model] for cell in cells}
    machine = _machines(used.values())[0]
    reloading = len(used) * (rounds - 1) * LOAD_S[machine]
    work = sum(denoise_tflop(cell, used[cell.model]) for cell in cells)
    return reloading <= RELOADING_SHARE * work / SPEED[machine]


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(1, round(seconds))} s"
