"""Two pictures of a scene, divided by a border that a slider moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realkit.base.door import check_kind
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import MOST, check_picture

if TYPE_CHECKING:
    from PIL.Image import Image


def before_after(pictures: Mapping[str, Image], before: str, after: str, side: int = 512) -> Any:
    """A notebook widget: one picture left and another right of a border that a slider moves.

    `pictures` show one scene, by name; `before` and `after` name the two shown first. `side` is the
    longer side in pixels. Raises RequestError for a name that `pictures` lacks.
    """
    from ipywidgets import Dropdown, IntSlider, interactive

    check_kind("side", side, int)
    if not 1 <= side <= MOST:
        raise RequestError(f"side {shown(side)}: expected 1 to {MOST} pixels")
    for picture in pictures.values():
        check_picture(picture)
    for name in (before, after):
        if name not in pictures:
            raise RequestError(f"No picture {shown(name)}: expected one of {', '.join(pictures)}")

    def draw(left: str, right: str, border: int) -> Image:
        return joined(pictures[left], pictures[right], border / 100, side)

    names = list(pictures)
    return interactive(
        draw,
        left=Dropdown(options=names, value=before),
        right=Dropdown(options=names, value=after),
        border=IntSlider(50, 0, 100),
    )


def joined(left: Image, right: Image, share: float, side: int = 512) -> Image:
    """The left `share` of one picture beside the rest of another, with a white border between.

    `share` is from 0 to 1. The result has the shape of `right`, its longer side `side` pixels.
    """
    scale = side / max(right.size)
    size = round(right.width * scale), round(right.height * scale)
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
