"""What a sweep will cost: counted operations over the speed that machines were seen to reach."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from realkit.base.cache import readable
from realkit.base.energy import first_card
from realkit.catalog.lookup import find
from realkit.models.families import FAMILIES, Family
from realkit.models.legs import second_leg
from realkit.models.request import Request
from realkit.models.spec import MODELS, ModelSpec
from realkit.samplers.table import SAMPLERS
from realkit.scorers import engines
from realkit.scorers.encoders import ENCODERS
from realkit.scorers.table import SCORERS
from realkit.sweeps.cell import Cell
from realkit.sweeps.licences import restricting
from realkit.upscalers.chain import Chain

CPU, GPUS = "two CPU cores", ("a T4", "a P100")
# TFLOP/s: of the demo on idle cores; of 25 guided steps of Stable Diffusion 1.5 in 3.8 s and 7 s
SPEED = {CPU: 0.14, "a T4": 11.2, "a P100": 6.1}
# TFLOP/s that the makers name for half precision, without sparsity. A card not in SPEED is taken to
# reach the share of it that a T4 was seen to reach.
PEAK = {"T4": 65.1, "V100": 125.0, "L4": 121.0, "A100": 312.0, "H100": 989.0, "H200": 989.0}
SMALL_TFLOP = 0.1  # a denoiser below this leaves a GPU idle between launches: estimated for a CPU
BYTES_A_PIXEL = 1.6  # of a PNG, roughly
LOAD_S = {CPU: 0.1}  # to load a model again
GPU_LOAD_S = 6.0  # the same on a GPU: seen 2 to 11
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


@dataclass(frozen=True)
class Extras:
    """What a sweep does besides pictures: its scorers and encoders, and the photographs that are
    embedded at each size of its pictures."""

    scorers: Sequence[str] = ()
    encoders: Sequence[str] = ()
    photographs: int = 0

    def embeddings(self, cells: Sequence[Cell]) -> int:
        """How many embeddings are made."""
        sizes = len(set(map(attrgetter("pixels"), cells)))
        return len(self.encoders) * (len(cells) + self.photographs * sizes)

    def tflop(self, cells: Sequence[Cell]) -> float:
        """Their operations, in 10¹²."""
        scores = len(cells) * sum(SCORERS[name].tflop for name in self.scorers)
        each = self.embeddings(cells) / max(1, len(self.encoders))
        return scores + each * sum(ENCODERS[name].tflop for name in self.encoders)

    def uncounted(self, cells: Sequence[Cell]) -> list[str]:
        """The scorers and upscalers that work with weights, and whose work nobody counted."""
        names = []
        for name in self.scorers:
            entry = SCORERS[name]
            if not entry.tflop and engines.ENGINES[entry.engine].weights:
                names.append(name)
        for name in dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler):
            for part in Chain.parse(name).parts:
                if not part.entry.tflop and (part.engine.weights or part.engine.redraws):
                    names.append(part.name)
        return list(dict.fromkeys(names))


def tflop(cells: Iterable[Cell], specs: Mapping[str, ModelSpec], extras: Extras) -> float:
    """Operations, in 10¹², of all stages of these cells, each distinct result made once."""
    cells = list(cells)
    total = extras.tflop(cells)
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


def describe(cells: list[Cell], specs: Mapping[str, ModelSpec], extras: Extras) -> str:
    """What making these cells takes: pictures, loads, denoiser calls, time and disk, in lines; and
    the licences that restrict.

    Counted operations give the time, within a factor of about two.
    """
    pictures = _by_latents(cells).values()
    nfe = sum(SAMPLERS[cell.sampler].nfe(cell.steps) for cell in pictures)
    disk = sum(cell.pixels[0] * cell.pixels[1] for cell in cells) * BYTES_A_PIXEL
    vaes = {spec.parts.get("vae", spec.source) for spec in specs.values()}
    upscalers = set(map(attrgetter("upscaler"), cells)) - {None}
    loads = len(specs) + len(vaes) + len(upscalers) + len(extras.scorers) + len(extras.encoders)
    embeddings = ""
    if count := extras.embeddings(cells):
        of = f" ({extras.photographs} photographs too)" if extras.photographs else ""
        embeddings = f" {count} embeddings{of},"
    lines = [
        f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {_axes(cells)}",
        f"{len(pictures)} pictures to denoise in {nfe:,} denoiser calls, {loads} loads,"
        f" {len(cells) * len(extras.scorers)} scores,{embeddings} about {readable(disk)} of"
        " pictures",
        f"about {times(cells, specs, extras, loads)}",
        *restricting(cells, specs),
    ]
    if names := extras.uncounted(cells):
        lines.append(f"not in that time, for nobody has counted their work: {', '.join(names)}")
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


def times(cells: Sequence[Cell], specs: Mapping[str, ModelSpec], extras: Extras, loads: int) -> str:
    """How long these cells take: on this machine; and, where it has no GPU and the models want one,
    on those that people have."""
    work = tflop(cells, specs, extras)
    machines = {name: SPEED[name] for name in _machines(specs.values())}
    unknown = ""
    if CPU not in machines:
        card = first_card()
        speed = _speed(card)
        unknown = f"; how fast this machine's {card} is, nobody has measured" * bool(card)
        if speed:
            machines, unknown = {f"this {card}": speed}, ""
        elif not card:
            machines = {f"{CPU}, as here": SPEED[CPU]} | machines
    parts = []
    for name, speed in machines.items():
        seconds = work / speed + loads * (LOAD_S[CPU] if CPU in name else GPU_LOAD_S)
        parts.append(f"{_duration(seconds)} on {name}")
    return ", ".join(parts) + unknown


def _speed(card: str) -> float:
    """TFLOP/s of a card by its name, such as "Tesla T4"; 0 where it is not known."""
    if "P100" in card:
        return SPEED["a P100"]
    words = re.findall(r"[A-Z]+[0-9]+", card)
    share = SPEED["a T4"] / PEAK["T4"]
    return next((PEAK[word] * share for word in words if word in PEAK), 0.0)


def rounds_pay(cells: Iterable[Cell], specs: Mapping[str, ModelSpec], rounds: int) -> bool:
    """Whether loading each model again in each round costs at most a tenth of the work."""
    cells = list(cells)
    used = {cell.model: specs[cell.model] for cell in cells}
    machine = _machines(used.values())[0]
    reloading = len(used) * (rounds - 1) * (LOAD_S[CPU] if machine == CPU else GPU_LOAD_S)
    work = sum(denoise_tflop(cell, used[cell.model]) for cell in cells)
    return reloading <= RELOADING_SHARE * work / SPEED[machine]


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(1, round(seconds))} s"
