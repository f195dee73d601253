"""Two pictures of a scene, divided by a border that a slider moves."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realkit.base.door import check_kind
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import MOST, check_picture, opaque
from realkit.base.suggest import instead

if TYPE_CHECKING:
    from PIL.Image import Image


def before_after(pictures: Mapping[str, Image], before: str, after: str, side: int = 512) -> Any:
    """A notebook widget: one picture left and another right of a border that a slider moves.

    `pictures` show one scene, by name; `before` and `after` name the two shown first. `side` is the
    longer side in pixels. Raises RequestError for a name that `pictures` lacks, and for pixels
    whose white is not known.
    """
    from ipywidgets import Dropdown, HBox, Image, IntSlider, Label, Layout, VBox

    check_kind("side", side, int)
    if not 1 <= side <= MOST:
        raise RequestError(f"side {shown(side)}: expected 1 to {MOST} pixels")
    for picture in pictures.values():
        check_picture(picture)
    for name in (before, after):
        if name not in pictures:
            raise RequestError(f"No picture {shown(name)}{instead(name, pictures)}")
    names = list(pictures)
    plain = dict(zip(names, map(opaque, pictures.values()), strict=True))
    short = {"description_width": "initial"}
    left = Dropdown(options=names, value=before, description="left", style=short)
    right = Dropdown(options=names, value=after, description="right", style=short)
    border = IntSlider(50, 0, 100, readout=False, layout=Layout(max_width="100%", margin="0"))
    shape = Layout(max_width="100%", height="auto", align_self="flex-start", margin="4px 0")
    # An own widget for the picture: what ipywidgets' `interactive` draws shows in some notebooks
    # only, and there only once a control was moved.
    picture = Image(format="png", layout=shape)
    sizes = Label()

    def size(name: str) -> str:
        return f"{name} {_size(plain[name])}"

    def draw(_: Any = None) -> None:
        joint = joined(plain[left.value], plain[right.value], border.value / 100, side)
        picture.value = _png(joint)
        # Known beforehand: the page does not jump while the browser decodes.
        picture.width, picture.height = map(str, joint.size)
        border.layout.width = f"{joint.width}px"  # its handle is below the border
        sizes.value = f"{size(left.value)}, {size(right.value)}; shown at {_size(joint)}"

    for control in (left, right, border):
        control.observe(draw, "value")
    draw()
    return VBox([HBox([left, right]), picture, border, sizes])


def _size(picture: Image) -> str:
    return f"{picture.width}×{picture.height}"


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def joined(left: Image, right: Image, share: float, side: int = 512) -> Image:
    """The left `share` of one picture beside the rest of another, with a white border between.

    `share` is from 0 to 1. The result has the shape of `right`, its longer side `side` pixels.
    """
    scale = side / max(right.size)
    size = max(1, round(right.width * scale)), max(1, round(right.height * scale))
    border = round(share * size[0])
    picture = _resized(right, size)
    picture.paste(_resized(left, size).crop((0, 0, border, size[1])))
    picture.paste("white", (max(0, border - 1), 0, min(size[0], border + 1), size[1]))
    return picture


def _resized(image: Image, size: tuple[int, int]) -> Image:
    """A copy of a size; enlarged pixels stay visible."""
    from PIL.Image import Resampling

    method = Resampling.LANCZOS if image.width > size[0] else Resampling.NEAREST
    return image.resize(size, method)
