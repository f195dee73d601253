"""Pairs of cells that differ in one axis alone: what a comparison is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from realkit.analysis.metrics import Metric

# What may differ between two cells apart from prompt and seed: an axis each.
AXES = (
    "model", "sampler", "negative", "steps", "guidance", "width", "height", "dtype", "upscaler",
    "image_width", "image_height", "strength", "nfe_budget",
)  # fmt: skip
MADE = ("image_width", "image_height", "dtype")  # of AXES: a cell has them when it is made
UNIT = ("prompt", "seed")
# In the rows of rk.at_equal: what a cell may cost. It chose the axes BOUGHT, which may differ then.
BOUND, BOUGHT = "cost_bound", ("steps", "nfe_budget")
# Times and memory compare on equal terms alone.
CONDITIONS = ("batch", "rung", "decode_rung", "device", "dtype", "card")
# Cells of one batch share the run and these times: together they name the batch.
BATCH = ("run", "batch", "encode_s", "denoise_s")
ABSENT = "none"  # stands for an empty setting
Arm = Any  # a value of the compared axis, or the text of several values


@dataclass(frozen=True)
class Pairs:
    """The differences a - b of two arms, over everything else that both have.

    `differences` has a value for each unit: prompts, by name, or batches. Of a relative metric they
    are differences of logarithms. `linked` are axes that differ with the arms; `axes` holds, for
    each other axis with several values, the differences by prompt of each value; it is empty of a
    relative metric.
    """

    differences: dict[Any, float]
    prompts: int
    pairs: int
    left_out: int
    linked: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    axes: dict[str, dict[Any, dict[str, float]]] = field(default_factory=dict)
    problem: str = ""  # why there are no pairs


def labelled(frame: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """The arm of each row: its value of `by`, or its values joined by " · "."""
    columns = []
    for name in by:
        absent = "native" if name == "upscaler" else ABSENT
        values = frame[name].astype(object)
        columns.append(_named_apart(values, values.map(partial(_label, absent=absent))))
    if len(columns) == 1:
        return columns[0]
    joined = columns[0].map(str)
    for column in columns[1:]:
        joined = joined + " · " + column.map(str)
    return joined


def _named_apart(values: pd.Series, labels: pd.Series) -> pd.Series:
    """The labels, but those of different texts that would read alike are the texts as they are."""
    words = values[values.map(lambda value: isinstance(value, str))]
    alike = words.groupby(labels[words.index], sort=False).transform("nunique") > 1
    return labels.where(~labels.index.isin(words.index[alike]), values.map(repr))


def texts(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as part of a key: 20 and 20.0 are one text, prompts keep their line breaks."""
    return frame[name].astype(object).map(str if name == "prompt" else _text)


def as_made(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the axes MADE of cells that were not made: what the cells of equal settings
    have, where those agree. An empty value is none, and must not tell arms apart."""
    blank = [name for name in MADE if name in frame and frame[name].isna().any()]
    asked = {name: texts(frame, name) for name in AXES if name in frame and name not in MADE}
    if not blank or not asked:
        return frame
    groups = pd.DataFrame(asked).groupby(list(asked), sort=False).ngroup()
    for name in blank:
        values = frame[name].astype(object)
        by_group = values.map(str).where(values.notna()).groupby(groups)
        known = values.groupby(groups).transform("first").where(by_group.transform("nunique") == 1)
        frame = frame.assign(**{name: values.where(values.notna(), known)})
    return frame


def all_pairs(arms: Sequence[Arm], baseline: Arm | None) -> list[tuple[Arm, Arm]]:
    """The contrasts (a, b): each with the baseline, or all."""
    if baseline is None:
        return list(combinations(arms, 2))
    return [(arm, baseline) for arm in arms if arm != baseline]


class Arms:
    """The cells of all arms of one comparison, from which `paired` takes two at a time."""

    def __init__(self, frame: pd.DataFrame, by: Sequence[str], metric: Metric) -> None:
        self._by, self._metric = by, metric
        self._frame = as_made(frame.reset_index(drop=True))
        labels = labelled(self._frame, by)
        self._rows = {arm: np.flatnonzero(labels == arm) for arm in dict.fromkeys(labels)}
        self._texts = {}
        for name in (*UNIT, *AXES, BOUND, *(CONDITIONS if metric.relative else ())):
            if name in self._frame:
                self._texts[name] = texts(self._frame, name).to_numpy(object)
        # A cell of an unknown prompt has no partner.
        values = metric.values(self._frame).where(self._frame["prompt"].notna())
        self._values = values.to_numpy(float)
        self._batches = batch_names(self._frame).to_numpy(object) if metric.relative else None
        self._codes: dict[tuple[str, ...], np.ndarray] = {}

    @property
    def names(self) -> list[Arm]:
        """The arms, in the order of the table."""
        return list(self._rows)

    def paired(self, a: Arm, b: Arm) -> Pairs:
        """The pairs of two arms, joined on prompt, seed and every axis that both have in common."""
        first, second = self._rows[a], self._rows[b]
        keys, linked, problem = self._keys(first, second)
        if problem:
            return Pairs({}, 0, 0, max(len(first), len(second)), linked, problem=problem)
        left, right = self._cells(first, keys), self._cells(second, keys)
        shared = [code for code in left if code in right]
        left_out = len(left.keys() | right.keys()) - len(shared)
        missing = [code for code in shared if np.isnan(left[code][0] - right[code][0])]
        whole = [code for code in shared if not np.isnan(left[code][0] - right[code][0])]
        left_out += len(missing)
        if not whole:
            terms = "batch, memory rung and card" if self._metric.relative else "prompt, seed, axes"
            problem = f"no two cells of equal {terms} have both values"
            return Pairs({}, 0, 0, left_out, linked, problem=problem)
        differences = np.array([left[code][0] - right[code][0] for code in whole])
        rows = np.array([left[code][1] for code in whole])
        prompts = self._texts["prompt"][rows]
        units = prompts
        if self._batches is not None:
            others = np.array([right[code][1] for code in whole])
            units = _components(self._batches[rows], self._batches[others])
        axes = {}
        if not self._metric.relative:
            axes = self._by_axis(differences, rows, [axis for axis in keys if axis in AXES])
        means = _means(units, differences)
        return Pairs(means, len(set(prompts)), len(whole), left_out, linked, axes)

    def problem(self, a: Arm, b: Arm) -> str:
        """Why no cell of one arm can be paired with one of the other, by their settings; "": some
        can."""
        return self._keys(self._rows[a], self._rows[b])[2]

    def _keys(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[list[str], dict[str, tuple[Any, Any]], str]:
        """(columns that a pair shares, axes that differ with the arms, why there are no pairs)."""
        keys, linked = list(UNIT), {}
        budgeted = self._all_have("nfe_budget", first, second)
        bounded = self._all_have(BOUND, first, second)
        for axis in (*AXES, BOUND):
            if axis in self._by or axis not in self._texts:
                continue
            # The profile "equal-nfe" sets the steps by the budget, and the other way round.
            if budgeted and (axis == "steps" or (axis == "nfe_budget" and "steps" in self._by)):
                continue
            values = self._texts[axis]
            one, two = set(values[first]), set(values[second])
            if axis in MADE and len(one | two) > 1:
                one, two = one - {ABSENT} or one, two - {ABSENT} or two
            if bounded and axis in BOUGHT:
                if one != two:
                    linked[axis] = _listed(values[first]), _listed(values[second])
            elif one & two:
                keys.append(axis)
            elif len(one) == 1 and len(two) == 1:
                linked[axis] = one.pop(), two.pop()
            else:
                problem = f"no cell of one has the {axis} of any cell of the other"
                return keys, {}, problem
        if bounded and "cost" in self._frame:
            of_a, of_b = (self._frame["cost"].iloc[rows].median() for rows in (first, second))
            if max(of_a, of_b) > 1.05 * min(of_a, of_b):  # nearer is as near as steps come
                linked["cost"] = f"{of_a:.3g}", f"{of_b:.3g}"
        if self._metric.relative:
            keys += [name for name in CONDITIONS if name in self._texts and name not in keys]
        return [name for name in keys if name not in self._by], linked, ""

    def _all_have(self, name: str, first: np.ndarray, second: np.ndarray) -> bool:
        values = self._texts.get(name)
        return values is not None and ABSENT not in {*values[first], *values[second]}

    def _cells(self, rows: np.ndarray, keys: list[str]) -> dict[int, tuple[float, int]]:
        """By the code of each combination of the keys: its value, nan where no cell has one, and
        the row of a cell. Cells that other settings tell apart, such as those linked to the arm,
        are averaged; of times and memory the first counts."""
        codes = self._coded(tuple(keys))[rows]
        values = self._values[rows]
        cells: dict[int, tuple[float, int]] = {}
        counts: dict[int, int] = {}
        for code, value, row in zip(codes.tolist(), values.tolist(), rows.tolist(), strict=True):
            before = cells.get(code)
            if before is None or np.isnan(before[0]):
                cells[code], counts[code] = (value, row), 1
            elif not np.isnan(value) and not self._metric.relative:
                counts[code] += 1
                mean = before[0] + (value - before[0]) / counts[code]
                cells[code] = mean, before[1]
        return cells

    def _coded(self, keys: tuple[str, ...]) -> np.ndarray:
        """A number for each row, equal where all keys are."""
        if keys not in self._codes:
            columns = pd.DataFrame({name: self._texts[name] for name in keys})
            self._codes[keys] = columns.groupby(list(keys), sort=False).ngroup().to_numpy()
        return self._codes[keys]

    def _by_axis(
        self, differences: np.ndarray, rows: np.ndarray, axes: Sequence[str]
    ) -> dict[str, dict[Any, dict[str, float]]]:
        """For each axis with several values: value → prompt → the mean difference."""
        prompts = self._texts["prompt"][rows]
        found: dict[str, dict[Any, dict[str, float]]] = {}
        for axis in axes:
            values = self._texts[axis][rows]
            for value in dict.fromkeys(values) if len(set(values)) > 1 else ():
                at = values == value
                found.setdefault(axis, {})[value] = _means(prompts[at], differences[at])
        return found


def batch_names(frame: pd.DataFrame) -> pd.Series:
    """A name for the batch of each row, equal where they share it."""
    present = [name for name in BATCH if name in frame]
    return frame[present].astype(object).map(str).agg(" ".join, axis=1)


def matrix(differences: Sequence[dict[Any, float]]) -> np.ndarray:
    """(N, K): the differences of K contrasts over the N units that any of them has, else nan."""
    units: dict[Any, int] = {}
    for contrast in differences:
        for unit in contrast:
            units.setdefault(unit, len(units))
    values = np.full((max(1, len(units)), len(differences)), np.nan)
    for column, contrast in enumerate(differences):
        for unit, difference in contrast.items():
            values[units[unit], column] = difference
    return values


def _label(value: Any, absent: str) -> Any:
    """A value as an arm: numbers and truth values stay, texts have no line breaks."""
    if isinstance(value, (list, tuple, dict, set, np.ndarray)):
        value = str(value)
    if value is None or value is pd.NA or value != value:
        return absent
    if isinstance(value, str):
        return " ".join(value.split()) or "(empty)"
    return value


def _text(value: Any) -> str:
    """A value as part of a key: 20 and 20.0 are one."""
    if isinstance(value, str):
        return value  # two spaces are another text than one
    value = _label(value, ABSENT)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value)


def _listed(values: np.ndarray) -> str:
    """Several texts as one, each once."""
    return ", ".join(dict.fromkeys(values))


def _means(units: np.ndarray, differences: np.ndarray) -> dict[Any, float]:
    sums: dict[Any, float] = {}
    counts: dict[Any, int] = {}
    for unit, difference in zip(units.tolist(), differences.tolist(), strict=True):
        sums[unit] = sums.get(unit, 0.0) + difference
        counts[unit] = counts.get(unit, 0) + 1
    return {unit: total / counts[unit] for unit, total in sums.items()}


def _components(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A unit for each pair: pairs that share a batch, directly or by others, are one."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for one, two in zip(first, second, strict=True):
        parents[root(("a", one))] = root(("b", two))
    roots = [root(("a", one)) for one in first]
    numbers = {node: number for number, node in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[node] for node in roots])
