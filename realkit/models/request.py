"""The Request: all settings of one picture, checked, and completed by its model's advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from realkit.base.door import whole
from realkit.base.errors import RequestError, problem, shown
from realkit.catalog.lookup import find
from realkit.catalog.suites import words
from realkit.samplers.build import check_steps
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.spec import ModelSpec


@dataclass(frozen=True)
class Request:
    """Everything that determines one native picture, by name. Sides in pixels."""

    model: str
    sampler: str
    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    dtype: str | None = None  # None: by the device

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height


def _sides(value: Any) -> Any:
    """A size in any form (512, "512", "768x1024", [768, 1024]) → (width, height)."""
    if isinstance(value, str):
        sides = re.fullmatch(r"\s*(\d{1,6})(?:\s*x\s*(\d{1,6}))?\s*", value, re.ASCII)
        if not sides:
            raise ValueError("expected pixels, such as 512 or 768x1024")
        return int(sides[1]), int(sides[2] or sides[1])
    value = whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _text(value: str) -> str:
    """Text that a file can hold: no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text, got half of a surrogate pair: decode it first") from None
    return value


Text = Annotated[StrictStr, AfterValidator(_text)]
Whole = Annotated[StrictInt, BeforeValidator(whole)]
Multiple8 = Annotated[Whole, Field(ge=64, le=8192, multiple_of=8)]

# The kind of each setting of a request; `size` becomes width and height.
KINDS: dict[str, Any] = {
    "model": StrictStr,
    "sampler": StrictStr,
    "prompt": Annotated[Text, AfterValidator(words)],
    "negative": Text,
    "seed": Annotated[Whole, Field(ge=0, lt=2**63)],
    "steps": Annotated[Whole, Field(ge=1, le=10_000)],
    "guidance": Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)],
    "size": Annotated[tuple[Multiple8, Multiple8], BeforeValidator(_sides)],
    "dtype": Literal["float32", "float16", "bfloat16"],
}
OPEN = {"sampler", "negative", "steps", "guidance", "size", "dtype"}  # None: the model's advice
FILES = ("model", "upscaler")  # settings that a path may name
_ADAPTERS = {setting: TypeAdapter(kind) for setting, kind in KINDS.items()}


def checked(setting: str, value: Any, adapter: TypeAdapter[Any] | None = None) -> Any:
    """The value of a setting, valid and in canonical form; None where the setting may stay open.

    A sampler comes back by its name in the table. `adapter` validates a setting that requests do
    not have. Raises RequestError for an invalid value.
    """
    if value is None and setting in OPEN:
        return None
    if setting in FILES and isinstance(value, PathLike):
        value = fspath(value)
    try:
        value = (adapter or _ADAPTERS[setting]).validate_python(value)
    except ValidationError as error:
        message = problem(error.errors(include_url=False)[0])
        raise RequestError(f"{setting} {shown(value)}: {message}") from None
    return find(SAMPLERS, value) if setting == "sampler" else value


def completed(name: str, spec: ModelSpec, settings: Mapping[str, Any]) -> Request:
    """The request of checked settings to a model; the model's advice fills what is None or absent.

    Raises RequestError for a number of steps that the sampler or the model cannot take.
    """
    chosen = {"seed": 0, "size": (spec.size, spec.size), **spec.settings.model_dump()}
    for setting in KINDS:
        if settings.get(setting) is not None:
            chosen[setting] = settings[setting]
    steps = chosen["steps"]
    check_steps(chosen["sampler"], steps)
    if spec.steps and not spec.steps[0] <= steps <= spec.steps[1]:
        made_for = " to ".join(dict.fromkeys(str(count) for count in spec.steps))
        raise RequestError(
            f"steps {steps} with model {name!r}: it is distilled for {made_for} steps. Link them:"
            f" {{model: {name}, steps: {spec.settings.steps}}}"
        )
    width, height = chosen.pop("size")
    chosen |= {"model": name, "guidance": float(chosen["guidance"])}
    return Request(**chosen, width=width, height=height)
