"""The engines of upscalers: how each loads a tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from realkit.base.errors import RequestError
from realkit.models.lock import ModelLock
from realkit.upscalers.identity import redraws_with
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import DETECTOR, Upscaler
from realkit.weights import pickles, resolve
from realkit.weights.lock import Lock
from realkit.weights.sources import huggingface, inputs

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

DIFFUSION = ("diffusers-x4", "diffusers-latent")


class Tool(Protocol):
    """A loaded upscaler: an RGB picture → one `scale` times as large; `used` says how the last one
    was made."""

    used: dict[str, Any]

    @property
    def scale(self) -> int: ...
    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image: ...


def load_tool(
    name: str,
    spec: Upscaler,
    locked: Lock | None,
    model: ModelLock | None,
    on: torch.device,
    where: Mapping[str, Any],
) -> Tool | None:
    if spec.engine in ("resample", "opencv"):
        return None
    if spec.engine == "redraw":
        from realkit.models import loading
        from realkit.upscalers.redraw import Redraw

        by = redraws_with(name, spec, Settings(), model)
        return Redraw(loading.load(by.name, by, **where))
    assert locked is not None
    with pickles.reading_pickles():
        path = _fetched(name, locked)
    called = Path(locked.ref.partition("?")[0]).name
    if spec.engine in DIFFUSION:
        from realkit.upscalers import stability

        return stability.load_stability(
            spec.engine, path, on, **{key: value for key, value in where.items() if key != "device"}
        )
    if spec.engine == "faces":
        from realkit.upscalers import faces

        return faces.load(path, _detector(), on)
    if spec.engine == "realesrgan":
        from realkit.upscalers import realesrgan

        return realesrgan.load(name, path, on, spec.pre_pad, called)
    from realkit.upscalers import networks
    from realkit.upscalers.networks import Enlarger

    network = (
        networks.load_spandrel(name, path, on, called)
        if spec.engine == "spandrel"
        else networks.load_transformers(name, path, on)
    )
    if spec.scale != 1 and network.scale != spec.scale:
        raise RequestError(
            f"Upscaler {name!r}: {called!r} enlarges {network.scale} times, expected {spec.scale}:"
            " it is another file"
        )
    return Enlarger(network, spec.pre_pad)


def _fetched(name: str, locked: Lock) -> Path:
    try:
        return resolve.fetch(locked)
    except RequestError as error:
        raise RequestError(f"Upscaler {name!r}: {error}") from None


def _detector() -> Path | None:
    """The weights that find faces, from the inputs or the hub, where they can be had: else
    landmarks must be given."""
    home, _, file = DETECTOR.rpartition("/")
    if mounted := inputs.file(file, home):
        return mounted
    try:
        commit, files = huggingface.file(home, None, file)
        return huggingface.snapshot(home, commit, files) / file
    except RequestError:
        return None
