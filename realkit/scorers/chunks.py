"""CLIP score of long prompts, chunk by chunk: a convention, which CLIP was not trained for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from realkit.scorers.clip import Encoders
from realkit.scorers.references import SOURCE, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def chunked(encoders: Encoders, text: str) -> torch.Tensor:
    """The tokens (N, L) of a text in chunks as long as the model sees, each between both marks: of
    CLIP's 77 tokens 75 are the text's."""
    import torch

    empty = encoders.tokens("")
    start, end = empty[0], empty[1]
    whole = encoders.tokens(text, most=len(text.encode()) + 2)  # no text has more tokens than bytes
    inner = whole[1 : int((whole[1:] == end).int().argmax()) + 1]
    chunks = []
    for part in inner.split(len(empty) - 2) if len(inner) else [inner]:
        padding = empty[len(part) + 2 :]
        chunks.append(torch.cat([start[None], part, end[None], padding]))
    return torch.stack(chunks)


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 · max(cos, 0) between picture and prompt, whose embedding is the mean of its chunks'
    embeddings, each of length 1. A prompt of one chunk has the engine open_clip's number. Raises
    RequestError where the weights cannot be loaded."""
    import torch

    encoders = Encoders(f"Scorer {name!r}", entry.source, locks.get(SOURCE))

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        mean = encoders.embedded(chunked(encoders, prompt)).mean(0)
        return torch.nn.functional.normalize(mean, dim=0)

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        texts = torch.stack([of_prompt(prompt) for prompt in prompts])
        cosines = (encoders.images(images) * texts).sum(-1)
        return (100 * cosines.clamp(min=0)).tolist()

    return rate
