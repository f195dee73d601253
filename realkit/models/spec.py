"""Models of the catalogue, and the entry that any other reference means."""

from __future__ import annotations

import re
from dataclasses import replace
from os import PathLike, fspath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from realkit.base import credentials
from realkit.base.errors import RequestError, shown
from realkit.catalog import omissions
from realkit.catalog.lookup import Spec, Table, find, refuse_own
from realkit.samplers.table import SAMPLERS
from realkit.weights import reference
from realkit.weights.reference import Reference


def _canonical(sampler: str) -> str:
    """A sampler's name in the table. An unknown name stays: `identify` refuses it, and a lock may
    hold one that a later table lacks."""
    try:
        return find(SAMPLERS, sampler)
    except RequestError:
        return sampler


class Settings(Spec):
    """What a model's author recommends, used where a request leaves a setting open."""

    sampler: Annotated[str, AfterValidator(_canonical)] = "DPM++ 2M Karras"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Annotated[FiniteFloat, Field(ge=0, le=100)] = 5.0
    negative: str = ""


class Leg(Spec):
    """The second leg: a catalogue model, and the share of the schedule at which it takes over."""

    model: str
    at: Annotated[float, Field(gt=0, le=1)]


def _ordered(steps: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= steps[0] <= steps[1]:
        raise ValueError("expected [fewest, most], from 1 on")
    return steps


def _sides(sizes: tuple[str, ...]) -> tuple[str, ...]:
    for size in sizes:
        match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size, re.ASCII)
        sides = [int(side) for side in match.groups()] if match else [0]
        if any(side % 8 or not 64 <= side <= 8192 for side in sides):
            raise ValueError(
                f"expected WIDTHxHEIGHT in multiples of 8 from 64 to 8192, got {size!r}"
            )
    return sizes


class ModelSpec(Spec):
    """An entry of the models' table. Sizes in pixels."""

    family: str = ""  # "": as the files say
    source: str
    variant: str = ""  # of the source and its parts, where they have it
    parts: dict[str, str] = Field(default_factory=dict)  # part: reference; "": never loaded
    # Reference: weight, merged when loaded.
    loras: dict[str, FiniteFloat] = Field(default_factory=dict)
    # Shipped configs ("config:sd1") or a folder of configs for a single file; "": as its tensors
    # say.
    config: str = ""
    # What the denoiser predicts, where a single file or a part does not say: the noise, the
    # velocity, or the clean picture.
    prediction: Literal["", "epsilon", "v_prediction", "sample"] = ""
    then: Leg | None = None
    size: Annotated[int, Field(ge=64, le=8192, multiple_of=8)] = 512
    # Other sizes that its author names, WIDTHxHEIGHT.
    sizes: Annotated[tuple[str, ...], AfterValidator(_sides)] = ()
    # Fewest and most steps of a distilled model.
    steps: Annotated[tuple[int, int], AfterValidator(_ordered)] | None = None
    # 10¹² operations of a denoiser pass at `size`, and of decoding a megapixel, where they are not
    # the family's.
    pass_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = None
    decode_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = None
    settings: Settings = Settings()
    settings_from: str = ""  # where the settings are recommended
    licence: str = "unknown"
    # Whether the licence allows commercial use.
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    unverified: str = ""  # what of the entry could not be looked up
    gated: bool = False  # its licence must be accepted on its page before it can be fetched
    about: str = ""
    aliases: tuple[str, ...] = ()


MODELS: Table[ModelSpec] = Table("model", ModelSpec)


def identify(name: str | PathLike[str]) -> tuple[str, ModelSpec]:
    """The name and entry of a catalogue model, or of any other reference.

    A catalogue name comes back as the table spells it, another reference as itself. A repository,
    file or version of a catalogued model has that model's settings. Raises RequestError for an
    unknown name, a secret, or settings that no request could use.
    """
    name = fspath(name) if isinstance(name, PathLike) else name
    if not isinstance(name, str):
        return find(MODELS, name), ModelSpec(source="")  # raises
    if credentials.holds_secret(name):
        raise RequestError(
            f"Reference {credentials.scrub(name)!r} holds a secret, which would be written into"
            " every row: leave it out, and set HF_TOKEN or CIVITAI_TOKEN"
        )
    model, spec = _identified(name)
    for ref in (spec.source, *spec.parts.values(), *spec.loras, spec.config):
        if credentials.holds_secret(ref):
            raise RequestError(
                f"Model {model!r} names {credentials.scrub(ref)!r}, which holds a secret: leave it"
                " out of the entry, and set HF_TOKEN or CIVITAI_TOKEN"
            )
    _check_settings(model, spec)
    return model, spec


def _identified(name: str) -> tuple[str, ModelSpec]:
    if name in MODELS:
        return name, MODELS[name]
    ref = reference.parse(name)
    if ref.kind not in ("hub", "name") or reference.existing_path(name):
        if listed := _listed(ref):
            return listed, MODELS[listed]
        if not reference.existing_path(name):
            omissions.check(name)
        return name, ModelSpec(source=name)
    try:
        listed = find(MODELS, str(ref))
    except RequestError:
        refuse_own(MODELS, name)
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
    omissions.check(str(ref))
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
    steps = spec.settings.steps
    try:
        find(SAMPLERS, spec.settings.sampler)
    except RequestError as error:
        raise RequestError(f"Model {name!r}: {error}") from None
    if spec.steps and not spec.steps[0] <= steps <= spec.steps[1]:
        raise RequestError(
            f"Model {name!r} recommends {steps} steps and is made for {spec.steps[0]} to"
            f" {spec.steps[1]}: change one of them"
        )
