"""Models of the catalogue, and the entry that any other reference means."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from realkit.base import credentials
from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import Spec, Table, find
from realkit.samplers.table import SAMPLERS
from realkit.weights import reference
from realkit.weights.reference import Reference


class Settings(Spec):
    """What a model's author recommends; used wherever a request leaves a setting open."""

    sampler: str = "DPM++ 2M Karras"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Annotated[FiniteFloat, Field(ge=0, le=100)] = 5.0
    negative: str = ""


class Leg(Spec):
    """The second leg of denoising: a model of the catalogue, and the share of the noise schedule at
    which it takes over."""

    model: str
    at: Annotated[float, Field(gt=0, le=1)]


def _ordered(steps: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= steps[0] <= steps[1]:
        raise ValueError("expected [fewest, most], from 1 on")
    return steps


def _sides(written: tuple[str, ...]) -> tuple[str, ...]:
    for size in written:
        sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size, re.ASCII)
        if not sides or any(
            int(side) % 8 or not 64 <= int(side) <= 8192 for side in sides.groups()
        ):
            raise ValueError(
                f"expected WIDTHxHEIGHT in multiples of 8 from 64 to 8192, got {size!r}"
            )
    return written


class ModelSpec(Spec):
    family: str = ""  # "": as the files say
    source: str
    variant: str = ""  # taken of the source and its parts where they have it
    parts: dict[str, str] = Field(default_factory=dict)  # "": left out
    loras: dict[str, FiniteFloat] = Field(
        default_factory=dict
    )  # reference: weight; merged into the weights when loaded
    config: (
        str
        # the shipped configs a single file is read with, or a folder of them; "": as its tensors
        # say
    ) = ""
    prediction: Literal["", "epsilon", "v_prediction"] = (
        ""  # of a single file whose tensors do not say
    )
    then: Leg | None = None
    size: Annotated[int, Field(ge=64, le=8192, multiple_of=8)] = 512
    sizes: Annotated[
        tuple[str, ...], AfterValidator(_sides)
    ] = ()  # others its author names, WIDTHxHEIGHT
    steps: Annotated[tuple[int, int], AfterValidator(_ordered)] | None = (
        None  # fewest and most that a distilled model is made for
    )
    pass_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = (
        None  # 10¹² operations of a denoiser pass at that size, where it is not the family's
    )
    decode_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = None  # of decoding a megapixel
    settings: Settings = Settings()
    settings_from: str = ""  # where the settings are recommended
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = (
        "unknown"  # whether the licence allows commercial use
    )
    gated: bool = False  # its licence must be accepted on its page before it can be fetched
    about: str = ""
    aliases: tuple[str, ...] = ()


MODELS: Table[ModelSpec] = Table("model", ModelSpec)


def identify(name: str) -> tuple[str, ModelSpec]:
    """A catalogue name as the table spells it, or any other reference as itself, with its entry.

    A repository, file or version of a model that the catalogue knows has that entry's settings.
    """
    if not isinstance(name, str):
        return find(MODELS, name), ModelSpec(source="")  # raises
    if credentials.holds_secret(name):
        raise RequestError(
            f"Reference {credentials.scrub(name)!r} holds a secret, which would be written into"
            " every row: leave it out, and set HF_TOKEN or CIVITAI_TOKEN"
        )
    found = _identified(name)
    for ref in (found[1].source, *found[1].parts.values(), *found[1].loras, found[1].config):
        if credentials.holds_secret(ref):
            raise RequestError(
                f"Model {found[0]!r} names {credentials.scrub(ref)!r}, which holds a secret: leave"
                " it out of the entry, and set HF_TOKEN or CIVITAI_TOKEN"
            )
    _check_settings(*found)
    return found


def _identified(name: str) -> tuple[str, ModelSpec]:
    if name in MODELS:
        return name, MODELS[name]
    ref = reference.parse(name)
    if ref.kind not in ("hub", "name") or reference.existing_path(name):
        if listed := _listed(ref):
            return listed, MODELS[listed]
        return name, ModelSpec(source=name)
    try:
        listed = find(MODELS, str(ref))
    except RequestError:
        if name.startswith("rehearsal/"):
            raise
        if ref.kind == "hub":
            return _of_hub(ref)
        if swapped := reference.with_variant_last(name):
            raise RequestError(
                f"Unknown model {shown(name)}: the revision comes before the variant, {swapped!r}"
            ) from None
        raise
    return listed, MODELS[listed]


def _of_hub(ref: Reference) -> tuple[str, ModelSpec]:
    """A hub reference with the entry of its repository, which may have moved, or an empty entry."""
    for name, spec in MODELS.items():
        home = reference.parse(spec.source)
        composed = spec.loras or spec.then or "unet" in spec.parts
        if composed or home.kind != "hub" or ref.name not in (home.name, *spec.aliases):
            continue
        file = ref.file or home.file  # the entry knows which file of a repository is meant
        variant = "" if file else ref.variant or home.variant
        source = str(replace(home, revision=ref.revision, file=file, variant=variant))
        if source == spec.source:
            return name, spec
        return str(ref), spec.model_copy(update={"source": source})
    return str(ref), ModelSpec(source=str(ref))


def _listed(ref: Reference) -> str | None:
    """The entry that has a reference as its source or among its aliases; a Civitai model is listed
    without a version."""
    for name, spec in MODELS.items():
        if str(ref) in (spec.source, *spec.aliases):
            return name
    return None


def _check_settings(name: str, spec: ModelSpec) -> None:
    """Raise RequestError for recommended settings that no request could use."""
    try:
        find(SAMPLERS, spec.settings.sampler)
    except RequestError as error:
        raise RequestError(f"Model {name!r}: {error}") from None
    if spec.steps and not spec.steps[0] <= spec.settings.steps <= spec.steps[1]:
        raise RequestError(
            f"Model {name!r} recommends {spec.settings.steps} steps and is made for {spec.steps[0]}"
            f" to {spec.steps[1]}: change one of them"
        )
