"""The prompt suites of the catalogue, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from realkit.catalog.lookup import Spec, Table

SUITE = "suite:"  # begins the name of a suite in a list of prompts


def words(text: str) -> str:
    """A prompt. Raises ValueError for one without words, and for the name of a suite."""
    if not text.strip():
        raise ValueError("expected words, got an empty prompt")
    if text.startswith(SUITE):
        raise ValueError("expected words; name a suite in the list of prompts")
    return text


class Suite(Spec):
    """An entry of the catalogue. What follows `prompts` is known of an imported suite alone."""

    about: str
    prompts: Annotated[list[Annotated[str, AfterValidator(words)]], Field(min_length=1)]
    ids: tuple[str, ...] = ()  # of each prompt in its source, "" without one; empty: it has none
    licence: str = "unknown"
    # Whether the licence allows commercial use.
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    source: str = ""  # name of the file
    sha256: str = ""  # of the file
    left_out: Mapping[str, int] = Field(
        default_factory=dict
    )  # how many of its prompts were left out, by the reason

    @model_validator(mode="after")
    def _an_id_each(self) -> Self:
        if self.ids and len(self.ids) != len(self.prompts):
            raise ValueError(
                f"{len(self.ids)} ids of {len(self.prompts)} prompts: expected one each"
            )
        return self


PROMPTS: Table[Suite] = Table("prompt", Suite)
