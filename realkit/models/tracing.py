"""Tensors that take no memory and remember what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def traced_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors without memory whose results remember, in `sources`, the names they are made of."""
    import torch

    class Traced(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = super().__torch_function__(function, types, args, kwargs or {})
            sources: set[str] = set()
            for value in _flat(args):
                sources |= getattr(value, "sources", set())
            for value in _flat([result]):
                if isinstance(value, cls):
                    value.sources = sources  # type: ignore[attr-defined]
            return result

    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.empty(shape, device="meta").as_subclass(Traced)
        tensors[name].sources = {name}  # type: ignore[attr-defined]
    return tensors


def _flat(values: Any) -> Iterator[Any]:
    """The values of nested lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value
