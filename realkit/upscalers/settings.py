"""What can be said beside a picture, an upscaler and a size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, ValidationError

from realkit.base.errors import RequestError, one_line, shown
from realkit.catalog.lookup import Spec, find
from realkit.samplers.table import SAMPLERS
from realkit.upscalers.table import NETWORKS, chain


class Settings(Spec):
    """What can be said beside a picture, an upscaler and a size; what is left out is the upscaler's
    own. Numbers of pixels are of the small picture."""

    prompt: str | None = None
    negative: str | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    model: str | None = None
    strength: Annotated[FiniteFloat, Field(strict=True, ge=0.001, le=1)] = (
        0.3  # of a redraw: the share of the noise schedule that is gone through again
    )
    steps: Annotated[int, Field(strict=True, ge=1, le=999)] | None = None
    guidance: Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)] | None = None
    sampler: str | None = None
    noise_level: Annotated[int, Field(strict=True, ge=0, le=350)] = 20
    weight: Annotated[FiniteFloat, Field(ge=0, le=1)] = (
        0.5  # of CodeFormer: 1 is faithful to the picture, 0 to faces in general
    )
    landmarks: list[Any] | None = None  # a face each: five (x, y), as faces.TEMPLATE orders them
    tile: Annotated[int, Field(strict=True, ge=16)] | None = None
    overlap: Annotated[int, Field(strict=True, ge=0, le=512)] | None = None
    pre_pad: Annotated[int, Field(strict=True, ge=0, le=64)] | None = None


def checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an upscaler that were given, each as it should be. Raises RequestError for
    one that is none, or that no tool of it uses."""
    said = {key: value for key, value in given.items() if value is not None}
    if unknown := [key for key in said if key not in Settings.model_fields]:
        raise RequestError(
            f"Unknown setting {unknown[0]!r} of an upscaler: expected some of"
            f" {', '.join(Settings.model_fields)}"
        )
    specs = [spec for _, spec in chain(name)]
    known: set[str] = {"prompt", "seed", *(use for spec in specs for use in spec.uses)}
    known |= (
        {"tile", "overlap", "pre_pad"} if any(spec.engine in NETWORKS for spec in specs) else set()
    )
    known |= {"landmarks"} if any(spec.engine == "faces" for spec in specs) else set()
    if idle := [key for key in said if key not in known]:
        raise RequestError(
            f"Upscaler {name!r} does not use {idle[0]!r}: expected some of"
            f" {', '.join(sorted(known))}"
        )
    if "landmarks" in said:
        said["landmarks"] = _points(name, said["landmarks"])
    try:
        found = Settings(**said)
    except ValidationError as error:
        raise RequestError(f"Upscaler {name!r}: {one_line(error)}") from None
    if found.sampler is not None:
        find(SAMPLERS, found.sampler)
    if (
        any(spec.engine in ("redraw", "diffusers-x4") for spec in specs)
        and not (found.prompt or "").strip()
    ):
        raise RequestError(
            f"Upscaler {name!r} draws what a prompt says, and was given none: expected prompt=,"
            " such as the one that made the picture"
        )
    return {key: getattr(found, key) for key in said}


def _points(name: str, landmarks: Any) -> list[Any]:
    """Landmarks as plain lists, from lists or arrays."""
    import numpy as np

    try:
        found: list[Any] = np.asarray(landmarks, float).tolist()
    except (TypeError, ValueError):
        raise RequestError(
            f"Upscaler {name!r}: landmarks {shown(landmarks)}: expected for each face five (x, y),"
            " in pixels of this picture"
        ) from None
    return found
