"""The CLIP score by open_clip."""

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
    from PIL.Image import Image


def clip_rate(name: str, source: str, locked: Lock | None) -> Rate:
    """100 · max(cos, 0) between picture and prompt embeddings (CLIPScore, arXiv 2104.08718, without
    its 2.5)."""
    import open_clip
    import torch

    on = device.default_device()
    if path := resolve.fetch(locked) if locked else disk.local(source):
        model_name, weights = f"local-dir:{path}", None
    else:
        model_name, _, weights = source.partition(":")
    try:
        model, _, prepare = open_clip.create_model_and_transforms(
            model_name, pretrained=weights, device=on
        )
        words = open_clip.get_tokenizer(model_name)
    except (
        Exception
        # a hub, a file or a header may fail in many ways; each leaves this scorer without weights
    ) as error:
        raise RequestError(
            f"Scorer {name!r} cannot get its weights ({source}): {one_line(error, 200)}"
        ) from error
    model.float().eval()

    @lru_cache(maxsize=4096)
    def of_text(prompt: str) -> torch.Tensor:
        return torch.nn.functional.normalize(model.encode_text(words([prompt]).to(on)), dim=-1)

    def rate(image: Image, prompt: str) -> float:
        with torch.no_grad():
            seen = torch.nn.functional.normalize(
                model.encode_image(prepare(image)[None].to(on)), dim=-1
            )
            return 100 * max(0.0, float((seen * of_text(prompt)).sum()))

    return rate
