"""What an engine is given to load a tool, and what a loaded tool does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from realkit.models.lock import ModelLock
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import Upscaler

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Tool(Protocol):
    """A loaded upscaler: an RGB picture → one `scale` times as large. `used` says how the last
    picture was made, in columns of a row."""

    used: dict[str, Any]

    @property
    def scale(self) -> int: ...
    def __call__(self, image: Image, settings: Settings) -> Image: ...


@dataclass(frozen=True)
class LoadRequest:
    """What a tool is loaded from. `path` and `file` are of an engine with weights, `model` of one
    that redraws."""

    name: str  # as the chain spells it, for messages
    entry: Upscaler
    device: torch.device
    path: Path = Path()  # the weights, a file or a folder
    file: str = ""  # their own name, for messages: a file of the cache bears a hash
    model: ModelLock | None = None
    placement: Mapping[str, Any] = field(default_factory=dict)  # device, rung, dtype, as rk.load's
