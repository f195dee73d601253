"""Formulas of low-rank differences: the tensors of a patch, by role → the difference Δ of a weight.

LoRA: arXiv 2106.09685. LoCon, LoHa and LoKr, also with Tucker's decomposition of a convolution's
kernel: arXiv 2309.14859 (LyCORIS), whose code defines the layout and the scale alpha / rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


def delta(tensors: Tensors, alpha: float | None) -> torch.Tensor:
    """The difference, in the tensors' format: Δ · alpha / rank, or Δ where alpha is None or the
    method has no rank. Raises ValueError or RuntimeError for shapes that do not fit together."""
    formula = FORMULAS[frozenset(tensors)]
    difference = formula(tensors)
    rank = _rank(tensors)
    return difference if alpha is None or rank is None else difference * (alpha / rank)


def has_rank(roles: Iterable[str]) -> bool:
    """Whether an alpha has a meaning beside these roles."""
    return any(role in ("down", "w1_b") or role.startswith("kron_") for role in roles)


def _rank(tensors: Tensors) -> int | None:
    """The rank that alpha is divided by. LoKr with both factors whole has none."""
    ranks = {
        tensors[role].shape[0]
        for role in ("down", "w1_b", "kron_w1_b", "kron_w2_b")
        if role in tensors
    }
    if len(ranks) > 1:
        raise ValueError("its factors have different ranks")
    return ranks.pop() if ranks else None


def fits(difference: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether a difference is one for a weight: of its shape, or the same matrix written as a 1 × 1
    convolution, or a convolution's kernels written as rows."""
    if difference == weight:
        return True
    flat = len(difference) == 2 or (len(difference) > 2 and prod(difference[2:]) == 1)
    return (
        flat
        and len(weight) >= 2
        and difference[0] == weight[0]
        and prod(difference[1:]) == prod(weight[1:])
    )


def _lora(tensors: Tensors) -> torch.Tensor:
    """up (out, rank[, 1, 1]), down (rank, in[, h, w]) → (out, in[, h, w])."""
    up, down = tensors["up"], tensors["down"]
    _expect(prod(up.shape[2:]) == 1 and min(up.ndim, down.ndim) >= 2)
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _lora_tucker(tensors: Tensors) -> torch.Tensor:
    """up (out, rank, 1, 1), mid (rank, rank, h, w), down (rank, in, 1, 1) → (out, in, h, w)."""
    up, mid, down = tensors["up"], tensors["mid"], tensors["down"]
    _expect(prod(up.shape[2:]) == 1 and prod(down.shape[2:]) == 1)
    return _tucker(mid, up.flatten(1).T, down.flatten(1))


def _loha(tensors: Tensors) -> torch.Tensor:
    """w1_a, w2_a (out, rank); w1_b, w2_b (rank, in · h · w) → (out, in · h · w)."""
    one = tensors["w1_a"] @ tensors["w1_b"]
    two = tensors["w2_a"] @ tensors["w2_b"]
    _expect(one.shape == two.shape and one.ndim == 2)
    return one * two


def _loha_tucker(tensors: Tensors) -> torch.Tensor:
    """t1, t2 (rank, rank, h, w); w·_a (rank, out); w·_b (rank, in) → (out, in, h, w)."""
    one = _tucker(tensors["t1"], tensors["w1_a"], tensors["w1_b"])
    two = _tucker(tensors["t2"], tensors["w2_a"], tensors["w2_b"])
    _expect(one.shape == two.shape)
    return one * two


def _lokr(tensors: Tensors) -> torch.Tensor:
    """w1 (a, b) ⊗ w2 (c, d[, h, w]) → (a · c, b · d[, h, w]); each whole, or a product of factors,
    w2 also by Tucker's decomposition."""
    import torch

    if "kron_w1" in tensors:
        one = tensors["kron_w1"]
    else:
        one = tensors["kron_w1_a"] @ tensors["kron_w1_b"]
    if "kron_w2" in tensors:
        two = tensors["kron_w2"]
    elif "kron_t2" in tensors:
        two = _tucker(tensors["kron_t2"], tensors["kron_w2_a"], tensors["kron_w2_b"])
    else:
        left, right = tensors["kron_w2_a"], tensors["kron_w2_b"]
        _expect(left.ndim == 2 and right.ndim >= 2)
        two = (left @ right.flatten(1)).reshape(left.shape[0], *right.shape[1:])
    _expect(one.ndim == 2 and two.ndim >= 2)
    return torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - 2)), two.contiguous())


def _difference(tensors: Tensors) -> torch.Tensor:
    return next(iter(tensors.values()))


def _tucker(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """core (i, j, h, w), left (i, out), right (j, in) → (out, in, h, w)."""
    import torch

    _expect(left.ndim == 2 and right.ndim == 2 and core.ndim >= 3)
    return torch.einsum("ij...,ip,jr->pr...", core, left, right)


def _expect(holds: bool) -> None:
    if not holds:
        raise ValueError("its factors have shapes that do not fit together")


def _formulas() -> dict[frozenset[str], Callable[[Tensors], torch.Tensor]]:
    hadamard = frozenset({"w1_a", "w1_b", "w2_a", "w2_b"})
    formulas: dict[frozenset[str], Callable[[Tensors], torch.Tensor]] = {
        frozenset({"down", "up"}): _lora,
        frozenset({"down", "up", "mid"}): _lora_tucker,
        hadamard: _loha,
        hadamard | {"t1", "t2"}: _loha_tucker,
        frozenset({"difference"}): _difference,
        frozenset({"bias"}): _difference,
    }
    for one in ({"kron_w1"}, {"kron_w1_a", "kron_w1_b"}):
        for two in ({"kron_w2"}, {"kron_w2_a", "kron_w2_b"}, {"kron_w2_a", "kron_w2_b", "kron_t2"}):
            formulas[frozenset(one | two)] = _lokr
    return formulas


# The roles of a patch, without alpha → its formula
FORMULAS = _formulas()
