"""The prompt suites of the catalogue, as data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from realkit.catalog.lookup import Spec, Table

BASE = "base"  # of an edit: the prompt that its other keys change
SUITE = "suite:"  # begins the name of a suite in a list of prompts


def words(text: str) -> str:
    """A prompt. Raises ValueError for one without words, and for the name of a suite."""
    if not text.strip():
        raise ValueError("expected words, got an empty prompt")
    if text.startswith(SUITE):
        raise ValueError("expected words; name a suite in the list of prompts")
    return text


def _edited(edit: dict[str, str]) -> dict[str, str]:
    if BASE not in edit or len(edit) < 2:
        raise ValueError(f"an edit has a {BASE!r}, and an attribute with what it becomes")
    if len(set(edit.values())) < len(edit):
        raise ValueError(f"two prompts of the edit of {edit[BASE]!r} are equal")
    return edit


Edits = tuple[Annotated[dict[str, str], AfterValidator(_edited)], ...]
_EDITS: TypeAdapter[Any] = TypeAdapter(Edits)


class Suite(Spec):
    """An entry of the catalogue. What follows `edits` is known of an imported suite alone."""

    about: str
    prompts: Annotated[list[Annotated[str, AfterValidator(words)]], Field(min_length=1)]
    # Edits of one attribute each: a prompt as `base`, and by attribute what it becomes. They make
    # the suite's prompts.
    edits: Edits = ()
    ids: tuple[str, ...] = ()  # of each prompt in its source, "" without one; empty: it has none
    licence: str = "unknown"
    # Whether the licence allows commercial use.
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    source: str = ""  # name of the file
    sha256: str = ""  # of the file
    left_out: Mapping[str, int] = Field(
        default_factory=dict
    )  # how many of its prompts were left out, by the reason

    @model_validator(mode="before")
    @classmethod
    def _prompts_of_edits(cls, entry: Any) -> Any:
        if not isinstance(entry, dict) or not entry.get("edits"):
            return entry
        try:
            _EDITS.validate_python(entry["edits"])
        except ValidationError:
            return entry | {"prompts": ["unknown"]}  # the field's own check says what is wrong
        if "prompts" in entry:
            raise ValueError("a suite has prompts, or edits that make them: leave one out")
        texts = chain.from_iterable(edit.values() for edit in entry["edits"])
        return entry | {"prompts": list(dict.fromkeys(texts))}

    @model_validator(mode="after")
    def _an_id_each(self) -> Self:
        if self.ids and len(self.ids) != len(self.prompts):
            raise ValueError(
                f"{len(self.ids)} ids of {len(self.prompts)} prompts: expected one each"
            )
        return self


PROMPTS: Table[Suite] = Table("prompt", Suite)
