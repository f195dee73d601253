"""Scorers: a picture and its prompt → a number whose unit, direction, range and resize are stated in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from realkit import hub, placement
from realkit.errors import RequestError
from realkit.lookup import Spec, Table, find

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


def determined(name: str) -> dict[str, Any]:
    """What determines a scorer's number, apart from picture and prompt."""
    spec = SCORERS[name]
    weights = hub.lock(spec.source).fingerprint if spec.source.startswith(hub.PACKAGE) else spec.source
    return {"engine": spec.engine, "weights": weights, "version": spec.version}


def uses_prompt(name: str) -> bool:
    return SCORERS[name].engine == "open_clip"


def load(name: str) -> Rate:
    """A function (picture, prompt) → number. Raises RequestError when its weights cannot be had."""
    spec = SCORERS[find(SCORERS, name)]
    return _clip(name, spec.source) if spec.engine == "open_clip" else _lab(spec.source)


def score(image: Image, prompt: str, scorers: Iterable[str] = ("clip",)) -> dict[str, float]:
    """Numbers by scorer name, e.g. {"rehearsal/clip": 31.2}."""
    names = [find(SCORERS, name) for name in ([scorers] if isinstance(scorers, str) else scorers)]
    return {name: _loaded(name)(image, prompt) for name in names}


@lru_cache(maxsize=4)
def _loaded(name: str) -> Rate:
    return load(name)


def _clip(name: str, source: str) -> Rate:
    """100 · max(cos, 0) between picture and prompt embeddings (CLIPScore, arXiv 2104.08718, without its 2.5)."""
    import open_clip
    import torch

    on = placement.device()
    if path := hub.local(source):
        model_name, weights = f"local-dir:{path}", None
    else:
        model_name, weights = source.split(":")
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
            seen = torch.nn.functional.normalize(model.encode_image(prepare(image.convert("RGB"))[None].to(on)), dim=-1)
            return 100 * max(0.0, float((seen * of_text(prompt)).sum()))

    return rate


def _lab(which: str) -> Rate:
    import numpy as np
    from skimage.color import rgb2lab

    def rate(image: Image, prompt: str) -> float:
        _, a, b = rgb2lab(np.asarray(image.convert("RGB"))).reshape(-1, 3).mean(0)
        return float({"a": a, "b": b, "chroma": np.hypot(a, b)}[which])

    return rate
