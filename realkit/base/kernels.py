"""Figures of sets of embeddings of length 1: how far from photographs, how easily told from them,
how various."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5


def kernel(first: NDArray, second: NDArray) -> NDArray:
    """(N, M): the cubic kernel (1 + cos)³ of two sets of embeddings (N, D), (M, D), as in KID
    (arXiv 1801.01401), on lengths of 1 so that it lies within 0 to 8."""
    products: NDArray = (1 + first @ second.T) ** 3
    return products


def distances(groups: Sequence[NDArray], photographs: NDArray) -> NDArray:
    """(P,): the kernel distance of P groups of pictures, such as those of a prompt, to photographs,
    as jackknife pseudo-values: their mean is the distance of the whole set, and an interval of
    their mean is one of the distance, given these photographs.

    The distance is 1,000 times the unbiased squared maximum mean discrepancy (Gretton et al. 2012,
    lemma 6) without pairs within a group: pictures of one prompt resemble each other, and no two
    photographs are of one prompt. It may lie below 0. Each group counts once. nan for fewer than
    three groups or two photographs.
    """
    count, known = len(groups), len(photographs)
    if count < 3 or known < 2:
        return np.full(count, np.nan)
    own = kernel(photographs, photographs)
    among = (own.sum() - np.trace(own)) / (known * (known - 1))
    toward = np.array([kernel(group, photographs).mean() for group in groups])
    starts = np.cumsum([0, *map(len, groups)])[:-1]
    sizes = np.array([len(group) for group in groups])
    pictures = np.concatenate(groups)
    between = np.empty((count, count))
    for number, group in enumerate(groups):
        sums = np.add.reduceat(kernel(group, pictures).mean(0), starts)
        between[number] = sums / sizes
    np.fill_diagonal(between, 0)
    total, each = between.sum(), between.sum(1)
    pseudo = total / (count - 1) - (total - 2 * each) / (count - 2)
    return 1000 * (pseudo + among - 2 * toward)


def told_apart(groups: Sequence[NDArray], photographs: NDArray) -> NDArray:
    """(P,): of each group's pictures, the mean share, in percent, of photographs that look more
    like photographs: the area under the curve of a classifier, 50 where it cannot tell them apart.

    The classifier is the witness of the kernel distance: the mean kernel with photographs less that
    with pictures. Groups and photographs are dealt to up to 5 folds in their order; it judges those
    of each fold by the others alone. nan for fewer than two groups or photographs.
    """
    count, known = len(groups), len(photographs)
    shares = np.full(count, np.nan)
    folds = min(FOLDS, count, known)
    if folds < 2:
        return shares
    of_group, of_photograph = np.arange(count) % folds, np.arange(known) % folds
    for fold in range(folds):
        others = [groups[number] for number in np.flatnonzero(of_group != fold).tolist()]
        learnt = photographs[of_photograph != fold]
        held = _witness(photographs[of_photograph == fold], learnt, others)
        for number in np.flatnonzero(of_group == fold).tolist():
            seen = _witness(groups[number], learnt, others)[:, None]
            shares[number] = 100 * ((held > seen) + 0.5 * (held == seen)).mean()
    return shares


def _witness(vectors: NDArray, photographs: NDArray, groups: Sequence[NDArray]) -> NDArray:
    with_pictures = [kernel(vectors, group).mean(1) for group in groups]
    like: NDArray = kernel(vectors, photographs).mean(1)
    return like - np.mean(with_pictures, axis=0)


def diversity(pictures: NDArray) -> float:
    """100 · (1 - mean cos) over the pairs of N pictures: 0 where all are equal; nan for one."""
    count = len(pictures)
    if count < 2:
        return float("nan")
    total = (pictures @ pictures.T).sum() - (pictures * pictures).sum()
    return float(100 * (1 - total / (count * (count - 1))))


def vendi(pictures: NDArray) -> float:
    """The effective number of different pictures among N, 1 to N: the exponential of the entropy of
    the eigenvalues of their cosines over N (arXiv 2210.02410). nan for one."""
    count = len(pictures)
    if count < 2:
        return float("nan")
    values = np.linalg.eigvalsh(pictures @ pictures.T / count)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
