"""The Sweep: axes of values, what to score, and the cells they make."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
)

from realkit.base import yaml_core
from realkit.base.door import check_listed, plain, whole
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import yaml_file
from realkit.base.suggest import instead
from realkit.catalog.lookup import Table, find
from realkit.models import request
from realkit.models.spec import ModelSpec, identify
from realkit.samplers.table import SAMPLERS
from realkit.scorers.encoders import ENCODERS, engine_of
from realkit.scorers.score import check_scorer
from realkit.scorers.table import SCORERS
from realkit.sweeps import cost, photographs
from realkit.sweeps.cell import Cell
from realkit.sweeps.prompts import expanded_prompts
from realkit.upscalers.chain import Chain, canonical
from realkit.upscalers.settings import Settings, Strength

Side = Annotated[request.Whole, Field(ge=1, le=32_768)]
Pair = Annotated[tuple[Side, Side], BeforeValidator(tuple)]
Target = Annotated[
    Annotated[Side, Tag("side")] | Annotated[Pair, Tag("pair")],
    Discriminator(lambda value: "pair" if isinstance(value, (list, tuple)) else "side"),
]

# The axes: argument of a Sweep → the cell's setting that it varies.
AXES = {
    "models": "model", "samplers": "sampler", "prompts": "prompt", "negatives": "negative",
    "seeds": "seed", "steps": "steps", "guidance": "guidance", "size": "size", "dtype": "dtype",
    "upscalers": "upscaler", "target": "target", "strength": "strength",
}  # fmt: skip
# What a setting must be that belongs to the cell, not to its request. None: without, or by advice.
AFTER: dict[str, TypeAdapter[Any]] = {
    "upscaler": TypeAdapter(StrictStr | None),
    "target": TypeAdapter(Target | None),
    "strength": TypeAdapter(Strength | None),
}
MOST_CELLS = 5_000_000
BY_MODEL = ("steps", "guidance", "negatives", "size")  # axes that profile "recommended" sets


class Sweep(BaseModel):
    """The specification of a comparison: axes of values, whose product are its cells, and scorers.

    Each axis takes one value or a list. None means the model's recommendation, unless said
    otherwise.

    - `models`: catalogue names, hub ids, addresses, files or folders.
    - `samplers`: names as people know them, such as "DPM++ 2M Karras".
    - `prompts`: words, or "suite:NAME" for the prompts of a suite in the catalogue.
    - `negatives`: negative prompts; without effect at guidance of 1 or less.
    - `seeds`: a number N means 0 to N - 1, a list is literal. Default: 0.
    - `steps`: 1 to 10,000, as far as the sampler and the model allow.
    - `guidance`: the classifier-free guidance scale, 0 to 100.
    - `size`: native pixels: 512, "768x1024" or (768, 1024), width first; multiples of 8.
    - `dtype`: the denoiser's "float32", "float16" or "bfloat16". None: by the device.
    - `upscalers`: names, files, or chains "A + B". None: the native size.
    - `target`: pixels after upscaling: the longer side, or (width, height).
    - `strength`: the share, up to 1, of the noise schedule that redraws repeat. None: 0.3.

    A value may be a mapping that links other settings to it: `models=[{"model": "sdxl-turbo",
    "steps": 4, "guidance": 0}, "sd-1.5"]`. Linked settings override their axes.

    `scorers` lists what rates every final picture, `encoders` what embeds it for `rk.sets` and
    `rk.edits`; `photographs` is a folder of photographs to compare them with. `profile` says how
    samplers are compared:

    - "equal-steps": each takes `steps` steps.
    - "equal-nfe": each takes at most `steps` denoiser calls; Heun's steps take two calls each.
    - "recommended": each model brings its steps, guidance, negative prompt and size.

    Raises RequestError for anything else, before anything is loaded. `realkit/sweeps/README.md`
    has examples and the YAML form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[Any]
    samplers: list[Any] = [None]
    prompts: list[Any]
    negatives: list[Any] = [None]
    seeds: list[Any] = [0]
    steps: list[Any] = [None]
    guidance: list[Any] = [None]
    size: list[Any] = [None]
    dtype: list[Any] = [None]
    upscalers: list[Any] = [None]
    target: list[Any] = [None]
    strength: list[Any] = [None]
    scorers: list[str] = []
    encoders: list[str] = []
    photographs: str | None = None
    profile: Literal["equal-steps", "equal-nfe", "recommended"] = "equal-steps"

    def __init__(self, *unnamed: Any, **arguments: Any) -> None:
        if unnamed:
            raise RequestError(f"Sweep({shown(unnamed[0])}): name it, such as models=…")
        names = type(self).model_fields
        values = {}
        for name, value in arguments.items():
            if name not in names:
                raise RequestError(
                    f"Unknown key {shown(name)} in the sweep{instead(name, names, 'some')}"
                )
            values[name] = value = plain(value)
            if name == "photographs":
                values[name] = _folder(value)
            elif name != "profile":
                values[name] = _axis(name, value)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(f"Sweep: {one_line(error)}") from error
        if self.photographs and not self.encoders:
            raise RequestError(
                "photographs are compared by their embeddings: name encoders too, such as dinov2"
            )
        self._check_count()
        if self.profile == "recommended":
            self._check_recommended()

    def _check_count(self) -> None:
        """Raise RequestError for more than MOST_CELLS combinations, before any cell is made, and
        for more values than its sweep file could hold."""
        lengths = {axis: len(getattr(self, axis)) for axis in AXES}
        count = math.prod(lengths.values())
        if count > MOST_CELLS:
            factors = " × ".join(f"{n:,} {axis}" for axis, n in lengths.items() if n > 1)
            raise RequestError(
                f"The sweep has {count:,} cells ({factors}), expected at most {MOST_CELLS:,}: make"
                " it smaller, or several sweeps of it"
            )
        listed = itertools.chain.from_iterable(self._axes())
        nodes = sum(map(_nodes, listed)) - (lengths["seeds"] if self._counts_seeds() else 0)
        if nodes > yaml_core.MOST_NODES - 100:
            raise RequestError(
                f"The sweep lists {nodes:,} values, and a sweep file holds"
                f" {yaml_core.MOST_NODES:,}: make several sweeps of it"
            )

    def _check_recommended(self) -> None:
        """Raise RequestError where an axis or a linked value sets what each model recommends."""
        linked: set[str] = set()
        for value in itertools.chain.from_iterable(self._axes()):
            if isinstance(value, dict):
                linked.update(value)
        for axis in BY_MODEL:
            if AXES[axis] in linked or getattr(self, axis) != [None]:
                raise RequestError(
                    "profile 'recommended' takes steps, guidance, negatives and size from each"
                    f" model: leave out {axis!r}"
                )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Sweep:
        """Read a sweep file, whose keys are the Python arguments."""
        expected = "`models:`, `prompts:`"
        return cls(**yaml_file(Path(path), f"Sweep file {str(path)!r}", expected))

    def to_yaml(self) -> str:
        """The sweep as a file that `from_yaml` reads; seeds 0 to N - 1 as N."""
        arguments = json.loads(self.model_dump_json(exclude_defaults=True))
        if self._counts_seeds():
            arguments["seeds"] = len(self.seeds)
        return yaml_core.dumped(arguments)

    def _counts_seeds(self) -> bool:
        """Whether the seeds are 0 to N - 1, so that their number says them all."""
        return len(self.seeds) > 1 and self.seeds == list(range(len(self.seeds)))

    def cells(self, specs: Mapping[str, ModelSpec] | None = None) -> list[Cell]:
        """All distinct cells, in the order of the axes. `specs` holds entries already locked."""
        specs = dict(specs or {})
        cells: dict[Cell, None] = {}
        for values in itertools.product(*self._axes()):
            settings = _merge(values)
            name = settings["model"]
            if name not in specs:
                specs[name] = identify(name)[1]
            cells[_cell(settings, specs[name], self.profile == "equal-nfe")] = None
        return list(cells)

    def _axes(self) -> list[list[Any]]:
        return [getattr(self, axis) for axis in AXES]

    def describe(self) -> str:
        """What the sweep will make: pictures, loads, denoiser calls, time and disk, in a few lines.
        Loads and fetches nothing."""
        cells = self.cells()
        names = {cell.model for cell in cells}
        extras = cost.Extras(self.scorers, self.encoders, photographs.count(self.photographs))
        return cost.describe(cells, {name: identify(name)[1] for name in names}, extras)


def _nodes(value: Any) -> int:
    """The nodes of YAML that a value of an axis is."""
    if isinstance(value, dict):
        return 1 + sum(1 + _nodes(item) for item in value.values())
    return 1 + (len(value) if isinstance(value, tuple) else 0)


def _axis(axis: str, value: Any) -> list[Any]:
    """The values of an axis, each checked. Raises RequestError that names the axis."""
    if axis == "scorers":
        return _names(axis, value, SCORERS, check_scorer)
    if axis == "encoders":
        return _names(axis, value, ENCODERS, engine_of)
    value = whole(value) if axis in ("seeds", "size", "target") else value
    values = _listed(axis, value)
    if axis == "seeds" and type(value) is int:
        if not 1 <= value <= 100_000:
            raise RequestError(
                f"seeds {value}: expected how many, 1 to 100,000, or a list of seeds"
            )
        values = list(range(value))
    elif axis in ("size", "target") and list(map(type, values)) == [int, int]:
        values = [tuple(values)]
    elif axis == "prompts":
        values = list(itertools.chain.from_iterable(map(expanded_prompts, values)))
    if not values:
        raise RequestError(f"{axis} is an empty list: expected at least one value")
    return [_value(axis, item) for item in values]


def _folder(value: Any) -> str | None:
    """The path of a folder, in one spelling."""
    if value is None:
        return None
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise RequestError(f"photographs {shown(value)}: expected the path of a folder")
    return str(Path(value))


def _names(axis: str, value: Any, table: Table[Any], check: Callable[[str], object]) -> list[str]:
    """Distinct names of a table, each checked."""
    names: dict[str, None] = {}
    for item in _listed(axis, value):
        name = find(table, item)
        check(name)
        names[name] = None
    return list(names)


def _listed(axis: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, bytearray, Path, Mapping)) or not isinstance(value, Iterable):
        return [value]
    check_listed(axis, value, AXES.get(axis, "name"))
    values = list(itertools.islice(value, MOST_CELLS + 1))  # an iterator may have no end
    if len(values) > MOST_CELLS:
        raise RequestError(f"{axis} has more than {MOST_CELLS:,} values: make it shorter")
    return values


def _value(axis: str, item: Any) -> Any:
    """An axis's value, checked; a mapping is checked key by key."""
    if not isinstance(item, Mapping):
        return _setting(AXES[axis], item)
    if AXES[axis] not in item:
        raise RequestError(
            f"{axis}: the mapping {shown(dict(item))} lacks its own key {AXES[axis]!r}"
        )
    settings = {}
    for key, value in item.items():
        if key not in AXES.values():
            end = instead(key, AXES.values(), "some")
            raise RequestError(f"{axis}: unknown setting {shown(key)}{end}")
        settings[key] = _setting(key, value)
    return settings


def _setting(setting: str, value: Any) -> Any:
    if value is None and setting in AFTER:
        return None
    value = request.checked(setting, value, AFTER.get(setting))
    if setting == "upscaler":
        return canonical(value)
    return identify(value)[0] if setting == "model" else value


def _merge(values: Iterable[Any]) -> dict[str, Any]:
    """The settings of one combination of axis values; linked settings override the others."""
    settings: dict[str, Any] = {}
    linked: dict[str, Any] = {}
    for setting, value in zip(AXES.values(), values, strict=True):
        if not isinstance(value, dict):
            settings[setting] = value
            continue
        for key, item in value.items():
            if linked.setdefault(key, item) != item:
                raise RequestError(
                    f"Two linked values set {key}: {shown(linked[key])} and {shown(item)}. Let one"
                    " of them set it"
                )
    return settings | linked


def _cell(settings: dict[str, Any], spec: ModelSpec, equal_nfe: bool) -> Cell:
    """The cell of a combination's settings, completed by the model's advice."""
    budget = None
    if equal_nfe:
        sampler = settings["sampler"] or find(SAMPLERS, spec.settings.sampler)
        budget = settings["steps"] or spec.settings.steps
        if SAMPLERS[sampler].adaptive:
            raise RequestError(
                f"Sampler {sampler!r} chooses its own denoiser calls: leave it out of an equal-nfe"
                " comparison"
            )
        settings = settings | {"steps": SAMPLERS[sampler].steps_within(budget)}
    completed = vars(request.completed(settings["model"], spec, settings))
    upscaler, target = settings["upscaler"], settings["target"]
    if upscaler is None:
        return Cell(**completed, nfe_budget=budget)
    if target is None:
        raise RequestError(
            f"Upscaler {upscaler!r} needs a target: give target=N for the longer side, or (width,"
            " height)"
        )
    after = {"target": target, "strength": _strength(upscaler, settings["strength"])}
    return Cell(**completed, upscaler=upscaler, nfe_budget=budget, **after)


def _strength(upscaler: str, asked: float | None) -> float | None:
    """The strength of a cell's redraw; None where its upscaler has none, whatever is asked."""
    if "strength" not in Chain.parse(upscaler).uses:
        return None
    return Settings().strength if asked is None else asked
