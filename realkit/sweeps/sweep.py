"""The Sweep: axes of values, what to score, and the cells they make."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
)

from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import UniqueKeyLoader
from realkit.catalog.lookup import find
from realkit.models.request import Guidance, Seed, Size, Steps, Text
from realkit.samplers.build import check_steps
from realkit.samplers.table import SAMPLERS
from realkit.sweeps.cell import Cell
from realkit.sweeps.prompts import checked_prompt, expanded_prompts

if TYPE_CHECKING:
    from realkit.models.spec import ModelSpec

Side = Annotated[StrictInt, Field(ge=1, le=32_768)]
Pair = Annotated[tuple[Side, Side], BeforeValidator(lambda value: tuple(value))]
Target = Annotated[Annotated[Side, Tag("side")] | Annotated[Pair, Tag("pair")], Discriminator(lambda v: "pair" if isinstance(v, (list, tuple)) else "side")]

# The axes: argument of a Sweep → the cell's setting it varies and what a value of it must be.
AXES: dict[str, tuple[str, Any]] = {
    "models": ("model", StrictStr), "samplers": ("sampler", StrictStr), "prompts": ("prompt", Annotated[Text, AfterValidator(checked_prompt)]),
    "negatives": ("negative", Text), "seeds": ("seed", Seed), "steps": ("steps", Steps), "guidance": ("guidance", Guidance),
    "size": ("size", Size), "dtype": ("dtype", Literal["float32", "float16", "bfloat16"]), "upscalers": ("upscaler", StrictStr), "target": ("target", Target),
    "strength": ("strength", Annotated[FiniteFloat, Field(strict=True, gt=0, le=1)]),
}  # fmt: skip
SETTINGS = {setting: TypeAdapter(kind) for setting, kind in AXES.values()}
OPEN = {"sampler", "negative", "steps", "guidance", "size", "dtype", "upscaler", "target", "strength"}  # may be None: the model's recommendation, or none


class Sweep(BaseModel):
    """The specification of a comparison. Each axis takes a value or a list; None means the model's own recommendation.

    A value may be a mapping that sets other settings with it: `{"model": "sdxl-turbo", "steps": 4, "guidance": 0}`.
    `seeds=4` means 0 to 3, a list is literal. A prompt "suite:NAME" stands for a suite of the catalogue. `size` is an int for
    squares or (width, height), multiples of 8; `dtype` the denoiser's number format (None: by the device); `target` the longer side after upscaling, or (width, height);
    `strength` the share of the noise schedule that an upscaler which redraws goes through again.

    `profile` says what samplers are compared at: "equal-steps"; "equal-nfe", where `steps` is the denoiser calls each may take and a
    sampler of two calls a step takes half as many steps; or "recommended", where each model's author decides.
    Raises RequestError for anything else, before anything is loaded.
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
            raise RequestError(f"Unknown key {shown(unknown[0])} in the sweep: expected some of {', '.join(type(self).model_fields)}")
        try:
            super().__init__(**{axis: value if axis == "profile" else _axis(axis, value) for axis, value in given.items()})
        except ValidationError as error:
            raise RequestError(f"Sweep: {one_line(error)}") from error
        linked = {key for axis in AXES for value in getattr(self, axis) if isinstance(value, dict) for key in value}
        fixed = {"steps": "steps", "guidance": "guidance", "negatives": "negative", "size": "size"}
        taken = [axis for axis, setting in fixed.items() if getattr(self, axis) != [None] or setting in linked]
        if self.profile == "recommended" and taken:
            raise RequestError(f"profile 'recommended' takes steps, guidance, negatives and size from each model: leave out {taken[0]!r}")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Sweep:
        """Read a sweep file. Its keys are the Python arguments."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"Sweep file {str(path)!r} cannot be read: {one_line(error)}") from error
        try:
            given = yaml.load(text, UniqueKeyLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # the latter two of dates and numbers that are none, and of deep nesting
            raise RequestError(f"Sweep file {str(path)!r} is not YAML: {one_line(error)}") from error
        if not isinstance(given, dict):
            raise RequestError(f"Sweep file {str(path)!r} holds {type(given).__name__}, expected keys such as `models:` and `prompts:`")
        return cls(**{str(key): value for key, value in given.items()})

    def to_yaml(self) -> str:
        return yaml.safe_dump(json.loads(self.model_dump_json(exclude_defaults=True)), sort_keys=False, allow_unicode=True)

    def cells(self, specs: Mapping[str, ModelSpec] | None = None) -> list[Cell]:
        """All cells in the order of the axes, duplicates collapsed. `specs` maps model names to entries already locked."""
        from realkit.models.spec import identify

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
        """What the sweep will make, in a few lines: pictures, loads, denoiser calls, time and disk. Loads and fetches nothing."""
        from realkit.models.spec import identify
        from realkit.sweeps import cost

        cells = self.cells()
        return cost.describe(cells, {name: identify(name)[1] for name in {cell.model for cell in cells}}, self.scorers)


def _axis(axis: str, value: Any) -> Any:
    """The values of an axis as a list, each checked; raises RequestError naming the axis."""
    if axis == "scorers":
        from realkit.scorers.score import determined_score
        from realkit.scorers.table import SCORERS

        names = list(dict.fromkeys(find(SCORERS, name) for name in _listed(value)))
        for name in names:
            determined_score(name)
        return names
    if axis == "seeds" and isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 100_000:
            raise RequestError(f"seeds {shown(value)}: expected a number of seeds from 1 on, or a list of them")
        value = list(range(value))
    pair = axis in ("size", "target") and isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) is int for v in value)
    values = [tuple(value)] if pair else _listed(value)
    if axis == "prompts":
        values = [prompt for item in values for prompt in expanded_prompts(item)]
    if not values:
        raise RequestError(f"{axis} is an empty list: expected at least one value")
    return [_value(axis, AXES[axis][0], item) for item in values]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _value(axis: str, setting: str, item: Any) -> Any:
    if isinstance(item, Mapping):
        if setting not in item:
            raise RequestError(f"{axis}: the mapping {shown(dict(item))} lacks its own key {setting!r}")
        return {key: _setting(axis, key, value) for key, value in item.items()}
    return _setting(axis, setting, item)


def _setting(axis: str, setting: str, value: Any) -> Any:
    if setting not in SETTINGS:
        raise RequestError(f"{axis}: unknown setting {shown(setting)}, expected some of {', '.join(SETTINGS)}")
    if value is None and setting in OPEN:
        return None
    try:
        value = SETTINGS[setting].validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RequestError(f"{setting} {shown(value)}: {first['msg'].removeprefix('Value error, ')}") from None
    if setting == "sampler":
        return find(SAMPLERS, value)
    if setting == "upscaler":
        from realkit.upscalers.table import canonical

        return canonical(value)
    if setting == "model":
        from realkit.models.spec import identify as identify_model

        return identify_model(value)[0]
    return value


def _merge(values: Iterable[Any]) -> dict[str, Any]:
    """The settings of one combination: axis values, then what mappings link to them."""
    values = list(values)
    own = {setting: value for (setting, _), value in zip(AXES.values(), values, strict=True) if not isinstance(value, dict)}
    linked: dict[str, Any] = {}
    for value in values:
        for setting, item in value.items() if isinstance(value, dict) else ():
            if linked.setdefault(setting, item) != item:
                raise RequestError(f"Two linked values set {setting}: {shown(linked[setting])} and {shown(item)}. Let one of them set it")
    return own | linked


def _cell(settings: dict[str, Any], name: str, spec: ModelSpec, equal_nfe: bool) -> Cell:
    advised = spec.settings
    sampler = settings["sampler"] or find(SAMPLERS, advised.sampler)
    steps = advised.steps if settings["steps"] is None else settings["steps"]
    budget = steps if equal_nfe else None
    if budget is not None and SAMPLERS[sampler].adaptive:
        raise RequestError(f"Sampler {sampler!r} chooses its own denoiser calls: leave it out of an equal-nfe comparison")
    if budget is not None:
        steps = SAMPLERS[sampler].steps_within(budget)
    check_steps(sampler, steps)
    if spec.steps and not spec.steps[0] <= steps <= spec.steps[1]:
        made_for = " to ".join(dict.fromkeys(str(count) for count in spec.steps))
        raise RequestError(
            f"steps {steps} with model {name!r}: it is distilled for {made_for} steps. Link them: {{model: {name}, steps: {spec.settings.steps}}}"
        )
    width, height = settings["size"] or (spec.size, spec.size)
    upscaler, target = settings["upscaler"], settings["target"]
    if upscaler is not None and target is None:
        raise RequestError(f"Upscaler {upscaler!r} needs a target: give target=N for the longer side, or (width, height)")
    strength = _strength(upscaler, settings["strength"])
    return Cell(
        model=name, sampler=sampler, prompt=settings["prompt"], negative=advised.negative if settings["negative"] is None else settings["negative"],
        seed=settings["seed"], steps=steps, guidance=float(advised.guidance if settings["guidance"] is None else settings["guidance"]),
        width=width, height=height, dtype=settings["dtype"], upscaler=upscaler, target=target if upscaler is not None else None,
        strength=strength, nfe_budget=budget,
    )  # fmt: skip


def _strength(upscaler: str | None, asked: float | None) -> float | None:
    """The strength of a cell's redraw; None where its upscaler has none, whatever is asked."""
    from realkit.upscalers.settings import Settings
    from realkit.upscalers.table import uses

    if upscaler is None or "strength" not in uses(upscaler):
        return None
    return Settings().strength if asked is None else asked
