"""What CLIP reads out of a picture by texts of its own: whether it looks like a photograph, and
whether it finds its own prompt among others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.catalog.suites import PROMPTS
from realkit.scorers import clip
from realkit.scorers.references import SOURCE, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    from PIL.Image import Image


def check_contrast(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without texts on both sides."""
    clip.check(name, entry)
    if not entry.words or not entry.against or not all(entry.against):
        raise RequestError(
            f"Scorer {name!r} contrasts texts: expected `words`, a list, and `against`, lists"
        )


def load_contrast(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 times the share of `words` in a softmax over it and each list of `against`.

    A list is one class, whose embedding is the mean of its texts' (the prompt ensembles of CLIP,
    arXiv 2103.00020, section 3.1.4).
    """
    import torch

    encoders = clip.Encoders(f"Scorer {name!r}", entry.source, locks.get(SOURCE))
    classes = [encoders.texts(texts).mean(0) for texts in (entry.words, *entry.against)]
    directions = torch.nn.functional.normalize(torch.stack(classes), dim=-1)

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        cosines = encoders.images(images) @ directions.T
        return (100 * torch.softmax(encoders.scale * cosines, dim=-1)[:, 0]).tolist()

    return rate


def check_rank(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without a suite of the catalogue."""
    clip.check(name, entry)
    if not entry.suite:
        raise RequestError(f"Scorer {name!r} ranks prompts: expected `suite`, a suite's name")
    find(PROMPTS, entry.suite)


def load_rank(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 where a picture is nearer to its own prompt than to any other of the suite, else 0: its
    mean is R-precision in percent (arXiv 1711.10485). A prompt from elsewhere joins the suite."""
    encoders = clip.Encoders(f"Scorer {name!r}", entry.source, locks.get(SOURCE))
    suite = PROMPTS[find(PROMPTS, entry.suite)].prompts
    rivals = encoders.prompts(suite)

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        pictures = encoders.images(images)
        own = (pictures * encoders.prompts(prompts)).sum(-1).tolist()
        numbers = []
        others = (pictures @ rivals.T).tolist()
        for prompt, cosine, cosines in zip(prompts, own, others, strict=True):
            nearer = [
                text
                for text, other in zip(suite, cosines, strict=True)
                if text != prompt and other >= cosine
            ]
            numbers.append(0.0 if nearer else 100.0)
        return numbers

    return rate
