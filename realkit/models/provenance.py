"""The record in each picture: parameters that web interfaces read, and all as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from realkit.base import infotext, metadata
from realkit.base.files import LENIENT, too_deep
from realkit.base.libraries import versions
from realkit.base.metadata import PARAMETERS
from realkit.base.version import __version__
from realkit.samplers.table import LABELS, SAMPLERS
from realkit.weights.lock import SINGLE

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models.lock import ModelLock

CHUNK = "realkit"
# Our schedules that A1111 1.10 lists. It reads any other from a key that it does not know, and so
# ignores: its own key would make it draw with a schedule of another name.
OF_A1111 = ("uniform", "karras", "exponential", "sgm_uniform", "beta")
OTHER_SCHEDULE = "Realkit schedule"
POSTPROCESSING = "postprocessing"  # A1111's text of an upscaling without `parameters`
UPSCALED_TO, UPSCALER = "Postprocess upscale to", "Postprocess upscaler"
WORDS = ("model", "sampler", "prompt", "negative")  # of a cell
NUMBERS = ("seed", "steps", "guidance", "width", "height")
FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def parameters(settings: Mapping[str, Any], model_hash: str = "") -> str:
    """The text of A1111's `parameters`, with its keys in its order.

    `Size` is the native size, as A1111 has it: the size to draw at. `model_hash` is left out where
    it is empty.
    """
    values: dict[str, Any] = {"Steps": settings["steps"], **_sampler(settings["sampler"])}
    values["CFG scale"] = infotext.number(settings["guidance"])
    values["Seed"] = settings["seed"]
    values["Size"] = f"{settings['width']}x{settings['height']}"
    if model_hash:
        values["Model hash"] = model_hash
    values["Model"] = _name(settings["model"])
    values["Version"] = f"realkit {__version__}"
    return str(infotext.Infotext(settings["prompt"], settings["negative"], values))


def _sampler(name: str) -> dict[str, str]:
    """A sampler and its schedule, which A1111 writes apart."""
    spec = SAMPLERS.get(name)
    if spec is None:
        return {"Sampler": name}
    label = LABELS[spec.schedule]
    plain = name.removesuffix(label).strip()
    if spec.solver and spec.schedule in OF_A1111:
        return {"Sampler": plain, "Schedule type": label or "Uniform"}
    return {"Sampler": plain} | ({OTHER_SCHEDULE: label} if plain != name else {})


def _name(name: str) -> str:
    """A model's or an upscaler's name; a file's without folder and ending, as A1111 has it."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in FILES else name


def model_hash(lock: ModelLock) -> str:
    """A1111's `Model hash`: the first 10 digits of the SHA-256 of a checkpoint's file.

    "" for a folder, of which no other program has a hash, and where another file than the
    checkpoint denoises.
    """
    if not lock.main.single or lock.family.denoiser in lock.parts:
        return ""
    return lock.main.files[SINGLE][:10]


def made_with(device: torch.device, **more: Any) -> dict[str, Any]:
    """What a picture was made with, none of which determines it: versions, device, threads, and
    `more`, such as the size of its batch."""
    import torch

    made: dict[str, Any] = {"realkit": __version__, "versions": versions(), "device": device.type}
    if device.type == "cuda":
        made["card"] = torch.cuda.get_device_name(device)
    return made | {"threads": torch.get_num_threads()} | more


def annotate(image: Image, record: Mapping[str, Any]) -> Image:
    """Note in a picture in memory what made it; `record["cell"]` holds its settings.

    Without a cell, the `parameters` that it has are kept. Of an enlarged picture they say how and
    to which size; where it has none, A1111's text `postprocessing` does.
    """
    info = image.info
    if record.get("cell"):
        info[PARAMETERS] = parameters(record["cell"], record.get("model_hash", ""))
    if record["stage"] == "upscale":
        place = POSTPROCESSING
        if infotext.is_infotext(str(info.get(PARAMETERS, ""))):
            place = PARAMETERS
        info[place] = _upscaled(str(info.get(place, "")), record["upscaler"], image.size)
    info[CHUNK] = json.dumps(record, ensure_ascii=False, sort_keys=True)
    return image


def _upscaled(text: str, upscaler: str, size: tuple[int, int]) -> str:
    """A text with an upscaling at its end; upscalers that work in sequence are joined, as in a
    chain, which `upscaler` may be."""
    names = " + ".join(map(_name, upscaler.split(" + ")))
    if earlier := infotext.setting(text, UPSCALER):
        names = f"{earlier} + {names}"
    return infotext.with_settings(text, {UPSCALED_TO: f"{size[0]}x{size[1]}", UPSCALER: names})


def save(image: Image, file: IO[bytes]) -> None:
    """Write a PNG with what `annotate` noted in it, and what it had before."""
    file.write(metadata.png(image, metadata.of(image)))


def noted(image: Image) -> dict[str, Any]:
    """The record in a picture in memory, of whatever format; empty where realkit did not make
    it."""
    return read(metadata.of(image).texts.get(CHUNK, ""))


def read(text: str) -> dict[str, Any]:
    """The record in a text; empty for any other text."""
    try:
        record = LENIENT.decode(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(record, dict) or too_deep(record):
        return {}
    return record if believable(record) else {}


def believable(record: Mapping[str, Any]) -> bool:
    """Whether a record has the kinds of values that this kit writes: files may say anything."""
    cell = record.get("cell")
    if not isinstance(record.get("determined", {}), dict):
        return False
    return cell is None or (
        isinstance(cell, dict)
        and all(isinstance(cell.get(name), str) for name in WORDS)
        and all(type(cell.get(name)) in (int, float) for name in NUMBERS)
    )


def record(path: str | Path) -> dict[str, Any]:
    """The record in a PNG. Raises KeyError where realkit did not make it."""
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.text[CHUNK])  # type: ignore[attr-defined]


def pixel_hash(image: Image) -> str:
    """SHA-256 over size and RGB pixels, whatever else the picture's file holds."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
