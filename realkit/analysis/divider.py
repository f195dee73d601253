"""Things to move in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError, shown

if TYPE_CHECKING:
    from PIL.Image import Image


def before_after(pictures: Mapping[str, Image], before: str, after: str, side: int = 512) -> Any:
    """Two of several pictures of one scene, one left and one right of a border that a slider moves,
    `side` pixels along the longer side.

    Raises RequestError for a picture that is not among them.
    """
    from ipywidgets import Dropdown, IntSlider, interactive

    if missing := [name for name in (before, after) if name not in pictures]:
        raise RequestError(f"No picture {shown(missing[0])}: expected one of {', '.join(pictures)}")

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
    """The left `share` of one picture beside the rest of another of the same scene, a white line
    between them; smaller ones show their pixels."""
    from PIL import Image

    scale = side / max(right.size)
    size = round(right.width * scale), round(right.height * scale)
    one, other = (
        image.resize(
            size, Image.Resampling.LANCZOS if image.width > size[0] else Image.Resampling.NEAREST
        )
        for image in (left, right)
    )
    border = round(share * size[0])
    made = other.copy()
    made.paste(one.crop((0, 0, border, size[1])))
    made.paste("white", (max(0, border - 1), 0, min(size[0], border + 1), size[1]))
    return made
