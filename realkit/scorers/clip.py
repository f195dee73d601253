"""CLIP by open_clip: its encoders, and the CLIP score. A source is open_clip's MODEL:WEIGHTS, or a
folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from realkit.base import device, network
from realkit.base.errors import RequestError, one_line
from realkit.base.files import json_object
from realkit.scorers.references import SOURCE, Locks
from realkit.scorers.table import Rate, Scorer
from realkit.weights import clip_tokenizer, resolve
from realkit.weights.lock import Lock
from realkit.weights.sources import disk

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# open_clip's ending of a model with the activation that OpenAI trained with, x·sigmoid(1.702 x).
# Without it open_clip ≥ 3 builds another activation around those weights, and only warns.
QUICK = "-quickgelu"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for a source that open_clip cannot load."""
    source = entry.source
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
    if source.endswith(":openai") and QUICK not in source:
        _other_activation(f"Scorer {name!r}", source, QUICK)


def _other_activation(called: str, source: str, ending: str) -> NoReturn:
    model, _, weights = source.partition(":")
    raise RequestError(
        f"{called} has the source {source!r}, whose weights were trained with another"
        f" activation: write {model.removesuffix(QUICK)}{ending}:{weights}"
    )


@lru_cache(maxsize=8)
def length(source: str) -> tuple[Callable[[str], int], int] | None:
    """(tokens of a text, the most that the scorer sees); None where its tokenizer is not CLIP's and
    lies elsewhere. Imports neither torch nor open_clip."""
    if folder := disk.local(source):
        settings = json_object(folder / "open_clip_config.json").get("model_cfg", {})
    else:
        spec = find_spec("open_clip")  # located, not imported: the import takes seconds
        assert spec is not None and spec.origin is not None
        model = source.partition(":")[0].removesuffix(QUICK)
        file = Path(spec.origin).parent / "model_configs" / f"{model}.json"
        if not file.is_file():
            return None
        settings = json_object(file)
    text = settings.get("text_cfg", {})
    own = folder and (folder / "merges.txt").is_file()
    if "hf_tokenizer_name" in text and not own:
        return None
    most = int(text.get("context_length", clip_tokenizer.TOKENS))
    return clip_tokenizer.counter(folder if own else None), most


def cut(entry: Scorer, locks: Locks, prompt: str) -> int:
    """Tokens of a prompt that the scorer does not see; 0 where that cannot be told."""
    counted = length(entry.source)
    if counted is None or len(prompt.encode()) + 2 <= counted[1]:
        return 0  # no text has more tokens than bytes
    return max(0, counted[0](prompt) - counted[1])


def _absent(published: Mapping[str, Any] | None) -> str:
    """Why weights that open_clip fetches from the hub cannot be had; "" where they are in the
    hub's cache, or the hub answers: open_clip itself tries for a minute."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = (published or {}).get("hf_hub", "").rpartition("/")
    if not repository:
        return ""
    for name in (file or HUB_FILES[0], *HUB_FILES):
        if isinstance(try_to_load_from_cache(repository, name), str):
            return ""
    return network.hub_away()


class Encoders:
    """A CLIP model's two encoders on the default device, float32. Embeddings have length 1."""

    def __init__(self, called: str, source: str, locked: Lock | None) -> None:
        """Raises RequestError, which begins with `called`, where the weights cannot be loaded."""
        import open_clip

        self._device = device.default_device()
        model_name, _, weights = source.partition(":")
        if locked:
            model_name, weights = f"local-dir:{resolve.fetch(locked)}", ""
        trained = (open_clip.get_pretrained_cfg(model_name, weights) or {}).get("quick_gelu", False)
        built = (open_clip.get_model_config(model_name) or {}).get("quick_gelu", False)
        if weights and trained != built:
            _other_activation(called, source, QUICK if trained else "")
        if weights and (reason := _absent(open_clip.get_pretrained_cfg(model_name, weights))):
            raise RequestError(
                f"{called} cannot get its weights ({source}): {reason}, and they are not in the"
                " hub's cache: turn the internet on"
            )
        logging.disable(logging.ERROR)  # a line a retry of a hub; what fails in the end is raised
        try:
            self._model, _, self._prepare = open_clip.create_model_and_transforms(
                model_name, pretrained=weights or None, device=self._device
            )
            self._tokenize = open_clip.get_tokenizer(model_name)
        except Exception as error:  # a hub, a file or a header may fail in many ways
            raise RequestError(
                f"{called} cannot get its weights ({source}): {one_line(error, 120)}. Is the"
                " internet on, or is the name wrong?"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
        self._model.float().eval()
        self._known: dict[str, torch.Tensor] = {}  # of prompts

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax, as the model was trained."""
        return float(self._model.logit_scale.detach().exp())

    def images(self, images: Iterable[Image]) -> torch.Tensor:
        """The embeddings (N, D) of RGB pictures, in one pass."""
        import torch

        with torch.no_grad():
            pixels = self._pixels(images).to(self._device)
            return torch.nn.functional.normalize(self._model.encode_image(pixels), dim=-1)

    def _pixels(self, images: Iterable[Image]) -> torch.Tensor:
        """Pictures as the model takes them, (N, 3, H, W), float32: resized one by one, the rest of
        open_clip's transforms (to a tensor in [0, 1], normalised) on all together."""
        import numpy as np
        import torch

        *each, _, normalise = self._prepare.transforms
        levels = []
        for image in images:
            for transform in each:
                image = transform(image)
            levels.append(np.asarray(image))
        pixels = torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2).contiguous()
        return normalise(pixels.float().div(255))  # type: ignore[no-any-return]

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """The embeddings (N, D) of texts."""
        return self.embedded(self._tokenize(list(texts)))

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embeddings (N, D) of texts as tokens (N, L)."""
        import torch

        with torch.no_grad():
            embeddings = self._model.encode_text(tokens.to(self._device))
            return torch.nn.functional.normalize(embeddings, dim=-1)

    def tokens(self, text: str, most: int | None = None) -> torch.Tensor:
        """The tokens (L,) of a text between both marks, padded to `most`, by default to the length
        that the model sees."""
        return self._tokenize([text], context_length=most)[0]  # type: ignore[no-any-return]

    def prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """The embeddings (N, D) of prompts, each computed alone and once."""
        import torch

        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self.texts([prompt])[0]
        return torch.stack([self._known[prompt] for prompt in prompts])


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """100 · max(cos, 0) between picture and prompt embeddings (CLIPScore, arXiv 2104.08718, without
    its factor 2.5). Raises RequestError where the weights cannot be loaded."""
    encoders = Encoders(f"Scorer {name!r}", entry.source, locks.get(SOURCE))

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        cosines = (encoders.images(images) * encoders.prompts(prompts)).sum(-1)
        return (100 * cosines.clamp(min=0)).tolist()

    return rate
