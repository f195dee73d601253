"""The Request: all that one picture is asked with, checked, and completed by its model's advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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

from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import find
from realkit.samplers.build import check_steps
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    from realkit.models.spec import ModelSpec

SUITE = "suite:"  # begins the name of a prompt suite, which only a sweep expands


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
    """A size as people write it (512, "512", "768x1024", [768, 1024]) → (width, height)."""
    if isinstance(value, str):
        sides = re.fullmatch(r"\s*(\d{1,6})(?:\s*x\s*(\d{1,6}))?\s*", value, re.ASCII)
        if not sides:
            raise ValueError("expected pixels, such as 512 or 768x1024")
        return int(sides[1]), int(sides[2] or sides[1])
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _text(value: str) -> str:
    """Words that can be written to a file: no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text, got half of a surrogate pair: decode it first") from None
    return value


def _prompt(value: str) -> str:
    if not value.strip():
        raise ValueError("expected words, got an empty prompt")
    if value.startswith(SUITE):
        raise ValueError("expected words; name a suite in the list of prompts")
    return value


Text = Annotated[StrictStr, AfterValidator(_text)]
Multiple8 = Annotated[StrictInt, Field(ge=64, le=8192, multiple_of=8)]

# What each setting of a request must be; `size` becomes width and height.
KINDS: dict[str, Any] = {
    "model": StrictStr,
    "sampler": StrictStr,
    "prompt": Annotated[Text, AfterValidator(_prompt)],
    "negative": Text,
    "seed": Annotated[StrictInt, Field(ge=0, lt=2**63)],
    "steps": Annotated[StrictInt, Field(ge=1, le=10_000)],
    "guidance": Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)],
    "size": Annotated[tuple[Multiple8, Multiple8], BeforeValidator(_sides)],
    "dtype": Literal["float32", "float16", "bfloat16"],
}
OPEN = {"sampler", "negative", "steps", "guidance", "size", "dtype"}  # None: the model's advice
_ADAPTERS = {setting: TypeAdapter(kind) for setting, kind in KINDS.items()}


def checked(setting: str, value: Any, adapter: TypeAdapter[Any] | None = None) -> Any:
    """A setting's value as it must be, samplers by their table's name; None where it may be open.

    `adapter` says what the value of a setting must be that is no request's. Raises RequestError.
    """
    if value is None and setting in OPEN:
        return None
    try:
        value = (adapter or _ADAPTERS[setting]).validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise RequestError(f"{setting} {shown(value)}: {message}") from None
    return find(SAMPLERS, value) if setting == "sampler" else value


def completed(name: str, spec: ModelSpec, settings: Mapping[str, Any]) -> Request:
    """The request of checked settings to a model; what is None or left out is the model's advice.

    Raises RequestError for a number of steps that the sampler or the model cannot take.
    """
    advice, given = (
        spec.settings,
        {key: value for key, value in settings.items() if value is not None},
    )
    sampler = given.get("sampler") or find(SAMPLERS, advice.sampler)
    steps = given.get("steps", advice.steps)
    check_steps(sampler, steps)
    if spec.steps and not spec.steps[0] <= steps <= spec.steps[1]:
        made_for = " to ".join(dict.fromkeys(str(count) for count in spec.steps))
        raise RequestError(
            f"steps {steps} with model {name!r}: it is distilled for {made_for} steps. Link them:"
            f" {{model: {name}, steps: {advice.steps}}}"
        )
    width, height = given.get("size", (spec.size, spec.size))
    return Request(
        model=name,
        sampler=sampler,
        prompt=given["prompt"],
        negative=given.get("negative", advice.negative),
        seed=given.get("seed", 0),
        steps=steps,
        guidance=float(given.get("guidance", advice.guidance)),
        width=width,
        height=height,
        dtype=given.get("dtype"),
    )
