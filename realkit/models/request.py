"""What the settings of a picture must be."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    StrictInt,
    StrictStr,
)


def _sides(value: Any) -> Any:
    """A size as people write it (512, "512", "768x1024", [768, 1024]) → (width, height)."""
    if isinstance(value, str):
        written = re.fullmatch(r"\s*(\d{1,6})(?:\s*x\s*(\d{1,6}))?\s*", value, re.ASCII)
        if not written:
            raise ValueError("expected pixels, such as 512 or 768x1024")
        return int(written[1]), int(written[2] or written[1])
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


Steps = Annotated[StrictInt, Field(ge=1, le=10_000)]
Text = Annotated[StrictStr, AfterValidator(_text)]
Guidance = Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Multiple8 = Annotated[StrictInt, Field(ge=64, le=8192, multiple_of=8)]
Size = Annotated[tuple[Multiple8, Multiple8], BeforeValidator(_sides)]
