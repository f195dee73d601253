"""Pictures as they come from people's disks → plain sRGB, and their way to an exact size."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Literal

from realkit.base.errors import RequestError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "keep"]
FITS: tuple[Fit, ...] = (
    "crop",
    "keep",
)  # of another aspect: the middle, filling the size; or the whole picture, within it
FINISH = (  # the filter from an upscaler's own scale to the exact size; Pillow's, antialiased
    "LANCZOS"
)
MOST = 32_768  # pixels a side


def plain(image: Image) -> Image:
    """A picture as people see it, in 8-bit sRGB, or in RGBA where it has transparency: turned
    upright, its colour profile applied, 16-bit grey scaled."""
    import numpy as np
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise RequestError(
            f"picture {shown(image)}: expected a PIL image, such as PIL.Image.open(path)"
        )
    if image.mode == "F":
        raise RequestError(
            "A picture of floating-point numbers has no known white: expected 8 or 16 bits a"
            " channel, scale it to them first"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode in ("La", "RGBa"):  # multiplied by their transparency
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I"):
        grey = np.asarray(image.convert("I")).clip(0, 65_535) / 257
        image = Image.fromarray(grey.round().astype(np.uint8))
    return _in_srgb(image)


def _in_srgb(image: Image) -> Image:
    """RGB or RGBA in sRGB, by the picture's own profile where it has one that can be read."""
    from PIL import ImageCms

    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert(mode)
    base = (
        image
        if image.mode in ("RGB", "L", "CMYK", "LAB")
        else image.convert("L" if image.mode in ("LA", "1") else "RGB")
    )
    try:
        seen = ImageCms.profileToProfile(
            base,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (
        ImageCms.PyCMSError,
        OSError,
        ValueError,
    ):  # of another kind of picture, or damaged: what other programs do too
        return image.convert(mode)
    assert seen is not None
    if mode == "RGBA":
        seen.putalpha(image.convert("RGBA").getchannel("A"))
    seen.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return seen


def opaque(image: Image) -> Image:
    """The plain picture without transparency: on white."""
    from PIL import Image

    image = plain(image)
    return (
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        if image.mode == "RGBA"
        else image
    )


def under_transparency(image: Image) -> Image:
    """The colours of an RGBA picture, RGB; where nothing is seen of them, those of the nearest
    pixel that is seen, so that none shine through at edges."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import distance_transform_edt

    colours, hidden = np.array(image.convert("RGB")), np.asarray(image.getchannel("A")) == 0
    if hidden.any() and not hidden.all():
        rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
        colours = colours[rows, columns]
    return Image.fromarray(colours)


def is_grey(image: Image) -> bool:
    """Whether a picture has no colour by its mode."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def checked_target(to: object) -> int | tuple[int, int]:
    """A target as an int for the longer side, or (width, height). Raises RequestError for anything
    else."""
    sides = tuple(to) if isinstance(to, (tuple, list)) else (to, to)
    if len(sides) != 2 or any(type(side) is not int or not 1 <= side <= MOST for side in sides):
        raise RequestError(
            f"Target size {shown(to)}: expected 1 to {MOST} pixels for the longer side, or (width,"
            " height)"
        )
    return sides if isinstance(to, (tuple, list)) else to  # type: ignore[return-value]


def written_target(text: str) -> int | tuple[int, int]:
    """A target as a person writes it: 2048, or 2048x1536."""
    sides = text.lower().split("x")
    if not all(side.strip().isdecimal() for side in sides) or len(sides) > 2:
        raise RequestError(f"Target size {shown(text)}: expected pixels, such as 2048 or 2048x1536")
    return checked_target(int(sides[0]) if len(sides) == 1 else tuple(int(side) for side in sides))


def target_size(
    native: tuple[int, int], to: int | tuple[int, int], fit: Fit = "crop"
) -> tuple[int, int]:
    """(width, height) to make of a picture of this size; an int is the longer side, the other
    follows to the nearest pixel.

    With `fit` "keep" a pair is a box that the picture fills in one direction.
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
    """(left, top, right, bottom) of the middle of a picture that has the aspect of `size`; all of
    it where rounding alone tells them apart."""
    width, height = native
    scale = max(size[0] / width, size[1] / height)
    inner = size[0] / scale, size[1] / scale
    within = [
        side if abs(side - part) * scale < 1 else part
        for side, part in zip(native, inner, strict=True)
    ]
    left, top = (width - within[0]) / 2, (height - within[1]) / 2
    return left, top, width - left, height - top


def resized(image: Image, size: tuple[int, int], kernel: str = FINISH) -> Image:
    """The middle of a picture with the aspect of `size`, resampled to it by one of Pillow's
    filters, antialiased."""
    from PIL import Image

    box = frame(image.size, size)
    if image.size == size and box == (0, 0, *size):
        return image
    return image.resize(size, Image.Resampling[kernel], box=box)


def framed(image: Image, size: tuple[int, int]) -> Image:
    """The picture cut to the whole pixels that `resized` will look at."""
    left, top, right, bottom = frame(image.size, size)
    return image.crop((math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))
