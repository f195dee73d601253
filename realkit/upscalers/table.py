"""Upscalers behind one verb: resampling, networks, diffusion, restorers of faces, alone or in
chains, to the exact size asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from realkit.base import credentials
from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import Spec, Table, find
from realkit.weights import reference
from realkit.weights.sources import disk

ORIGINAL = "realesrgan:"  # before a name: by the realesrgan package instead of spandrel
NETWORKS = ("spandrel", "transformers", "realesrgan")
DETECTOR = "opencv/face_detection_yunet/face_detection_yunet_2023mar.onnx"
USES = Literal[
    "model",
    "prompt",
    "negative",
    "seed",
    "strength",
    "steps",
    "guidance",
    "sampler",
    "noise_level",
    "weight",
]


class Upscaler(Spec):
    engine: Literal[
        "resample",
        "opencv",
        "spandrel",
        "transformers",
        "realesrgan",
        "diffusers-x4",
        "diffusers-latent",
        "redraw",
        "faces",
    ]
    source: str = ""
    file: str = ""  # its name where only a page is known, from which a person gets it
    page: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    architecture: str = ""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    pre_pad: Annotated[int, Field(ge=0, le=64)] = (
        0  # pixels added by reflection before a network and cut off after it
    )
    uses: tuple[USES, ...] = ()  # the settings that a result depends on
    tflop: float = 0.0  # 10¹² operations a megapixel of input
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    about: str = ""
    aliases: tuple[str, ...] = ()


UPSCALERS: Table[Upscaler] = Table("upscaler", Upscaler)


def chain(name: str) -> list[tuple[str, Upscaler]]:
    """The tools of an upscaler, "A + B" in their order: each its catalogue name or, for a weight
    file, its reference, with its entry. Raises RequestError."""
    name = str(name) if isinstance(name, Path) else name
    if not isinstance(name, str):
        return [(find(UPSCALERS, name), Upscaler(engine="resample"))]  # raises
    parts = (
        [name]
        if name in UPSCALERS or reference.existing_path(name)
        else [part.strip() for part in re.split(r"\s\+(?:\s|$)", name)]
    )
    return [_tool(part) for part in parts]


def _tool(name: str) -> tuple[str, Upscaler]:
    if name.startswith(ORIGINAL):
        known, spec = _tool(name.removeprefix(ORIGINAL).strip())
        if spec.engine != "spandrel":
            raise RequestError(
                f"Upscaler {shown(name)}: the realesrgan package runs RRDBNet and Compact weights,"
                f" {known!r} is of engine {spec.engine!r}"
            )
        return ORIGINAL + known, spec.model_copy(update={"engine": "realesrgan"})
    if credentials.holds_secret(name):
        raise RequestError(
            f"Upscaler {credentials.scrub(name)!r} holds a secret, which would be written into"
            " every row: leave it out"
        )
    if name in UPSCALERS:
        return name, UPSCALERS[name]
    try:
        known = find(UPSCALERS, name)
        return known, UPSCALERS[known]
    except RequestError:
        ref = reference.parse(name)
        if ref.kind == "name" and not reference.existing_path(name):
            raise
    source = str(ref)
    for known, spec in UPSCALERS.items():
        if source == spec.source:
            return known, spec
    path = reference.existing_path(source)
    single = ref.single or (path and path.is_file())
    return name, Upscaler(engine="spandrel" if single else "transformers", source=source)


def canonical(name: str) -> str:
    """An upscaler's name as the catalogue spells it, chains too. Raises RequestError for an unknown
    one, and for a wrong entry."""
    found = chain(name)
    for known, spec in found:
        _check(known, spec)
    return " + ".join(known for known, _ in found)


def _check(name: str, spec: Upscaler) -> None:
    from PIL import Image

    if spec.engine == "resample" and spec.source not in Image.Resampling.__members__:
        raise RequestError(
            f"Upscaler {name!r} has the source {spec.source!r}: expected a filter, one of"
            f" {', '.join(Image.Resampling.__members__)}"
        )
    if spec.engine == "opencv" and not spec.source.startswith("INTER_"):
        raise RequestError(
            f"Upscaler {name!r} has the source {spec.source!r}: expected an interpolation of"
            " OpenCV's, such as INTER_LANCZOS4"
        )
    ref = reference.parse(spec.source)
    on_disk = ref.single and ref.kind not in ("hub", "url", "civitai")
    if on_disk and disk.local(spec.source) is None:
        raise RequestError(
            f"Upscaler file {shown(spec.source)} is not there: expected a catalogue name (realkit"
            " list upscalers), a hub file, or an existing file"
        )


def uses(name: str) -> set[str]:
    """The settings that an upscaler's result depends on."""
    return {setting for _, spec in chain(name) for setting in spec.uses}


def tflop(name: str, size: tuple[int, int]) -> float:
    """Operations, in 10¹², of enlarging a picture of this size once, as far as the entries say."""
    return sum(spec.tflop for _, spec in chain(name)) * size[0] * size[1] / 1e6
