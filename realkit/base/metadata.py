"""What a picture's file says beside its pixels, the same for PNG, JPEG and WebP: texts by name
(A1111's `parameters`, ComfyUI's `prompt` and `workflow`, our record), EXIF, resolution, profile.

PNG has a chunk for each text. JPEG and WebP have EXIF: `parameters` is the user's comment, as A1111
writes it; another text is a tag "NAME:TEXT", as ComfyUI writes it in WebP.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from realkit.base import exif as exifs
from realkit.base import infotext, spelling
from realkit.base.errors import one_line, shown
from realkit.base.exif import ASCII, MAIN, PRIVATE, UNDEFINED, Block
from realkit.base.pictures import frames, misread
from realkit.base.warn import warn_once

if TYPE_CHECKING:
    from PIL.Image import Image

PARAMETERS = "parameters"
XMP = ("xmp", "XML:com.adobe.xmp")  # Pillow's names for one thing, as bytes and as a text
RAW_EXIF = "Raw profile type exif"
NO_TEXT = (*XMP, RAW_EXIF, "compression", "srgb")  # texts in `info` of other kinds
COMMENT = "Comment"
OTHER_COMMENT = "UserComment"  # where the infotext takes the place of a camera's comment
# EXIF tags of ComfyUI's texts; other texts begin at OWN, in TIFF's range for private use.
OF_COMFYUI = {"workflow": 0x010F, "prompt": 0x0110}
OWN, LAST = 65_000, 65_535
MOST_EXIF, MOST_XMP, MOST_COMMENT = 65_533, 65_504, 65_533  # bytes of a JPEG's markers
MOST_DENSITY = 65_535  # dots an inch that a JPEG has a place for
ROUNDING = 2e-4  # share of a resolution that may be lost to whole dots an inch
# Tags of a TIFF file that say something of the picture, not of how the file holds its pixels.
ABOUT = (0x010E, 0x010F, 0x0110, exifs.ORIENTATION, 0x0131, 0x0132, 0x013B, 0x8298)
TURNED = re.compile(rb'(tiff:Orientation(?:="|>))\d')  # in XMP


@dataclass(frozen=True)
class Metadata:
    """What a picture says of itself. `dpi` is dots an inch (across, down); `lost` says in words
    what its file holds and nobody could read."""

    texts: dict[str, str] = field(default_factory=dict)
    exif: Block = field(default_factory=Block)
    dpi: tuple[float, float] | None = None
    profile: bytes = b""  # ICC
    xmp: bytes = b""
    comment: bytes = b""  # of JPEG and GIF
    lost: tuple[str, ...] = ()

    def info(self) -> dict[Any, Any]:
        """The same as Pillow keeps it in a picture's `info`."""
        info: dict[str, Any] = dict(self.texts)
        if self.exif:
            info["exif"] = self.exif.tobytes()
        for key, value in (
            ("dpi", self.dpi),
            ("icc_profile", self.profile),
            ("xmp", self.xmp),
            ("comment", self.comment),
        ):
            if value:
                info[key] = value
        return info

    def upright(self, size: tuple[int, int]) -> Metadata:
        """The same for the picture turned upright, at this size (width, height)."""
        block = self.exif.copy()
        if exifs.ORIENTATION in block.directories[MAIN]:
            block.short(MAIN, exifs.ORIENTATION, 1)
        for tag, *sides in exifs.PIXELS:
            for side, length in zip(sides, size, strict=True):
                if side in block.directories.get(tag, {}):
                    block.short(tag, side, length)
        return replace(self, exif=block, xmp=TURNED.sub(rb"\g<1>1", self.xmp))


def of(image: Image) -> Metadata:
    """What a picture in memory says of itself, wherever it was read or made."""
    info: dict[Any, Any] = dict(image.info)
    wrong = []
    for name in misread(image):
        wrong.append(f"its {name} {shown(info.pop(name))}, of another kind than Pillow's")
    texts = {}
    for name, value in info.items():
        if isinstance(name, str) and isinstance(value, str) and name not in NO_TEXT:
            spelled = spelling.name_of(name)
            texts[name if spelled in info else spelled] = str(value)
    block, lost = _block(image)
    lost += wrong
    for name, text in _texts(block).items():
        if texts.setdefault(name, text) != text:
            lost = [*lost, f"its EXIF's text {shown(name)}, beside another text of that name"]
    words = exifs.comment_text(block.comment)
    if words and PARAMETERS in texts and texts.get(OTHER_COMMENT, words) != words:
        lost = [*lost, "its camera's comment, beside `parameters` and a text 'UserComment'"]
    xmp = info.get(XMP[0]) or info.get(XMP[1]) or b""
    comment = info.get("comment") or b""
    if info.get("photoshop"):
        lost = [*lost, "its Photoshop block (IPTC), which realkit does not write"]
    count = frames(image)
    if count is None:
        lost = [*lost, "its other frames, if it has any: they could not be counted"]
    elif count > 1:
        lost = [*lost, "its other frames"]
    return Metadata(
        texts,
        block,
        _dpi(image, block),
        _bytes(info.get("icc_profile")),
        _bytes(xmp),
        _bytes(comment),
        tuple(lost),
    )


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _block(image: Image) -> tuple[Block, list[str]]:
    exif, raw = _bytes(image.info.get("exif")), image.info.get(RAW_EXIF)
    try:
        if isinstance(raw, str) and not exif:  # as ImageMagick writes it: three lines, then digits
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
        if not exif and len(own := image.getexif()):  # of a TIFF file, or set in memory
            block = exifs.read(own.tobytes())
            if image.format == "TIFF":
                block.remove(MAIN, set(block.directories[MAIN]) - set(ABOUT))
            return block, []
        return exifs.read(exif), []
    except Exception as error:  # BadExif, and what Pillow raises
        return Block(), [f"its EXIF block, which is damaged ({one_line(error, 100)})"]


def _texts(block: Block) -> dict[str, str]:
    """The texts in an EXIF block, which are taken out of it; what else it says stays."""
    texts = {}
    for tag in (*OF_COMFYUI.values(), *range(OWN, LAST + 1)):
        if tag not in block.directories[MAIN]:
            continue
        name, colon, text = block.text(tag).partition(":")
        # A camera's maker is no text: ComfyUI's are JSON.
        if colon and (tag >= OWN or (name in OF_COMFYUI and text.lstrip().startswith("{"))):
            if tag >= OWN:
                name, text = spelling.name_of(name), spelling.unescaped(text)
            texts[name] = text
            block.remove(MAIN, [tag])
    words = exifs.comment_text(block.comment)
    if block.comment and block.comment == _comment(texts.get(PARAMETERS, "")):
        block.remove(PRIVATE, [exifs.COMMENT])
    elif infotext.is_infotext(words):
        texts[PARAMETERS] = words
        block.remove(PRIVATE, [exifs.COMMENT])
    return texts


def _comment(parameters: str) -> bytes:
    return exifs.unicode_comment(spelling.writable(parameters))


def _dpi(image: Image, block: Block) -> tuple[float, float] | None:
    """Dots an inch, as the file says; in EXIF where the format has no other place for it."""
    info, own = image.info, block.resolution()
    # Of a JPEG without a density Pillow says 72, or EXIF's number whatever its unit.
    jpeg = image.format in ("JPEG", "MPO") or "jfif" in info
    if jpeg and info.get("jfif_unit") not in (1, 2):
        numbers = (72, block.rational(exifs.X_RESOLUTION), own and own[0])
        if info.get("dpi") in [(number, number) for number in numbers]:
            return own
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError):
        across, down = own or (0.0, 0.0)
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def say_lost(metadata: Metadata) -> None:
    """Say, once, what will not be in what is made of a picture."""
    for what in metadata.lost:
        warn_once(f"realkit: the picture loses {what}")


def png(image: Image, metadata: Metadata) -> bytes:
    """The PNG of a picture with all of its metadata."""
    from PIL.PngImagePlugin import PngInfo

    metadata = _comment_moved(metadata)
    chunks = PngInfo()
    for name, text in _by_chunk(_with_comment(metadata)).items():
        chunks.add_text(name, spelling.writable(text))
    if metadata.xmp:
        chunks.add_itxt(XMP[1], metadata.xmp.decode("utf-8", "replace"))
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = metadata.exif.tobytes()
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    file = io.BytesIO()
    image.save(
        file, "png", pnginfo=chunks, compress_level=4, icc_profile=metadata.profile, **options
    )
    return file.getvalue()


def _comment_moved(metadata: Metadata) -> Metadata:
    """The same with a camera's comment as a text where there are `parameters`: A1111 reads a user's
    comment first, in a PNG too."""
    if PARAMETERS not in metadata.texts or not metadata.exif.comment:
        return metadata
    block = metadata.exif.copy()
    block.remove(PRIVATE, [exifs.COMMENT])
    texts = {OTHER_COMMENT: exifs.comment_text(metadata.exif.comment), **metadata.texts}
    return replace(metadata, texts=texts, exif=block)


def _with_comment(metadata: Metadata) -> dict[str, str]:
    """The texts, with the comment among them where the format has no other place for it."""
    texts, comment = dict(metadata.texts), metadata.comment.decode("utf-8", "replace")
    if comment and texts.setdefault(COMMENT, comment) != comment:
        warn_once("realkit: the picture loses its comment, beside a text 'Comment'")
    return texts


def _by_chunk(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts by the names of their PNG chunks, which have 1 to 79 letters of Latin-1."""
    chunks: dict[str, str] = {}
    for name, text in texts.items():
        spelled = spelling.name_in(spelling.LATIN, name)
        chunk = spelled[: spelling.LONGEST] or COMMENT
        if chunk in chunks:
            warn_once(
                f"realkit: the picture loses its text {shown(name)}: PNG has another {chunk!r}"
            )
            continue
        if chunk != spelled:
            warn_once(f"realkit: PNG cannot hold the name {shown(name)} of a text: it is {chunk!r}")
        chunks[chunk] = text
    return chunks


def jpeg(image: Image, metadata: Metadata, quality: int) -> bytes:
    """The JPEG of an RGB, grey or CMYK picture; colours at full resolution. What its markers cannot
    hold is left out, and said."""
    options: dict[str, Any] = {}
    whole = metadata.dpi is None or _is_whole(metadata.dpi)
    if metadata.dpi and whole:
        options["dpi"] = tuple(round(side) for side in metadata.dpi)
    # Without a comment of its own, Pillow would write that of `info`.
    options |= {"xmp": metadata.xmp, "comment": metadata.comment}
    for name, most in (("xmp", MOST_XMP), ("comment", MOST_COMMENT)):
        if len(options[name]) > most:
            _say_left_out("JPEG", f"its {name}", len(options[name]))
            options[name] = b""
    file = io.BytesIO()
    image.save(
        file,
        "jpeg",
        quality=quality,
        subsampling=0,
        exif=_exif(metadata, MOST_EXIF, resolution=not whole),
        icc_profile=metadata.profile,
        **options,
    )
    return file.getvalue()


def _is_whole(dpi: tuple[float, float]) -> bool:
    """Whether a JPEG's own place holds this resolution, which EXIF holds otherwise."""
    for side in dpi:
        number = round(side)
        if not 1 <= number <= MOST_DENSITY or abs(number - side) > ROUNDING * side:
            return False
    return True


def webp(image: Image, metadata: Metadata, quality: int) -> bytes:
    """The WebP of an RGB or RGBA picture; at a quality of 100 without loss."""
    texts = _with_comment(metadata)
    file = io.BytesIO()
    image.save(
        file,
        "webp",
        quality=quality,
        lossless=quality == 100,
        exact=True,
        exif=_exif(replace(metadata, texts=texts), None, resolution=True),
        xmp=metadata.xmp,
        icc_profile=metadata.profile,
    )
    return file.getvalue()


def _say_left_out(kind: str, what: str, size: int) -> None:
    others = "PNG or WebP" if kind == "JPEG" else "PNG"  # WebP has EXIF too
    warn_once(
        f"realkit: {kind} cannot hold {what} ({size / 1000:.0f} kB): it is left out of the file."
        f" Save as {others} to keep it"
    )


def _exif(metadata: Metadata, most: int | None, *, resolution: bool = False) -> bytes:
    """An EXIF block of at most so many bytes that holds the texts too. Of texts that do not fit,
    the longest are left out first, and said: a letter of `parameters` has two bytes."""
    metadata = _comment_moved(metadata)
    texts = dict(metadata.texts)
    while True:
        data = _with_texts(metadata, texts, resolution)
        if most is None or len(data) <= most:
            return data
        if not texts:
            _say_left_out("JPEG", "its EXIF block", len(data))
            return b""
        longest = max(texts, key=lambda name: len(texts[name]) * (1 + (name == PARAMETERS)))
        _say_left_out("JPEG", f"its text {longest!r}", len(texts.pop(longest)))


def _with_texts(metadata: Metadata, texts: Mapping[str, str], resolution: bool) -> bytes:
    block = metadata.exif.copy()
    others = dict(texts)
    if infotext.is_infotext(texts.get(PARAMETERS, "")):  # else a comment is not known as them
        del others[PARAMETERS]
    if PARAMETERS in texts:
        block.set(PRIVATE, exifs.COMMENT, UNDEFINED, _comment(texts[PARAMETERS]))
    free = OWN
    for name, text in others.items():
        tag = OF_COMFYUI.get(name, MAIN)
        if tag and tag not in block.directories[MAIN] and text.lstrip().startswith("{"):
            data = f"{name}:{spelling.in_ascii(text)}"
        elif free <= LAST:
            tag, free = free, free + 1
            words = spelling.escaped(spelling.writable(text))
            data = f"{spelling.name_in(spelling.ASCII, name)}:{words}"
        else:
            _say_left_out("EXIF", f"its text {name!r}, after {LAST - OWN} others", len(text))
            continue
        block.set(MAIN, tag, ASCII, data.encode() + b"\0")
    if resolution and metadata.dpi and metadata.dpi != block.resolution():
        block.set_resolution(*metadata.dpi)
    return block.tobytes() if block else b""
