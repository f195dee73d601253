"""Upscalers behind one verb: resampling, networks, diffusion, restorers of faces, alone or in chains, to the exact size asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from realkit import downloads, hub, models, mounts, pictures, tokens
from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find, one_line, shown
from realkit.samplers import SAMPLERS

if TYPE_CHECKING:
    from realkit.sweep import Cell

ORIGINAL = "realesrgan:"  # before a name: by the realesrgan package instead of spandrel
SINGLES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
NETWORKS = ("spandrel", "transformers", "realesrgan")
DETECTOR = "opencv/face_detection_yunet/face_detection_yunet_2023mar.onnx"
USES = Literal["model", "prompt", "negative", "seed", "strength", "steps", "guidance", "sampler", "noise_level", "weight"]


class Upscaler(Spec):
    engine: Literal["resample", "opencv", "spandrel", "transformers", "realesrgan", "diffusers-x4", "diffusers-latent", "redraw", "faces"]
    source: str = ""
    file: str = ""  # its name where only a page is known, from which a person gets it
    page: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    architecture: str = ""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    pre_pad: Annotated[int, Field(ge=0, le=64)] = 0  # pixels added by reflection before a network and cut off after it
    uses: tuple[USES, ...] = ()  # the settings that a result depends on
    tflop: float = 0.0  # 10¹² operations a megapixel of input
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"
    about: str = ""
    aliases: tuple[str, ...] = ()


class Settings(Spec):
    """What can be said beside a picture, an upscaler and a size; what is left out is the upscaler's own. Numbers of pixels are of the small picture."""

    prompt: str | None = None
    negative: str | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    model: str | None = None
    strength: Annotated[FiniteFloat, Field(strict=True, ge=0.001, le=1)] = 0.3  # of a redraw: the share of the noise schedule that is gone through again
    steps: Annotated[int, Field(strict=True, ge=1, le=999)] | None = None
    guidance: Annotated[FiniteFloat, Field(strict=True, ge=0, le=100)] | None = None
    sampler: str | None = None
    noise_level: Annotated[int, Field(strict=True, ge=0, le=350)] = 20
    weight: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.5  # of CodeFormer: 1 is faithful to the picture, 0 to faces in general
    landmarks: list[Any] | None = None  # a face each: five (x, y), as faces.TEMPLATE orders them
    tile: Annotated[int, Field(strict=True, ge=16)] | None = None
    overlap: Annotated[int, Field(strict=True, ge=0, le=512)] | None = None
    pre_pad: Annotated[int, Field(strict=True, ge=0, le=64)] | None = None


UPSCALERS: Table[Upscaler] = Table("upscaler", Upscaler)


def chain(name: str) -> list[tuple[str, Upscaler]]:
    """The tools of an upscaler, "A + B" in their order: each its catalogue name or, for a weight file, its reference, with its entry. Raises RequestError."""
    name = str(name) if isinstance(name, Path) else name
    if not isinstance(name, str):
        return [(find(UPSCALERS, name), Upscaler(engine="resample"))]  # raises
    parts = [name] if name in UPSCALERS or _exists(name) else [part.strip() for part in re.split(r"\s\+(?:\s|$)", name)]
    return [_tool(part) for part in parts]


def _tool(name: str) -> tuple[str, Upscaler]:
    if name.startswith(ORIGINAL):
        known, spec = _tool(name.removeprefix(ORIGINAL).strip())
        if spec.engine != "spandrel":
            raise RequestError(f"Upscaler {shown(name)}: the realesrgan package runs RRDBNet and Compact weights, {known!r} is of engine {spec.engine!r}")
        return ORIGINAL + known, spec.model_copy(update={"engine": "realesrgan"})
    if tokens.holds_secret(name):
        raise RequestError(f"Upscaler {tokens.scrub(name)!r} holds a secret, which would be written into every row: leave it out")
    if name in UPSCALERS:
        return name, UPSCALERS[name]
    try:
        known = find(UPSCALERS, name)
        return known, UPSCALERS[known]
    except RequestError:
        if not name or not _is_reference(name):
            raise
    ref = hub.plain(name)
    if listed := next((known for known, spec in UPSCALERS.items() if spec.source and ref == spec.source), None):
        return listed, UPSCALERS[listed]
    single = Path(ref.partition("?")[0]).suffix.lower() in SINGLES or (_exists(ref) and Path(ref).expanduser().is_file())
    return name, Upscaler(engine="spandrel" if single else "transformers", source=ref)


def _is_reference(name: str) -> bool:
    if name.startswith(("/", ".", "~", "kaggle:", "http://", "https://", hub.PACKAGE)) or hub.HUB_FILE.match(name) or hub.HUB_ID.match(name):
        return True
    return Path(name).suffix.lower() in SINGLES or _exists(name)


def _exists(name: str) -> bool:
    try:
        return bool(name.strip()) and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long to be one, of nobody's home, or with a null in it
        return False


def canonical(name: str) -> str:
    """An upscaler's name as the catalogue spells it, chains too. Raises RequestError for an unknown one, and for a wrong entry."""
    found = chain(name)
    for known, spec in found:
        _check(known, spec)
    return " + ".join(known for known, _ in found)


def _check(name: str, spec: Upscaler) -> None:
    from PIL import Image

    if spec.engine == "resample" and spec.source not in Image.Resampling.__members__:
        raise RequestError(f"Upscaler {name!r} has the source {spec.source!r}: expected a filter, one of {', '.join(Image.Resampling.__members__)}")
    if spec.engine == "opencv" and not spec.source.startswith("INTER_"):
        raise RequestError(f"Upscaler {name!r} has the source {spec.source!r}: expected an interpolation of OpenCV's, such as INTER_LANCZOS4")
    elsewhere = hub.HUB_FILE.match(spec.source) or spec.source.startswith(("http://", "https://"))
    if Path(spec.source).suffix.lower() in SINGLES and not elsewhere and hub.local(spec.source) is None:
        raise RequestError(
            f"Upscaler file {shown(spec.source)} is not there: expected a catalogue name (realkit list upscalers), a hub file, or an existing file"
        )


def uses(name: str) -> set[str]:
    """The settings that an upscaler's result depends on."""
    return {setting for _, spec in chain(name) for setting in spec.uses}


def tflop(name: str, size: tuple[int, int]) -> float:
    """Operations, in 10¹², of enlarging a picture of this size once, as far as the entries say."""
    return sum(spec.tflop for _, spec in chain(name)) * size[0] * size[1] / 1e6


def checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an upscaler that were given, each as it should be. Raises RequestError for one that is none, or that no tool of it uses."""
    said = {key: value for key, value in given.items() if value is not None}
    if unknown := [key for key in said if key not in Settings.model_fields]:
        raise RequestError(f"Unknown setting {unknown[0]!r} of an upscaler: expected some of {', '.join(Settings.model_fields)}")
    specs = [spec for _, spec in chain(name)]
    known: set[str] = {"prompt", "seed", *(use for spec in specs for use in spec.uses)}
    known |= {"tile", "overlap", "pre_pad"} if any(spec.engine in NETWORKS for spec in specs) else set()
    known |= {"landmarks"} if any(spec.engine == "faces" for spec in specs) else set()
    if idle := [key for key in said if key not in known]:
        raise RequestError(f"Upscaler {name!r} does not use {idle[0]!r}: expected some of {', '.join(sorted(known))}")
    if "landmarks" in said:
        said["landmarks"] = _points(name, said["landmarks"])
    try:
        found = Settings(**said)
    except ValidationError as error:
        raise RequestError(f"Upscaler {name!r}: {one_line(error)}") from None
    if found.sampler is not None:
        find(SAMPLERS, found.sampler)
    if any(spec.engine in ("redraw", "diffusers-x4") for spec in specs) and not (found.prompt or "").strip():
        raise RequestError(f"Upscaler {name!r} draws what a prompt says, and was given none: expected prompt=, such as the one that made the picture")
    return {key: getattr(found, key) for key in said}


def _points(name: str, landmarks: Any) -> list[Any]:
    """Landmarks as plain lists, from lists or arrays."""
    import numpy as np

    try:
        found: list[Any] = np.asarray(landmarks, float).tolist()
    except (TypeError, ValueError):
        raise RequestError(f"Upscaler {name!r}: landmarks {shown(landmarks)}: expected for each face five (x, y), in pixels of this picture") from None
    return found


# --- what determines a result -----------------------------------------------------------------------------------------


def lock(name: str) -> dict[str, hub.Lock]:
    """The references of an upscaler's tools, resolved once: by tool; those without weights are left out. Raises RequestError."""
    return {known: found for known, spec in chain(name) if (found := _locked(known, spec))}


def _locked(name: str, spec: Upscaler) -> hub.Lock | None:
    if spec.engine in ("resample", "opencv", "redraw"):
        return None
    source = spec.source or _by_hand(name, spec)
    with hub.reading_pickles():
        if spec.sha256 and source.startswith(("http://", "https://")):
            return hub.Lock(source, "url", files={hub.SINGLE: spec.sha256})
        there = hub.local(source) if not source.startswith(("http://", "https://")) else None
        if there and there.is_dir() and not any((there / name).is_file() for name in ("config.json", "model_index.json")):
            raise RequestError(f"Upscaler {name!r}: the folder {shown(source)} has no config.json: expected a file of weights, or a folder of Swin2SR's")
        try:
            found = hub.lock(source, weights=True)
        except RequestError as error:
            raise RequestError(f"Upscaler {name!r}: {error}") from None
    wanted = spec.engine in ("spandrel", "realesrgan", "faces")
    if found.single != wanted:
        raise RequestError(f"Upscaler {name!r} has the source {source!r}: expected {'one file of weights' if wanted else 'a folder with its config.json'}")
    if spec.sha256 and found.single and found.files[hub.SINGLE] != spec.sha256:
        raise RequestError(
            f"Upscaler {name!r}: {source!r} does not have the published SHA-256 {spec.sha256[:12]}…: get it again from {spec.page or 'its page'}"
        )
    return found


def _by_hand(name: str, spec: Upscaler) -> str:
    """Where a file lies that a person had to fetch."""
    kept = downloads.folder("upscalers") / spec.file
    found = mounts.file(spec.file, "") if spec.file else None
    if spec.file and (kept.is_file() or found):
        return str(kept if kept.is_file() else found)
    raise RequestError(f"Upscaler {name!r} must be downloaded by hand: from {spec.page}, the file {spec.file!r}, put into {str(kept.parent)!r}")


def determined(name: str, settings: Mapping[str, Any] | None = None, locks: Mapping[str, hub.Lock] | None = None, model: models.ModelLock | None = None) -> Any:
    """What determines an upscaler's result: of each tool the engine, the weights, and the settings it uses; and how the exact size is come by.

    `locks` are those of `lock`, made anew where they are left out; `model` is the lock of the model that redraws.
    """
    given = Settings(**settings or {})
    locks = lock(name) if locks is None else locks
    return {"tools": [_of_tool(known, spec, given, locks, model) for known, spec in chain(name)], "finish": pictures.FINISH}


def _of_tool(name: str, spec: Upscaler, given: Settings, locks: Mapping[str, hub.Lock], model: models.ModelLock | None) -> dict[str, Any]:
    found: dict[str, Any] = {"engine": spec.engine}
    if name in locks:
        found["weights"] = locks[name].fingerprint
    elif spec.engine != "redraw":
        found["filter"] = spec.source
    if spec.engine == "realesrgan" and given.tile:  # whose tiles show
        found["tiles"] = [given.tile, given.overlap]
    elif given.overlap is not None and spec.engine in NETWORKS:  # else it covers what the network sees
        found["overlap"] = given.overlap
    if spec.engine in NETWORKS:
        found["pre_pad"] = spec.pre_pad if given.pre_pad is None else given.pre_pad
    if spec.engine == "faces":
        found |= {"detector": DETECTOR} if given.landmarks is None else {"landmarks": given.landmarks}
    if "model" in spec.uses:
        model = redraws_with(name, spec, given, model)
    unguided = spec.engine == "diffusers-latent" and not given.guidance  # its default is none: words then change nothing
    guided = given.guidance if given.guidance is not None or not model else model.spec.settings.guidance
    idle = {"prompt", "negative"} if unguided else {"negative", "guidance"} if spec.engine == "redraw" and guided is not None and guided <= 1 else set()
    for setting in spec.uses:
        if setting in idle:
            found[setting] = None
            continue
        value = getattr(given, setting)
        if value is None and model and setting in type(model.spec.settings).model_fields:
            value = getattr(model.spec.settings, setting)
        if setting == "model" and model:
            found["model"] = {
                **model.fingerprint,
                "vae": model.vae_fingerprint,
                "family": model.spec.family,
                "scheduler": model.scheduler,
                "tile": model.spec.size,
            }
        elif setting == "sampler" and value is not None:
            found["sampler"] = [find(SAMPLERS, value), SAMPLERS[find(SAMPLERS, value)].determined]
        else:
            found[setting] = value
    return found


def redraws_with(name: str, spec: Upscaler, given: Settings, model: models.ModelLock | None = None) -> models.ModelLock:
    """The model that a redraw is made by: the one asked for, else the entry's own, else that of the picture. Raises RequestError where there is none."""
    if asked := given.model or spec.source:
        return models.lock(asked)
    if model is None:
        raise RequestError(f"Upscaler {name!r} redraws with a model: say which, model=NAME (realkit list models)")
    return model


def settings_of(cell: Cell) -> dict[str, Any]:
    """What a cell's upscaler is given: the cell's own settings, as far as the upscaler uses them."""
    found = {"prompt": cell.prompt, "negative": cell.negative, "seed": cell.seed, "strength": cell.strength}
    specs = [spec for _, spec in chain(str(cell.upscaler))]
    if any(spec.engine == "redraw" for spec in specs):  # which goes on with what made the picture
        found |= {"steps": cell.steps, "guidance": cell.guidance, "sampler": cell.sampler}
    used = {use for spec in specs for use in spec.uses}
    return {key: value for key, value in found.items() if key in used and value is not None}


def of_cell(cell: Cell, locks: Mapping[str, Mapping[str, hub.Lock]], model: models.ModelLock) -> Any:
    """What determines how a cell's picture is enlarged; None where it is not."""
    if cell.upscaler is None:
        return None
    return determined(cell.upscaler, settings_of(cell), locks[cell.upscaler], model)
