"""Scorers: a picture and its prompt → a number whose unit, direction, range and resize are stated in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from realkit import hub, pictures, placement
from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find, shown

if TYPE_CHECKING:
    from PIL.Image import Image


class Scorer(Spec):
    engine: Literal["open_clip", "lab"]
    source: str
    unit: str
    direction: Literal["higher", "lower", "none"]
    range: tuple[float, float]
    resize: str
    about: str
    tflop: float = 0.0  # 10¹² operations a picture
    version: int = 1


SCORERS: Table[Scorer] = Table("scorer", Scorer)
Rate = Callable[["Image", str], float]
LAB = ("a", "b", "chroma")


def determined(name: str) -> dict[str, Any]:
    """What determines a scorer's number, apart from picture and prompt. Raises RequestError for a wrong entry."""
    from realkit.table import COLUMNS

    spec, weights = SCORERS[name], SCORERS[name].source
    if name in COLUMNS:
        raise RequestError(f"Scorer {name!r} is named like a column of the table: give its catalogue entry another name")
    if spec.engine == "lab" and spec.source not in LAB:
        raise RequestError(f"Scorer {name!r} has the source {spec.source!r}: expected one of {', '.join(LAB)}")
    if spec.engine == "open_clip":
        if path := hub.local(spec.source):
            if not path.is_dir():
                raise RequestError(f"Scorer {name!r} has the source {spec.source!r}: expected a folder with open_clip's config and weights")
            weights = hub.lock(spec.source, weights=True).fingerprint
        elif not all(spec.source.partition(":")):
            raise RequestError(f"Scorer {name!r} has the source {spec.source!r}: expected open_clip's MODEL:WEIGHTS, or an existing folder")
    return {"engine": spec.engine, "weights": weights, "version": spec.version}


def uses_prompt(name: str) -> bool:
    return SCORERS[name].engine == "open_clip"


def lock(name: str) -> hub.Lock | None:
    """The weights of a scorer that lie in a folder; None where open_clip fetches them, or there are none."""
    spec = SCORERS[name]
    return hub.lock(spec.source, weights=True) if spec.engine == "open_clip" and hub.local(spec.source) else None


def load(name: str, locked: hub.Lock | None = None) -> Rate:
    """A function (RGB picture, prompt) → number. Raises RequestError when its weights cannot be had."""
    spec = SCORERS[find(SCORERS, name)]
    return _clip(name, spec.source, locked) if spec.engine == "open_clip" else _lab(spec.source)


def score(image: Image, prompt: str, scorers: Iterable[str] = ("clip",)) -> dict[str, float]:
    """Numbers by scorer name, e.g. {"rehearsal/clip": 31.2}. A transparent picture is scored on white."""
    if not isinstance(prompt, str):
        raise RequestError(f"prompt {shown(prompt)}: expected words, which may be empty for a scorer that needs none")
    image = pictures.opaque(image)
    names = [find(SCORERS, name) for name in ([scorers] if isinstance(scorers, str) else scorers)]
    return {name: _loaded(name, str(determined(name)))(image, prompt) for name in names}


@lru_cache(maxsize=4)
def _loaded(name: str, determined: str) -> Rate:  # keyed by the weights too: a file may change
    return load(name)


def _clip(name: str, source: str, locked: hub.Lock | None) -> Rate:
    """100 · max(cos, 0) between picture and prompt embeddings (CLIPScore, arXiv 2104.08718, without its 2.5)."""
    import open_clip
    import torch

    on = placement.device()
    if path := hub.fetch(locked) if locked else hub.local(source):
        model_name, weights = f"local-dir:{path}", None
    else:
        model_name, _, weights = source.partition(":")
    try:
        model, _, prepare = open_clip.create_model_and_transforms(model_name, pretrained=weights, device=on)
        words = open_clip.get_tokenizer(model_name)
    except Exception as error:  # a hub, a file or a header may fail in many ways; each leaves this scorer without weights
        raise RequestError(f"Scorer {name!r} cannot get its weights ({source}): {' '.join(str(error).split())[:200]}") from error
    model.float().eval()

    @lru_cache(maxsize=4096)
    def of_text(prompt: str) -> torch.Tensor:
        return torch.nn.functional.normalize(model.encode_text(words([prompt]).to(on)), dim=-1)

    def rate(image: Image, prompt: str) -> float:
        with torch.no_grad():
            seen = torch.nn.functional.normalize(model.encode_image(prepare(image)[None].to(on)), dim=-1)
            return 100 * max(0.0, float((seen * of_text(prompt)).sum()))

    return rate


def _lab(which: str) -> Rate:
    import numpy as np
    from skimage.color import rgb2lab

    def rate(image: Image, prompt: str) -> float:
        _, a, b = rgb2lab(np.asarray(image)).reshape(-1, 3).mean(0)
        return float({"a": a, "b": b, "chroma": np.hypot(a, b)}[which])

    return rate
