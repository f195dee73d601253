"""The settings of one upscaling: what each may be, and the one place that checks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, FiniteFloat, StrictStr, TypeAdapter

from realkit.base.errors import RequestError
from realkit.base.suggest import instead
from realkit.catalog.lookup import Spec
from realkit.models import request

# The share of the noise schedule that a redraw repeats; an axis of a Sweep too.
Strength = Annotated[FiniteFloat, Field(strict=True, ge=0.001, le=1)]


def _points(landmarks: Any) -> Any:
    """Landmarks as plain lists, from lists or arrays."""
    import numpy as np

    try:
        return [np.asarray(face, float).tolist() for face in landmarks]
    except (TypeError, ValueError):
        raise ValueError("expected for each face five (x, y), in pixels of the picture") from None


class Settings(Spec):
    """The settings of one upscaling. None leaves a value to the upscaler, its model or the free
    memory. Numbers of pixels are of the small picture."""

    prompt: StrictStr | None = None
    negative: StrictStr | None = None
    seed: Annotated[request.Whole, Field(ge=0, lt=2**63)] = 0
    model: StrictStr | None = None  # that redraws
    strength: Strength = 0.3
    steps: Annotated[request.Whole, Field(ge=1, le=999)] | None = (
        None  # not 1000: steps have offsets
    )
    guidance: Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)] | None = None
    sampler: StrictStr | None = None
    # Noise added to what stable-diffusion-x4-upscaler sees, as a step of its schedule.
    noise_level: Annotated[request.Whole, Field(ge=0, le=350)] = 20
    # CodeFormer's fidelity: 1 is faithful to the picture, 0 to faces in general.
    weight: Annotated[FiniteFloat, Field(strict=True, ge=0, le=1)] = 0.5
    # For each face five (x, y), in the order of faces.TEMPLATE.
    landmarks: Annotated[list[Any], BeforeValidator(_points)] | None = None
    tile: Annotated[request.Whole, Field(ge=16)] | None = None
    overlap: Annotated[request.Whole, Field(ge=0, le=512)] | None = None
    pre_pad: Annotated[request.Whole, Field(ge=0, le=64)] | None = None


_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(field.rebuild_annotation()) for name, field in Settings.model_fields.items()
}


def check_names(names: Mapping[str, Any]) -> None:
    """Raise RequestError for a name that is no setting."""
    if unknown := [name for name in names if name not in Settings.model_fields]:
        end = instead(unknown[0], Settings.model_fields, "some")
        raise RequestError(f"Unknown setting {unknown[0]!r} of an upscaler{end}")


def checked(values: Mapping[str, Any]) -> Settings:
    """The values as Settings, a sampler by its name in the table. Raises RequestError, in the words
    of a Sweep, for the first wrong one."""
    check_names(values)
    return Settings(
        **{name: request.checked(name, value, _ADAPTERS[name]) for name, value in values.items()}
    )
