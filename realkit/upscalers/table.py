"""The catalogue of upscalers: an entry for each, whose engine computes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from realkit.base.suggest import instead
from realkit.catalog.lookup import Spec, Table
from realkit.upscalers.settings import Settings

# The hub file of the weights that find faces.
DETECTOR = "opencv/face_detection_yunet/face_detection_yunet_2023mar.onnx"


def _known_settings(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - set(Settings.model_fields)):
        end = instead(unknown[0], Settings.model_fields, "some")
        raise ValueError(f"unknown setting {unknown[0]!r}{end}")
    return names


class Upscaler(Spec):
    """An entry of the catalogue. `scale` multiplies a side in one pass: 1 where nothing grows."""

    engine: str  # a row of engines.ENGINES
    source: str = ""  # a filter's name, or a reference to weights
    file: str = ""  # the weights' name where a person must download them from `page`
    page: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""  # as published
    architecture: str = ""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    # Pixels added by reflection before a network and cut off after it.
    pre_pad: Annotated[int, Field(ge=0, le=64)] = 0
    # Settings that determine the result, beside those that the engine always uses.
    uses: Annotated[tuple[str, ...], AfterValidator(_known_settings)] = ()
    tflop: float = 0.0  # 10¹² operations a megapixel of input
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    unverified: str = ""  # what of the entry could not be looked up
    about: str = ""
    aliases: tuple[str, ...] = ()


UPSCALERS: Table[Upscaler] = Table("upscaler", Upscaler)
