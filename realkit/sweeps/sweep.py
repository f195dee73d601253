"""The Sweep: axes of values, what to score, and the cells they make."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
)

from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import UniqueKeyLoader
from realkit.catalog.lookup import find
from realkit.models import request
from realkit.models.spec import ModelSpec, identify
from realkit.samplers.table import SAMPLERS
from realkit.scorers.score import determined_score
from realkit.scorers.table import SCORERS
from realkit.sweeps import cost
from realkit.sweeps.cell import Cell
from realkit.sweeps.prompts import expanded_prompts
from realkit.upscalers.chain import Chain, canonical
from realkit.upscalers.settings import Settings, Strength

Side = Annotated[StrictInt, Field(ge=1, le=32_768)]
Pair = Annotated[tuple[Side, Side], BeforeValidator(tuple)]
Target = Annotated[
    Annotated[Side, Tag("side")] | Annotated[Pair, Tag("pair")],
    Discriminator(lambda value: "pair" if isinstance(value, (list, tuple)) else "side"),
]

# The axes: argument of a Sweep → the cell's setting that it varies.
AXES = {
    "models": "model", "samplers": "sampler", "prompts": "prompt", "negatives": "negative",
    "seeds": "seed", "steps": "steps",
    "guidance": "guidance", "size": "size", "dtype": "dtype", "upscalers": "upscaler",
    "target": "target", "strength": "strength",
}  # fmt: skip
# What a setting of a cell must be that is none of its request's; None: no upscaler, or its own
# advice.
AFTER: dict[str, TypeAdapter[Any]] = {
    "upscaler": TypeAdapter(StrictStr | None),
    "target": TypeAdapter(Target | None),
    "strength": TypeAdapter(Strength | None),
}


class Sweep(BaseModel):
    """The specification of a comparison. Each axis takes a value or a list; None means the model's
    own recommendation.

    A value may be a mapping that sets other settings with it: `{"model": "sdxl-turbo", "steps": 4,
    "guidance": 0}`. `seeds=4` means 0 to 3, a list is literal. A prompt "suite:NAME" stands for a
    suite of the catalogue. `size` is an int for squares or (width, height), multiples of 8; `dtype`
    the denoiser's number format (None: by the device); `target` the longer side after upscaling, or
    (width, height); `strength` the share of the noise schedule that an upscaler which redraws goes
    through again.

    `profile` says what samplers are compared at: "equal-steps"; "equal-nfe", where `steps` is the
    denoiser calls each may take and a sampler of two calls a step takes half as many steps; or
    "recommended", where each model's author decides. Raises RequestError for anything else, before
    anything is loaded.
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
    profile: Literal["equal-steps", "equal-nfe", "recommended"] = "equal-steps"

    def __init__(self, **given: Any) -> None:
        unknown = [key for key in given if key not in type(self).model_fields]
        if unknown:
            raise RequestError(
                f"Unknown key {shown(unknown[0])} in the sweep: expected some of"
                f" {', '.join(type(self).model_fields)}"
            )
        try:
            super().__init__(
                **{
                    axis: value if axis == "profile" else _axis(axis, value)
                    for axis, value in given.items()
                }
            )
        except ValidationError as error:
            raise RequestError(f"Sweep: {one_line(error)}") from error
        linked = {
            key
            for axis in AXES
            for value in getattr(self, axis)
            if isinstance(value, dict)
            for key in value
        }
        fixed = {"steps": "steps", "guidance": "guidance", "negatives": "negative", "size": "size"}
        taken = [
            axis
            for axis, setting in fixed.items()
            if getattr(self, axis) != [None] or setting in linked
        ]
        if self.profile == "recommended" and taken:
            raise RequestError(
                "profile 'recommended' takes steps, guidance, negatives and size from each model:"
                f" leave out {taken[0]!r}"
            )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Sweep:
        """Read a sweep file. Its keys are the Python arguments."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"Sweep file {str(path)!r} cannot be read: {one_line(error)}"
            ) from error
        try:
            given = yaml.load(text, UniqueKeyLoader)
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ) as error:  # the latter two of dates and numbers that are none, and of deep nesting
            raise RequestError(
                f"Sweep file {str(path)!r} is not YAML: {one_line(error)}"
            ) from error
        if not isinstance(given, dict):
            raise RequestError(
                f"Sweep file {str(path)!r} holds {type(given).__name__}, expected keys such as"
                " `models:` and `prompts:`"
            )
        return cls(**{str(key): value for key, value in given.items()})

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            json.loads(self.model_dump_json(exclude_defaults=True)),
            sort_keys=False,
            allow_unicode=True,
        )

    def cells(self, specs: Mapping[str, ModelSpec] | None = None) -> list[Cell]:
        """All cells in the order of the axes, duplicates collapsed. `specs` maps model names to
        entries already locked."""
        known = dict(specs or {})
        found: dict[Cell, None] = {}
        for values in itertools.product(*(getattr(self, axis) for axis in AXES)):
            settings = _merge(values)
            name = settings["model"]
            if name not in known:
                known[name] = identify(name)[1]
            found[_cell(settings, name, known[name], self.profile == "equal-nfe")] = None
        return list(found)

    def describe(self) -> str:
        """What the sweep will make, in a few lines: pictures, loads, denoiser calls, time and disk.
        Loads and fetches nothing."""
        cells = self.cells()
        return cost.describe(
            cells,
            {name: identify(name)[1] for name in {cell.model for cell in cells}},
            self.scorers,
        )


def _axis(axis: str, value: Any) -> Any:
    """The values of an axis as a list, each checked; raises RequestError naming the axis."""
    if axis == "scorers":
        names = list(dict.fromkeys(find(SCORERS, name) for name in _listed(value)))
        for name in names:
            determined_score(name)
        return names
    if axis == "seeds" and isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 100_000:
            raise RequestError(
                f"seeds {shown(value)}: expected a number of seeds from 1 on, or a list of them"
            )
        value = list(range(value))
    pair = (
        axis in ("size", "target")
        and isinstance(value, (list, tuple))
        and len(value) == 2
        and all(type(v) is int for v in value)
    )
    values = [tuple(value)] if pair else _listed(value)
    if axis == "prompts":
        values = [prompt for item in values for prompt in expanded_prompts(item)]
    if not values:
        raise RequestError(f"{axis} is an empty list: expected at least one value")
    return [_value(axis, AXES[axis], item) for item in values]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _value(axis: str, setting: str, item: Any) -> Any:
    if isinstance(item, Mapping):
        if setting not in item:
            raise RequestError(
                f"{axis}: the mapping {shown(dict(item))} lacks its own key {setting!r}"
            )
        return {key: _setting(axis, key, value) for key, value in item.items()}
    return _setting(axis, setting, item)


def _setting(axis: str, setting: str, value: Any) -> Any:
    if setting not in AXES.values():
        raise RequestError(
            f"{axis}: unknown setting {shown(setting)}, expected some of {', '.join(AXES.values())}"
        )
    if setting in AFTER:
        value = None if value is None else request.checked(setting, value, AFTER[setting])
        return canonical(value) if setting == "upscaler" and value is not None else value
    value = request.checked(setting, value)
    return identify(value)[0] if setting == "model" else value


def _merge(values: Iterable[Any]) -> dict[str, Any]:
    """The settings of one combination: axis values, then what mappings link to them."""
    values = list(values)
    own = {
        setting: value
        for setting, value in zip(AXES.values(), values, strict=True)
        if not isinstance(value, dict)
    }
    linked: dict[str, Any] = {}
    for value in values:
        for setting, item in value.items() if isinstance(value, dict) else ():
            if linked.setdefault(setting, item) != item:
                raise RequestError(
                    f"Two linked values set {setting}: {shown(linked[setting])} and {shown(item)}."
                    " Let one of them set it"
                )
    return own | linked


def _cell(settings: dict[str, Any], name: str, spec: ModelSpec, equal_nfe: bool) -> Cell:
    budget = None
    if equal_nfe:
        sampler = settings["sampler"] or find(SAMPLERS, spec.settings.sampler)
        budget = spec.settings.steps if settings["steps"] is None else settings["steps"]
        if SAMPLERS[sampler].adaptive:
            raise RequestError(
                f"Sampler {sampler!r} chooses its own denoiser calls: leave it out of an equal-nfe"
                " comparison"
            )
        settings = settings | {"steps": SAMPLERS[sampler].steps_within(budget)}
    asked = request.completed(name, spec, settings)
    upscaler, target = settings["upscaler"], settings["target"]
    if upscaler is None:
        return Cell(**asdict(asked), nfe_budget=budget)
    if target is None:
        raise RequestError(
            f"Upscaler {upscaler!r} needs a target: give target=N for the longer side, or (width,"
            " height)"
        )
    strength = _strength(upscaler, settings["strength"])
    return Cell(
        **asdict(asked), upscaler=upscaler, target=target, strength=strength, nfe_budget=budget
    )


def _strength(upscaler: str, asked: float | None) -> float | None:
    """The strength of a cell's redraw; None where its upscaler has none, whatever is asked."""
    if "strength" not in Chain.parse(upscaler).uses:
        return None
    return Settings().strength if asked is None else asked
