"""The CLIP score by open_clip. A source is open_clip's MODEL:WEIGHTS, or a folder."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from realkit.base import device
from realkit.base.errors import RequestError, one_line
from realkit.scorers.table import Rate
from realkit.weights import resolve
from realkit.weights.lock import Lock
from realkit.weights.sources import disk

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def check(name: str, source: str) -> None:
    """Raise RequestError for a source that open_clip cannot load."""
    path = disk.local(source)
    if path and not path.is_dir():
        raise RequestError(
            f"Scorer {name!r} has the source {source!r}: expected a folder with open_clip's config"
            " and weights"
        )
    if not path and not all(source.partition(":")):
        raise RequestError(
            f"Scorer {name!r} has the source {source!r}: expected open_clip's MODEL:WEIGHTS, or an"
            " existing folder"
        )


def lock(source: str) -> Lock | None:
    """The lock of weights in a folder; None where open_clip downloads them."""
    return resolve.lock(source, weights=True) if disk.local(source) else None


def load(name: str, source: str, locked: Lock | None) -> Rate:
    """100 · max(cos, 0) between picture and prompt embeddings (CLIPScore, arXiv 2104.08718, without
    its factor 2.5). Raises RequestError where the weights cannot be loaded."""
    import open_clip
    import torch

    on = device.default_device()
    model_name, _, weights = source.partition(":")
    if locked:
        model_name, weights = f"local-dir:{resolve.fetch(locked)}", ""
    try:
        model, _, prepare = open_clip.create_model_and_transforms(
            model_name, pretrained=weights or None, device=on
        )
        tokenize = open_clip.get_tokenizer(model_name)
    except Exception as error:  # a hub, a file or a header may fail in many ways
        raise RequestError(
            f"Scorer {name!r} cannot get its weights ({source}): {one_line(error, 200)}"
        ) from error
    model.float().eval()

    def normalized(embedding: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(embedding, dim=-1)

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        return normalized(model.encode_text(tokenize([prompt]).to(on)))

    def rate(image: Image, prompt: str) -> float:
        with torch.no_grad():
            of_image = normalized(model.encode_image(prepare(image)[None].to(on)))
            return 100 * max(0.0, float((of_image * of_prompt(prompt)).sum()))

    return rate
