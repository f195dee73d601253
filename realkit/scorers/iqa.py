"""Quality without a reference by pyiqa, an extra: TOPIQ, MUSIQ, CLIP-IQA. `architecture` is
pyiqa's name of a metric; a source is its file of weights, "" where pyiqa fetches its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from realkit.base import device
from realkit.base.errors import RequestError, one_line
from realkit.scorers import references
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

WEIGHTS: Mapping[str, Kind] = {SOURCE: "file?"}
# What makes pyiqa build a metric without fetching anything, where the weights come from a source.
BARE: dict[str, dict[str, bool]] = {
    "topiq_nr": {"pretrained": False, "backbone_pretrain": False},
    "musiq": {"pretrained": False},
}


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for a metric that cannot be computed here."""
    references.check(name, entry, WEIGHTS)
    if entry.source and entry.architecture not in BARE:
        raise RequestError(
            f"Scorer {name!r} has the architecture {entry.architecture!r}: expected one of"
            f" {', '.join(BARE)}, or no source, so that pyiqa fetches its own weights"
        )
    if find_spec("pyiqa") is None:
        raise RequestError(
            f"Scorer {name!r} needs the package pyiqa, whose licence (PolyForm-Noncommercial-1.0.0)"
            " forbids commercial use: pip install 'realkit[pyiqa]'"
        )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The metric of a picture at its own size; pictures of one size go through it together. Raises
    RequestError where it cannot be loaded."""
    import torch

    metric = _metric(name, entry, locks)

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        by_size: dict[tuple[int, int], list[tuple[int, torch.Tensor]]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.size, []).append((place, _pixels(image)))
        values = [0.0] * len(prompts)
        for group in by_size.values():
            batch = torch.stack([pixels for _, pixels in group]).to(device.default_device())
            with torch.inference_mode():
                numbers = metric(batch).reshape(-1).tolist()
            for (place, _), number in zip(group, numbers, strict=True):
                values[place] = number
        return values

    return rate


def _metric(name: str, entry: Scorer, locks: Locks) -> Any:
    """pyiqa's network of a metric, whose input is pixels (N, 3, H, W) from 0 to 1."""
    bare = BARE[entry.architecture] if SOURCE in locks else {}
    try:
        import pyiqa

        metric = pyiqa.create_metric(entry.architecture, device=device.default_device(), **bare)
    except Exception as error:  # it imports and fetches much, which may fail in many ways
        raise RequestError(
            f"Scorer {name!r} cannot be loaded by pyiqa: {one_line(error, 200)}"
        ) from error
    if SOURCE in locks:
        references.fill(name, metric.net, references.tensors(name, locks[SOURCE]))
    return metric.eval()


def _pixels(image: Image) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    return to_tensor(image)  # type: ignore[no-any-return]
