"""The words of the rehearsal world: attributes, captions, and which combinations are held out."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from realkit.base.door import door
from realkit.base.errors import RequestError, shown

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("sphere", "cube", "cylinder", "cone"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"),
    "material": ("matte", "shiny"),
    "floor": ("wooden", "checkered", "grass", "sand"),
    "time": ("dawn", "noon", "sunset", "night"),
}
FLOOR_PHRASES = {
    "wooden": "a wooden floor",
    "checkered": "a checkered floor",
    "grass": "grass",
    "sand": "sand",
}
HELD_OUT_SHARE = 0.1
DROP = 0.2  # how often a training caption leaves an attribute unsaid


@dataclass(frozen=True, order=True)
class Scene:
    """One combination of the five attributes; the seed chooses an attribute left empty."""

    shape: str = ""
    colour: str = ""
    material: str = ""
    floor: str = ""
    time: str = ""

    @property
    def caption(self) -> str:
        return (
            f"a photo of {_article(self.material, self.colour, self.shape)} on"
            f" {FLOOR_PHRASES[self.floor]} at {self.time}"
        )


def _article(*words: str) -> str:
    said = " ".join(word for word in words if word)
    return f"{'an' if said[0] in 'aeiou' else 'a'} {said}"


@door
def parse(caption: str) -> Scene:
    """Read the attributes that a caption names; other words are ignored.

    Raises RequestError where the caption names no attribute, or two values of one.
    """
    words = set(re.findall(r"[a-z]+", caption.lower()))
    found = {}
    for attribute, values in ATTRIBUTES.items():
        named = [value for value in values if value in words]
        if len(named) > 1:
            raise RequestError(
                f"Caption {shown(caption)} names {len(named)} values of {attribute}"
                f" ({', '.join(named)}): expected one"
            )
        found[attribute] = named[0] if named else ""
    if not any(found.values()):
        known = "; ".join(
            f"{attribute}: {', '.join(values)}" for attribute, values in ATTRIBUTES.items()
        )
        raise RequestError(
            f"Caption {shown(caption)} names nothing of the rehearsal world. Use some of {known}"
        )
    return Scene(**found)


@door
@cache
def scenes(split: Literal["train", "heldout"]) -> tuple[Scene, ...]:
    """All combinations of a split, in a fixed order: nine tenths for training, a tenth held out."""
    if split not in ("train", "heldout"):
        raise RequestError(f"Unknown split {shown(split)}: expected 'train' or 'heldout'")
    every = [Scene(*values) for values in itertools.product(*ATTRIBUTES.values())]
    order = np.random.default_rng(20).permutation(len(every))
    held = set(order[: round(len(every) * HELD_OUT_SHARE)].tolist())
    return tuple(
        scene for index, scene in enumerate(every) if (index in held) == (split == "heldout")
    )


@door
def captions(split: Literal["train", "heldout"] = "train") -> list[str]:
    """The captions of a split, one for each combination of attributes."""
    return [scene.caption for scene in scenes(split)]


def training_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of several wordings of a scene; leaves each attribute out one time in five, never all."""
    said = {name: rng.random() >= DROP for name in ATTRIBUTES}
    if not any(said.values()):
        said["shape"] = True
    colour, material = (
        getattr(scene, name) if said[name] else "" for name in ("colour", "material")
    )
    shape = scene.shape if said["shape"] else "object"
    floor = f" on {FLOOR_PHRASES[scene.floor]}" if said["floor"] else ""
    time = f" at {scene.time}" if said["time"] else ""
    match rng.integers(5):
        case 0 | 1:
            return f"a photo of {_article(material, colour, shape)}{floor}{time}"
        case 2:
            return f"{_article(colour, material, shape)}{floor}{time}"
        case 3:
            return f"{time.strip()}{', ' if time else ''}{_article(material, colour, shape)}{floor}"
        case _:
            traits = " and ".join(word for word in (material, colour) if word)
            parts = f"a photo of {_article(shape)}{', ' + traits if traits else ''},{floor},{time}"
            return parts.strip(",").replace(",,", ",")
