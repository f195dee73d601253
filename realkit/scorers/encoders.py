"""Encoders: a picture → an embedding, of which sets of pictures are judged."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from realkit.base.errors import RequestError
from realkit.catalog.lookup import Spec, Table
from realkit.scorers import clip, dinov2
from realkit.weights import resolve
from realkit.weights.lock import Lock
from realkit.weights.reference import parse
from realkit.weights.sources import disk

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# One encoding for photographs and generated pictures: what separates the sets first is else the
# JPEG of the one (arXiv 2403.17608).
QUALITY = 95
ENCODING = {"jpeg": QUALITY, "subsampling": "4:4:4"}


class Encoder(Spec):
    """An entry of the catalogue."""

    engine: str  # a row of ENGINES
    source: str  # its weights
    resize: str  # what it sees of a picture
    about: str
    licence: str = ""
    tflop: float = 0.0  # 10¹² operations a picture
    version: int = 1


class Loaded(Protocol):
    """An encoder with its weights. Embeddings have length 1."""

    def images(self, images: Iterable[Image]) -> torch.Tensor:
        """The embeddings (N, D) of RGB pictures, float32, in one pass."""


@runtime_checkable
class Reader(Loaded, Protocol):
    """One that reads words too."""

    @property
    def scale(self) -> float:
        """What cosines with texts are multiplied with before a softmax."""

    def prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """The embeddings (N, D) of texts."""


@dataclass(frozen=True)
class Engine:
    """One kind of encoder: how it loads, how its weights are locked, whether it reads words."""

    load: Callable[[str, str, Lock | None], Loaded]  # from what it is called, source and lock
    prompted: bool = False
    fetches: bool = False  # by itself what lies on no disk


ENCODERS: Table[Encoder] = Table("encoder", Encoder)
ENGINES = {
    "open_clip": Engine(clip.Encoders, prompted=True, fetches=True),
    "dinov2": Engine(dinov2.DinoV2),
}


def engine_of(name: str) -> Engine:
    """The engine of an encoder. Raises RequestError for an entry with an unknown one."""
    engine = ENCODERS[name].engine
    if engine not in ENGINES:
        raise RequestError(
            f"Encoder {name!r} has the engine {engine!r}: expected one of {', '.join(ENGINES)}"
        )
    return ENGINES[engine]


def lock_encoder(name: str, before: Lock | None = None) -> Lock | None:
    """The lock of an encoder's weights; None where open_clip fetches them. One made `before` holds
    while the entry names the same reference of a network. Raises RequestError."""
    source = ENCODERS[name].source
    here = disk.local(source)
    if not here and engine_of(name).fetches:
        return None
    try:
        if before and not here and before.ref == str(parse(source)):
            return before
        return resolve.lock(source, weights=True)
    except RequestError as error:
        raise RequestError(f"Encoder {name!r}: {error}") from None


def determined_encoder(name: str, locked: Lock | None) -> dict[str, Any]:
    """What determines an encoder's embeddings, apart from the picture."""
    entry = ENCODERS[name]
    weights = locked.fingerprint if locked else entry.source
    return {
        "engine": entry.engine,
        "weights": weights,
        "encoding": ENCODING,
        "version": entry.version,
    }


def space_of(name: str, locked: Lock | None) -> str:
    """A name for what an encoder's embeddings may be compared with: 16 hex digits."""
    determined = json.dumps(determined_encoder(name, locked), sort_keys=True)
    return hashlib.sha256(determined.encode()).hexdigest()[:16]


def load_encoder(name: str, locked: Lock | None) -> Loaded:
    """An encoder with its weights. Raises RequestError where they cannot be loaded."""
    return engine_of(name).load(f"Encoder {name!r}", ENCODERS[name].source, locked)


def as_jpeg(image: Image) -> Image:
    """An RGB picture encoded and decoded as every picture is before it is embedded."""
    from PIL import Image

    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return Image.open(file).convert("RGB")
