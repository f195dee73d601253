"""Human preference score (HPS v2.1, arXiv 2306.09341): a CLIP of open_clip's `architecture`,
fine-tuned on people's choices. A source is its file of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.scorers import references
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

WEIGHTS: Mapping[str, Kind] = {SOURCE: "file"}


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry that does not say what its weights are of."""
    references.check(name, entry, WEIGHTS)
    if not entry.architecture:
        raise RequestError(
            f"Scorer {name!r} has no architecture: expected a name of open_clip's, such as ViT-H-14"
        )


def network(name: str, architecture: str) -> torch.nn.Module:
    """A network of open_clip's, with random weights. Raises RequestError for an unknown name."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    if config is None:
        raise RequestError(
            f"Scorer {name!r} has the architecture {architecture!r}, which open_clip does not know:"
            " expected one such as ViT-H-14"
        )
    return open_clip.CLIP(**config)


def prepared(image: Image, side: int) -> torch.Tensor:
    """An RGB picture as pixels (3, side, side): its longer side resized by a bicubic filter over
    floats, black around it, then CLIP's means and deviations (the package hpsv2 1.2.0,
    open_clip/transform.py, with resize_longest_max)."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    scale = side / max(image.size)
    height, width = round(image.height * scale), round(image.width * scale)
    pixels = transforms.to_tensor(image)
    if scale != 1:
        size = [max(1, height), max(1, width)]
        pixels = transforms.resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
    below, right = side - pixels.shape[1], side - pixels.shape[2]
    border = [right // 2, below // 2, right - right // 2, below - below // 2]
    pixels = transforms.pad(pixels, border)
    return transforms.normalize(pixels, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 · cos between picture and prompt embeddings; the package hpsv2 gives the cosine, its
    tables a hundred times it. Raises RequestError where the weights cannot be loaded."""
    import open_clip
    import torch

    weights = references.tensors(name, locks[SOURCE])
    model = references.fill(name, network(name, entry.architecture), weights)
    del weights
    tokenize = open_clip.get_tokenizer(entry.architecture)
    side = model.visual.image_size[0]
    place = model.logit_scale.device

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        with torch.inference_mode():
            return model.encode_text(tokenize([prompt]).to(place), normalize=True)[0]

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        texts = torch.stack([of_prompt(prompt) for prompt in prompts])
        pixels = torch.stack([prepared(image, side) for image in images])
        with torch.inference_mode():
            pictures = model.encode_image(pixels.to(place), normalize=True)
        return (100 * (pictures * texts).sum(-1)).tolist()

    return rate
