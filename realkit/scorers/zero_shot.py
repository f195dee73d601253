"""What CLIP reads out of a picture by texts of its own: whether it looks like a photograph, and
whether it finds its own prompt among others."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.catalog.suites import PROMPTS
from realkit.scorers import clip
from realkit.scorers.table import Rate, Scorer
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def check_contrast(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without texts on both sides."""
    clip.check(name, entry)
    if not entry.words or not entry.against or not all(entry.against):
        raise RequestError(
            f"Scorer {name!r} contrasts texts: expected `words`, a list, and `against`, lists"
        )


def load_contrast(name: str, entry: Scorer, locked: Lock | None) -> Rate:
    """100 times the share of `words` in a softmax over it and each list of `against`.

    A list is one class, whose embedding is the mean of its texts' (the prompt ensembles of CLIP,
    arXiv 2103.00020, section 3.1.4).
    """
    import torch

    encoders = clip.Encoders(name, entry.source, locked)
    classes = [encoders.texts(texts).mean(0) for texts in (entry.words, *entry.against)]
    directions = torch.nn.functional.normalize(torch.stack(classes), dim=-1)

    def rate(image: Image, prompt: str) -> float:
        cosines = directions @ encoders.image(image)
        return 100 * float(torch.softmax(encoders.scale * cosines, dim=0)[0])

    return rate


def check_rank(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without a suite of the catalogue."""
    clip.check(name, entry)
    if not entry.suite:
        raise RequestError(f"Scorer {name!r} ranks prompts: expected `suite`, a suite's name")
    find(PROMPTS, entry.suite)


def load_rank(name: str, entry: Scorer, locked: Lock | None) -> Rate:
    """100 where a picture is nearer to its own prompt than to any other of the suite, else 0: its
    mean is R-precision in percent (arXiv 1711.10485). A prompt from elsewhere joins the suite."""
    encoders = clip.Encoders(name, entry.source, locked)
    prompts = PROMPTS[find(PROMPTS, entry.suite)].prompts
    others = encoders.texts(prompts)

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        return encoders.texts([prompt])[0]

    def rate(image: Image, prompt: str) -> float:
        picture = encoders.image(image)
        own = float(of_prompt(prompt) @ picture)
        cosines = zip(prompts, (others @ picture).tolist(), strict=True)
        return 100.0 * all(own > cosine for other, cosine in cosines if other != prompt)

    return rate
