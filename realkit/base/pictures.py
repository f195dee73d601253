"""Pictures from people's disks → plain sRGB, and their resampling to an exact size."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from realkit.base.door import expanded, whole, worded
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.warn import warn_once

if TYPE_CHECKING:
    from PIL.Image import Image

# A picture of another aspect fills the size with its middle (crop), or lies within it whole (keep).
Fit = Literal["crop", "keep"]
FITS: tuple[Fit, ...] = ("crop", "keep")
FINISH = "LANCZOS"  # Pillow's filter from an upscaler's own scale to the exact size, antialiased
MOST = 32_768  # pixels a side
# Endings of picture files, those that nothing here reads too: cameras' raw files, drawings, films'
ENDINGS = (
    ".apng", ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dds", ".dng", ".eps", ".exr", ".gif",
    ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl",
    ".nef", ".orf", ".pbm", ".pef", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".raf", ".rw2", ".svg",
    ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip


def of_other_endings(paths: Iterable[Path], taken: Collection[str]) -> str:
    """What of a folder's files are pictures that are not taken, because of their endings: "3
    pictures of other endings are left out (.gif, .heic): convert them to .png or .jpg"; "" where
    there is none."""
    endings = [path.suffix.lower() for path in paths if not path.name.startswith(".")]
    left_out = [ending for ending in endings if ending in ENDINGS and ending not in taken]
    if not left_out:
        return ""
    count = f"{len(left_out)} picture{'s' * (len(left_out) > 1)}"
    names = ", ".join(sorted(set(left_out)))
    return f"{count} of other endings left out ({names}): convert to .png or .jpg what should count"


@contextmanager
def reading(called: str) -> Iterator[None]:
    """As `worded`, for Pillow, whose readers raise errors of many kinds and warn in many lines."""
    with worded(called), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def opened(file: Path | IO[bytes], called: str = "") -> Iterator[Image]:
    """A picture of a disk, its pixels read. `called` begins the RequestError for another file, by
    default with its path."""
    from PIL import Image

    with reading(called or f"Cannot read the picture {str(file)!r}"), Image.open(file) as image:
        if frames(image) is None:  # damaged behind the first, where the counting has stopped
            image.seek(0)
        image.load()
        yield image


def frames(image: Image) -> int | None:
    """How many frames or pages a picture's file has, which Pillow counts once, in the open file;
    None where it cannot: the file is closed, or damaged."""
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # ValueError for a closed file, and Pillow's own for damage
        return None


def read(path: str | Path) -> Image:
    """The picture of a file, its pixels read. Raises RequestError where there is none."""
    with reading(f"Cannot read the picture {shown(str(path))}"):
        file = expanded(path)
        exists = file.is_file()
    if not exists:
        raise RequestError(f"No picture at {shown(str(path))}")
    with opened(file) as image:
        if frames(image) != 1:  # Pillow reads the EXIF of a TIFF of many pages later, from its file
            with suppress(Exception):  # damaged: whoever asks for it is told
                image.getexif().tobytes()
        return image


def upright(image: Image) -> Image:
    """A picture turned as its EXIF says; one whose EXIF cannot be read stays as it is, as in other
    programs."""
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(image)
    except Exception as error:  # struct's, Pillow's and Python's own, by what is damaged
        warn_once(f"EXIF of a picture cannot be read, it is not turned: {one_line(error, 100)}")
        return image


def check_picture(image: object) -> None:
    """Raise RequestError for what is no picture, one without pixels, and one that was closed.
    Reads all of its file: what it says may stand behind the pixels."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise RequestError(
            f"picture {shown(image)}: expected a PIL image, such as PIL.Image.open(path)"
        )
    if not (image.width and image.height):
        raise RequestError(
            f"A picture of {image.width}×{image.height} has no pixels: expected 1×1 or more"
        )
    with reading("The picture's pixels cannot be read, was its file closed?"):
        image.load()


def misread(image: Image) -> list[str]:
    """The names in a picture's `info` whose values Pillow cannot use. Pillow keeps a PNG's texts in
    `info` too, and a text may have any name."""
    names = []
    if not isinstance(image.info.get("icc_profile", b""), (bytes, bytearray, type(None))):
        names.append("icc_profile")
    if "transparency" not in image.info:
        return names
    value = image.info["transparency"]
    try:
        if isinstance(value, str) or (image.mode.startswith("I") and type(value) is not int):
            raise TypeError(value)
        image.crop((0, 0, 1, 1)).convert("RGBA")
    except Exception:  # by the mode and the value: TypeError, ValueError, Pillow's own
        names.append("transparency")
    return names


def sound(image: Image) -> Image:
    """The picture without what is `misread`."""
    names = misread(image)
    if names:
        image = image.copy()
        for name in names:
            del image.info[name]
    return image


def plain(image: Image) -> Image:
    """A picture as people see it: upright, in 8-bit sRGB, RGB or RGBA where it has transparency.

    Its colour profile is applied, and 16-bit grey scaled. Raises RequestError for floating-point
    pixels, and for what `check_picture` refuses.
    """
    return _in_srgb(_of_8_bits(image))


def in_own_space(image: Image) -> tuple[Image, bytes]:
    """As `plain`, with the colours as the picture's own profile means them, and that profile; b""
    for sRGB. A profile of another kind than RGB is applied. One that cannot be read is kept: other
    programs ignore it too."""
    image = _of_8_bits(image)
    profile = image.info.get("icc_profile") or b""
    if not profile or _space(profile) in ("", "RGB "):
        return image.convert("RGBA" if image.has_transparency_data else "RGB"), profile
    return _in_srgb(image), b""


def _space(profile: bytes) -> str:
    """The colour space of a profile, such as "RGB "; "" where it cannot be read."""
    from PIL import ImageCms

    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return ""


def _of_8_bits(image: Image) -> Image:
    """A picture upright, with 8 bits a channel, its colours as they are."""
    import numpy as np
    from PIL import Image

    check_picture(image)
    if image.mode == "F":
        raise RequestError(
            "A picture of floating-point numbers has no known white: expected 8 or 16 bits a"
            " channel, scale it first"
        )
    image = upright(sound(image))
    if image.mode in ("La", "RGBa"):  # premultiplied by transparency
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I"):
        levels = np.asarray(image.convert("I"))
        grey = Image.fromarray((levels.clip(0, 65_535) / 257).round().astype(np.uint8))
        grey.info = dict(image.info)
        seen = grey.info.pop("transparency", None)  # the level that tRNS makes transparent
        if isinstance(seen, int):
            grey.putalpha(Image.fromarray(np.where(levels == seen, 0, 255).astype(np.uint8)))
        image = grey
    return image


def _in_srgb(image: Image) -> Image:
    """RGB or RGBA in sRGB, by the picture's own profile where it has a readable one."""
    from PIL import ImageCms

    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert(mode)
    base = image
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        base = image.convert("L" if image.mode in ("LA", "1") else "RGB")
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        colours = ImageCms.profileToProfile(base, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A damaged profile, or of another kind of picture: other programs ignore it too.
        return image.convert(mode)
    assert colours is not None
    if mode == "RGBA":
        colours.putalpha(image.convert("RGBA").getchannel("A"))
    colours.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return colours


def opaque(image: Image) -> Image:
    """The plain picture on white, RGB."""
    from PIL import Image

    image = plain(image)
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def under_transparency(image: Image) -> Image:
    """The colours of an RGBA picture, RGB. Fully transparent pixels get the colour of the nearest
    visible one, so that hidden colours do not bleed into edges when the picture is resized."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import distance_transform_edt

    colours, hidden = np.array(image.convert("RGB")), np.asarray(image.getchannel("A")) == 0
    if hidden.any() and not hidden.all():
        rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
        colours = colours[rows, columns]
    return Image.fromarray(colours)


def is_grey(image: Image) -> bool:
    """Whether a picture's mode has no colour."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def checked_target(to: object) -> int | tuple[int, int]:
    """A target as an int for the longer side, or (width, height). Raises RequestError for anything
    else."""
    to = whole(to)
    sides = tuple(to) if isinstance(to, (tuple, list)) else (to, to)
    if len(sides) != 2 or any(type(side) is not int or not 1 <= side <= MOST for side in sides):
        raise RequestError(
            f"Target size {shown(to)}: expected 1 to {MOST} pixels for the longer side, or (width,"
            " height)"
        )
    return sides if isinstance(to, (tuple, list)) else to  # type: ignore[return-value]


def written_target(text: str) -> int | tuple[int, int]:
    """A target as a person writes it: 2048, or 2048x1536."""
    parts = text.lower().split("x")
    if not all(part.strip().isdecimal() for part in parts) or len(parts) > 2:
        raise RequestError(f"Target size {shown(text)}: expected pixels, such as 2048 or 2048x1536")
    sides = [int(part) for part in parts]
    return checked_target(sides if len(sides) == 2 else sides[0])


def target_size(
    native: tuple[int, int], to: int | tuple[int, int], fit: Fit = "crop"
) -> tuple[int, int]:
    """(width, height) that a picture of this size gets; an int is its longer side.

    With `fit` "keep" a pair is a box that the picture fills in one direction. The side that follows
    is rounded to the nearest pixel.
    """
    if isinstance(to, int):
        scale = to / max(native)
    elif fit == "keep":
        scale = min(side / own for side, own in zip(to, native, strict=True))
    else:
        return to
    width, height = (max(1, round(side * scale)) for side in native)
    return width, height


def frame(native: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a picture's middle with the aspect of `size`; the whole picture
    where the aspects differ by rounding alone."""
    scale = max(size[0] / native[0], size[1] / native[1])
    margins = []
    for side, target in zip(native, size, strict=True):
        margin = side - target / scale
        margins.append(margin / 2 if abs(margin) * scale >= 1 else 0.0)
    left, top = margins
    return left, top, native[0] - left, native[1] - top


def resized(image: Image, size: tuple[int, int], kernel: str = FINISH) -> Image:
    """A picture's middle with the aspect of `size`, resampled to it by a filter of Pillow's,
    antialiased."""
    from PIL import Image

    box = frame(image.size, size)
    if image.size == size and box == (0, 0, *size):
        return image
    return image.resize(size, Image.Resampling[kernel], box=box)


def framed(image: Image, size: tuple[int, int]) -> Image:
    """The picture cropped to the whole pixels that `resized` reads."""
    left, top, right, bottom = frame(image.size, size)
    return image.crop((math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))
