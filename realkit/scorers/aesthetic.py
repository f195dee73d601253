"""The LAION aesthetic predictor: a head of linear layers on CLIP's embedding of a picture. A source
is the head's file of weights; the part `clip` is the CLIP that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError
from realkit.scorers import references
from realkit.scorers.dual import Encoders
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CLIP = "clip"
WEIGHTS: Mapping[str, Kind] = {SOURCE: "file", CLIP: "folder"}
# Numbers of the linear layers in the published file; between them were dropouts and no activation.
LAYERS = (0, 2, 4, 6, 7)


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without a CLIP."""
    references.check(name, entry, WEIGHTS)


def head(
    name: str, weights: Mapping[str, torch.Tensor], width: int, prefix: str = ""
) -> torch.nn.Module:
    """Linear layers, from vectors of `width` numbers to one number each. Raises RequestError for
    other weights than theirs; `prefix` begins the tensors' names."""
    import torch

    sizes, layers = [], {}
    for number in LAYERS:
        weight = weights.get(f"{prefix}layers.{number}.weight", torch.empty(0, 0))
        sizes.append(tuple(weight.shape))
        layers[str(number)] = torch.nn.Linear(*reversed(weight.shape))
    chain = [width, *(size[0] for size in sizes)]
    if [size[1] for size in sizes] != chain[:-1] or chain[-1] != 1:
        raise RequestError(
            f"Scorer {name!r}: its head takes vectors through the sizes {sizes}: expected"
            f" {len(LAYERS)} linear layers, from {width} numbers to one"
        )
    network = torch.nn.Module()
    network.layers = torch.nn.ModuleDict(layers)
    own = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    return references.fill(name, network, own)


def apply(network: torch.nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """The head's numbers (N,) of vectors (N, D)."""
    for layer in network.layers.values():
        vectors = layer(vectors)
    return vectors[:, 0]


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The mean rating from 1 to 10 that people are predicted to give the picture
    (github.com/christophschuhmann/improved-aesthetic-predictor). Raises RequestError where the
    weights cannot be loaded."""
    import torch

    encoders = Encoders(name, locks[CLIP], locks[CLIP])
    network = head(name, references.tensors(name, locks[SOURCE]), encoders.width)

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        with torch.inference_mode():
            return apply(network, encoders.images(images)).tolist()

    return rate
