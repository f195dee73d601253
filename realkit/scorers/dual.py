"""Two encoders of transformers that meet in one space, picture and text: SigLIP 2, and PickScore's
CLIP. A source is a hub id or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError, one_line
from realkit.scorers import references, tokens
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PROCESSOR = "processor"  # the tokenizer and the picture's preparation, where published elsewhere
SIGLIP: Mapping[str, Kind] = {SOURCE: "folder"}
PICKSCORE: Mapping[str, Kind] = {SOURCE: "folder", PROCESSOR: "configs"}


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry with parts."""
    references.check(name, entry, SIGLIP)


def check_pickscore(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without a processor."""
    references.check(name, entry, PICKSCORE)


class Encoders:
    """A model's two encoders on the default device, float32. Embeddings have length 1."""

    def __init__(self, name: str, weights: Lock, processor: Lock) -> None:
        """Raises RequestError, which names the scorer, where the weights cannot be loaded."""
        from transformers import AutoModel

        self._model = references.pretrained(name, AutoModel, weights)
        self.folder = references.fetch(name, processor)
        self._prepare = prepared(name, self.folder)

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax, as the model was trained."""
        return float(self._model.logit_scale.detach().exp())

    @property
    def width(self) -> int:
        """Numbers of a CLIP's embedding."""
        return int(self._model.config.projection_dim)

    def images(self, images: Iterable[Image]) -> torch.Tensor:
        """The embeddings (N, D) of RGB pictures."""
        import torch

        with torch.inference_mode():
            pixels = torch.cat([self._prepare(image) for image in images])
            output = self._model.get_image_features(pixel_values=pixels.to(self._model.device))
            return torch.nn.functional.normalize(output.pooler_output, dim=-1)

    def text(self, ids: Sequence[int]) -> torch.Tensor:
        """The embedding (D,) of a text's tokens."""
        import torch

        with torch.inference_mode():
            batch = torch.tensor([ids], device=self._model.device)
            output = self._model.get_text_features(input_ids=batch)
            return torch.nn.functional.normalize(output.pooler_output[0], dim=-1)


def prepared(name: str, folder: Path) -> Any:
    """A function picture → pixels (1, 3, H, W) by a folder's preprocessor_config.json. It resizes
    by Pillow, as the published numbers were made; torchvision's resizes differ by a level."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except Exception as error:  # a config may be wrong in many ways
        raise RequestError(
            f"Scorer {name!r} has no valid preprocessor_config.json: {one_line(error, 200)}"
        ) from error
    return lambda image: processor(images=image, return_tensors="pt")["pixel_values"]


def load_siglip(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 · cos between picture and prompt embeddings. Raises RequestError where the weights cannot
    be loaded.

    A prompt is lower-cased, cut to 63 tokens, ended and padded to 64 on the right, as SigLIP 2 was
    trained (github.com/google-research/big_vision; arXiv 2502.14786).
    """
    encoders = Encoders(name, locks[SOURCE], locks[SOURCE])
    tokenizer = tokens.read(encoders.folder / tokens.FILE)
    end, pad = tokenizer.token_to_id("<eos>"), tokenizer.token_to_id("<pad>")

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        ids = tokenizer.encode(prompt.lower(), add_special_tokens=False).ids
        ids = [*ids[: entry.tokens - 1], end]
        return encoders.text(ids + [pad] * (entry.tokens - len(ids)))

    return _rate(encoders, of_prompt, 100.0)


def load_pickscore(name: str, entry: Scorer, locks: Locks) -> Rate:
    """exp(logit scale) · cos between picture and prompt embeddings, the published PickScore
    (github.com/yuvalkirstain/PickScore; arXiv 2305.01569). Raises RequestError where the weights
    cannot be loaded."""
    from transformers import AutoTokenizer

    encoders = Encoders(name, locks[SOURCE], locks[PROCESSOR])
    tokenizer = AutoTokenizer.from_pretrained(encoders.folder, local_files_only=True)

    @lru_cache(maxsize=4096)
    def of_prompt(prompt: str) -> torch.Tensor:
        ids = tokenizer(prompt, truncation=True, max_length=entry.tokens)["input_ids"]
        return encoders.text(ids)

    return _rate(encoders, of_prompt, encoders.scale)


def _rate(encoders: Encoders, of_prompt: Any, scale: float) -> Rate:
    import torch

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        texts = torch.stack([of_prompt(prompt) for prompt in prompts])
        cosines = (encoders.images(images) * texts).sum(-1)
        return (scale * cosines).tolist()

    return rate
