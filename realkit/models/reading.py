"""`rk.info`: what a picture says of itself, in the words of whichever program wrote it."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import infotext, metadata, pictures
from realkit.base.exif import ASCII, GPS, MAIN, PRIVATE, Block, comment_text
from realkit.base.metadata import PARAMETERS, Metadata
from realkit.models import comfyui, provenance

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSLESS = ("PNG", "TIFF", "BMP")
# Texts by which other programs are known, where they write no infotext.
OF_OTHERS = {
    "invokeai_metadata": "InvokeAI", "sd-metadata": "InvokeAI", "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}  # fmt: skip
NUMBERS = {3: "H", 4: "I", 8: "h", 9: "i", 11: "f", 12: "d"}  # of TIFF, as `struct` names them
FRACTIONS = {5: "I", 10: "i"}
SHORTEST_BLOB = 64  # bytes of EXIF that are no text or number, from which only their size is told


def info(picture: str | Path | Image) -> dict[str, Any]:
    """What a picture, or the file at a path, says of itself, as values of JSON.

    Always there: `file`, `format`, `width`, `height`, `made_by` ("unknown" where nothing says it),
    `prompt`, `negative`, `settings` (A1111's words and texts; a cell's own names and numbers where
    realkit made it; ComfyUI's first sampler), and `lost`, what could not be read. Where the file
    has them: `realkit` (the whole record) with `cell` and, of a format without loss, `unchanged`;
    `comfyui` with `prompt` and `workflow`; `exif` by name; `dpi`; `profile`; `texts`, all others.

    Raises RequestError for a file that cannot be read.
    """
    if isinstance(picture, (str, Path)):
        return {"file": str(picture)} | _info(pictures.read(picture))
    pictures.check_picture(picture)
    return {"file": None} | _info(picture)


def _info(image: Image) -> dict[str, Any]:
    about = metadata.of(image)
    texts = dict(about.texts)
    record = provenance.read(texts.pop(provenance.CHUNK, ""))
    graphs = comfyui.graphs(texts) or comfyui.of_comment(comment_text(about.exif.comment))
    words = texts.get(PARAMETERS, "")
    told = infotext.parsed(words) if infotext.is_infotext(words) else infotext.Infotext()
    exif = _named(about.exif)
    prompt, negative, settings = told.prompt, told.negative, told.settings
    cell = record.get("cell") or _earlier(record)
    if cell:
        prompt, negative = cell["prompt"], cell["negative"]
        settings = {key: cell[key] for key in cell if key not in ("prompt", "negative")}
    elif not settings and graphs:
        prompt, negative, settings = comfyui.settings(graphs.get("prompt", {}))
    facts: dict[str, Any] = {
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "made_by": _made_by(record, told, texts, graphs, exif),
        "prompt": prompt,
        "negative": negative,
        "settings": settings,
    }
    if record:
        facts |= {"cell": record.get("cell"), "realkit": record}
        if image.format in LOSSLESS and "pixels" in record:
            facts["unchanged"] = provenance.pixel_hash(image) == record["pixels"]
    for key, value in (
        ("comfyui", graphs),
        ("exif", exif),
        ("dpi", about.dpi and list(about.dpi)),
        ("profile", _profile(about)),
        ("comment", about.comment.decode("utf-8", "replace")),
        ("texts", texts),
    ):
        if value:
            facts[key] = value
    return facts | {"lost": list(about.lost)}


def _earlier(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The cell of the picture that an enlargement was made from, where it is none itself."""
    before = record.get("before")
    while isinstance(before, dict) and provenance.believable(before):
        if before.get("cell"):
            return dict(before["cell"])
        before = before.get("before")
    return None


def _made_by(
    record: Mapping[str, Any],
    told: infotext.Infotext,
    texts: Mapping[str, str],
    graphs: Mapping[str, Any],
    exif: Mapping[str, Any],
) -> str:
    """The program, or the camera, that a picture is of."""
    if record:
        made = record.get("made")
        version = made.get("realkit", "") if isinstance(made, dict) else ""
        return f"realkit {version}".strip()
    if told.settings:
        return _interface(told.settings)
    if graphs:
        return "Civitai" if comfyui.CIVITAI in graphs.get("prompt", {}) else "ComfyUI"
    if texts.get("Software") == "NovelAI":
        return "NovelAI"
    for name, program in OF_OTHERS.items():
        if name in texts:
            return program
    camera = [str(exif[name]) for name in ("Make", "Model") if exif.get(name)]
    if camera:
        return f"camera: {' '.join(camera)}"
    return str(exif.get("Software") or texts.get("Software") or "unknown")


def _interface(settings: Mapping[str, Any]) -> str:
    """The web interface that wrote an infotext."""
    version = str(settings.get("Version", ""))
    if any(str(key).startswith("Civitai") for key in settings):
        return "Civitai"
    if "App" in settings:  # SD.Next
        return f"{settings['App']} {version}".strip()
    if version.startswith("f") and version[1:2].isdigit():
        return f"Forge {version}"
    if version and not (version.startswith("v") and version[1:2].isdigit()):
        return version
    return f"stable-diffusion-webui (A1111) {version}".strip()


def _profile(about: Metadata) -> str:
    """The name of a colour profile."""
    from PIL import ImageCms

    if not about.profile:
        return ""
    try:
        return str(ImageCms.getProfileDescription(io.BytesIO(about.profile))).strip()
    except Exception:  # Pillow's and littlecms' own
        return "one that cannot be read"


def _named(block: Block) -> dict[str, Any]:
    """EXIF's values by name."""
    from PIL import ExifTags

    values: dict[str, Any] = {}
    tags = {MAIN: ExifTags.TAGS, PRIVATE: ExifTags.TAGS, GPS: ExifTags.GPSTAGS}
    for directory, names in tags.items():
        for tag, (kind, data) in block.directories.get(directory, {}).items():
            name = names.get(tag, f"{tag:#06x}")
            values[name] = _value(block.order, kind, data)
    if comment := comment_text(block.comment):
        values["UserComment"] = comment
    return values


def _value(order: str, kind: int, data: bytes) -> Any:
    """A value of TIFF as one of JSON: a text, a number, or a list of numbers."""
    if kind == ASCII:
        return data.rstrip(b"\0").decode("utf-8", "replace").strip()
    numbers: list[Any] = []
    if kind in NUMBERS:
        width = struct.calcsize(NUMBERS[kind])
        for number in struct.unpack(f"{order}{len(data) // width}{NUMBERS[kind]}", data):
            numbers.append(number if math.isfinite(number) else None)
    elif kind in FRACTIONS:
        parts = struct.unpack(f"{order}{len(data) // 4}{FRACTIONS[kind]}", data)
        for above, below in zip(parts[::2], parts[1::2], strict=True):
            numbers.append(round(above / below, 6) if below else None)
    elif len(data) > SHORTEST_BLOB:
        return f"{len(data)} bytes"
    else:
        text = data.rstrip(b"\0").decode("latin-1")
        return text if text.isprintable() else data.hex()
    return numbers[0] if len(numbers) == 1 else numbers
