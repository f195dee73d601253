"""The rehearsal world: tiny real models and the pictures they were trained on."""

from realkit.rehearsal.scenes import NATIVE, complete, mask, render
from realkit.rehearsal.wording import ATTRIBUTES, Scene, captions, parse, scenes

__all__ = [
    "ATTRIBUTES",
    "NATIVE",
    "Scene",
    "captions",
    "complete",
    "mask",
    "parse",
    "render",
    "scenes",
]
