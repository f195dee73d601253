"""Pairs of cells that differ in one axis alone: what a comparison is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.analysis.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd

# What may differ between two cells apart from prompt and seed: an axis each.
AXES = (
    "model", "sampler", "negative", "steps", "guidance", "width", "height", "dtype", "upscaler",
    "image_width", "image_height", "strength", "nfe_budget",
)  # fmt: skip
UNIT = ("prompt", "seed")
# Times and memory compare on equal terms alone.
CONDITIONS = ("batch", "rung", "decode_rung", "device", "dtype", "card")
# Cells of one batch share the run and these times: together they name the batch.
BATCH = ("run", "batch", "encode_s", "denoise_s")
ABSENT = "none"  # stands for an empty setting


@dataclass(frozen=True)
class Pairs:
    """The differences a - b of two arms, over everything else that both have.

    `differences` has a value for each unit: prompts, by name, or pairs of batches. Of a relative
    metric they are differences of logarithms. `linked` are axes that differ with the arms; `axes`
    holds, for each other axis with several values, the differences by prompt of each value; it is
    empty of a relative metric.
    """

    differences: dict[Any, float]
    prompts: int
    pairs: int
    left_out: int
    linked: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    axes: dict[str, dict[Any, list[float]]] = field(default_factory=dict)
    problem: str = ""  # why there are no pairs


def labelled(frame: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """The arm of each row: its value of `by`, or its values joined by " · "."""
    columns = []
    for name in by:
        absent = "native" if name == "upscaler" else ABSENT
        columns.append(frame[name].astype(object).where(frame[name].notna(), absent))
    if len(columns) == 1:
        return columns[0]
    joined = columns[0].map(str)
    for column in columns[1:]:
        joined = joined + " · " + column.map(str)
    return joined


def all_pairs(arms: Sequence[Any], baseline: Any | None) -> list[tuple[Any, Any]]:
    """The contrasts (a, b): each with the baseline, or all."""
    if baseline is None:
        return list(combinations(arms, 2))
    return [(arm, baseline) for arm in arms if arm != baseline]


def paired(a: pd.DataFrame, b: pd.DataFrame, metric: Metric, by: Sequence[str]) -> Pairs:
    """The pairs of two arms, joined on prompt, seed and every axis that both have in common."""
    keys: list[str] = []
    linked: dict[str, tuple[Any, Any]] = {}
    budgeted = _budgeted(a) and _budgeted(b)
    for axis in AXES:
        if axis in by or axis not in a or (axis == "steps" and budgeted):
            continue
        values_a, values_b = _values(a, axis), _values(b, axis)
        if set(values_a) & set(values_b):
            keys.append(axis)
        elif len(values_a) == 1 and len(values_b) == 1:
            linked[axis] = values_a[0], values_b[0]
        else:
            problem = f"no cell of one has the {axis} of any cell of the other"
            return Pairs({}, 0, 0, 0, linked, problem=problem)
    if metric.relative:
        keys += [name for name in CONDITIONS if name in a and name not in (*keys, *by)]
    on = [*UNIT, *keys]
    left, right = _cells(a, on, metric), _cells(b, on, metric)
    joined = left.merge(right, on=on, how="outer", suffixes=("_a", "_b"))
    whole = joined.dropna(subset=["value_a", "value_b"])
    left_out = len(joined) - len(whole)
    if not len(whole):
        problem = "no pair of cells has both values"
        if len(left) and len(right):
            shared = "batch, memory rung and card" if metric.relative else "prompt, seed and axes"
            problem = f"no two cells of equal {shared} have both values"
        return Pairs({}, 0, 0, left_out, linked, problem=problem)
    difference = whole["value_a"] - whole["value_b"]
    unit = whole["prompt"]
    if metric.relative:
        unit = whole["cluster_a"].map(str) + "\n" + whole["cluster_b"].map(str)
    means = difference.groupby(unit, sort=False).mean().to_dict()
    prompts = whole["prompt"].nunique()
    axes = {}
    if not metric.relative:
        axes = _by_axis(whole, difference, [axis for axis in keys if axis in AXES])
    return Pairs(means, prompts, len(whole), left_out, linked, axes)


def matrix(pairs: Sequence[Pairs]) -> np.ndarray:
    """(N, K): the differences of K contrasts over the N units that any of them has, else nan."""
    units: dict[Any, int] = {}
    for contrast in pairs:
        for unit in contrast.differences:
            units.setdefault(unit, len(units))
    values = np.full((max(1, len(units)), len(pairs)), np.nan)
    for column, contrast in enumerate(pairs):
        for unit, difference in contrast.differences.items():
            values[units[unit], column] = difference
    return values


def _budgeted(frame: pd.DataFrame) -> bool:
    return "nfe_budget" in frame and bool(frame["nfe_budget"].notna().all())


def _values(frame: pd.DataFrame, axis: str) -> list[Any]:
    """The different values of an axis."""
    column = frame[axis].astype(object)
    return list(dict.fromkeys(column.where(column.notna(), ABSENT)))


def _cells(frame: pd.DataFrame, on: list[str], metric: Metric) -> pd.DataFrame:
    """A row for each combination of the keys: its value, and the batch that it was made in."""
    import pandas as pd

    keys = {name: frame[name].astype(object).where(frame[name].notna(), ABSENT) for name in on}
    cells = pd.DataFrame(keys).astype(str)
    cells["value"] = metric.values(frame)
    if metric.relative:
        present = [name for name in BATCH if name in frame]
        cells["cluster"] = frame[present].astype(str).agg(" ".join, axis=1)
        return cells.drop_duplicates(on)
    # Cells that other settings tell apart, such as those linked to the arm, are averaged.
    means: pd.DataFrame = cells.groupby(on, sort=False)["value"].mean().reset_index()
    return means


def _by_axis(
    whole: pd.DataFrame, difference: pd.Series, axes: Sequence[str]
) -> dict[str, dict[Any, list[float]]]:
    """For each axis with several values: value → the differences by prompt."""
    found: dict[str, dict[Any, list[float]]] = {}
    for axis in axes:
        if whole[axis].nunique() < 2:
            continue
        means = difference.groupby([whole[axis], whole["prompt"]], sort=False).mean()
        found[axis] = {value: list(part) for value, part in means.groupby(level=0, sort=False)}
    return found
