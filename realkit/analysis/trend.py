"""Dose and response: how a metric follows a number such as guidance or steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from realkit.analysis.answer import Answer
from realkit.analysis.metrics import (
    Metric,
    check_columns,
    check_confidence,
    column_names,
    metric_of,
    metrics_of,
    table_of,
)
from realkit.analysis.pairs import AXES, CONDITIONS, UNIT, batch_names, labelled
from realkit.analysis.sentences import counted, not_read_whole, number, signed
from realkit.analysis.verdicts import least
from realkit.base.errors import RequestError
from realkit.base.statistics import Interval, mean_interval

LEAST_DOSES = 3
COLUMNS = [
    "metric", "slope", "slope_low", "slope_high", "rank_correlation", "rank_low", "rank_high",
    "doses", "n_prompts", "n_units", "verdict",
]  # fmt: skip


def trend(
    df: pd.DataFrame, axis: str, metric: str | Sequence[str] | None = None, confidence: float = 0.95
) -> Answer:
    """How each metric follows a numeric axis ("guidance", "steps", "strength"), a row a metric.

    In each group of cells that differ in the axis alone, a line is fitted (least squares) and
    Spearman's rank correlation computed; the prompt is the unit of their means and intervals. Of
    times, joules and memory it is the batch, and cells of unlike batches or cards are no group.
    `slope` is in the metric's unit for each unit of the axis, of times and the like in percent.
    `verdict` is "rises" or "falls" where the rank correlation's interval is beyond zero over at
    least 6 prompts (3 batches), else "undecided". A rise that ends is for `rk.compare`.
    Raises RequestError for a column that is missing or no number, and for fewer than 3 values.
    """
    frame = table_of(df)
    check_columns(frame, axis, "prompt", "seed")
    check_confidence(confidence)
    if axis in UNIT:
        raise RequestError(f"axis {axis!r}: expected a setting such as guidance or steps")
    doses = pd.to_numeric(frame[axis], errors="coerce").replace([np.inf, -np.inf], np.nan)
    values = sorted(doses.dropna().unique())
    if len(values) < LEAST_DOSES:
        raise RequestError(
            f"The table has {counted(len(values), 'number')} in {axis!r}: a trend needs"
            f" {LEAST_DOSES} or more"
        )
    names = metrics_of(frame) if metric is None else column_names("metric", metric)
    if not names:
        raise RequestError("The table has no number to compare: score its pictures first")
    rows, lines = [], []
    for name in names:
        one = metric_of(frame, name, None)
        fits = _fits(frame, doses, axis, one)
        slope = mean_interval(fits["slope"], fits["unit"], confidence)
        rank = mean_interval(fits["rank"], fits["unit"], confidence)
        word = _word(rank, one)
        rank = rank.within(-1, 1)
        numbers = (*map(one.in_unit, slope[:3]), *rank[:3], len(values), fits["prompt"].nunique())
        rows.append((name, *numbers, rank.clusters, word))
        lines.append(_sentence(one, axis, slope, rank, word))
        if left_out := len(frame) - int(fits["cells"].sum()):
            lines.append(
                f"  Left out: {counted(left_out, 'cell')} without a value, or without"
                f" {LEAST_DOSES} values of {axis} with all else equal."
            )
    table = Answer(rows, columns=COLUMNS)
    table.attrs["sentences"] = [*lines, *not_read_whole(frame)]
    return table


def _fits(frame: pd.DataFrame, doses: pd.Series, axis: str, metric: Metric) -> pd.DataFrame:
    """A row for each group of cells that differ in the axis alone: its slope, rank correlation,
    prompt, number of cells, and the unit that it belongs to. Of times and memory that is the set of
    its batches, and cells of unlike batches or cards are no group."""
    keys = [name for name in (*UNIT, *AXES) if name in frame and name != axis]
    if metric.relative:
        keys += [name for name in CONDITIONS if name in frame and name not in (*keys, axis)]
    texts = pd.DataFrame({name: labelled(frame, [name]).map(str) for name in keys})
    texts["dose"], texts["value"] = doses, metric.values(frame)
    texts["of"] = batch_names(frame) if metric.relative else texts["prompt"]
    texts = texts[frame["prompt"].notna()]
    fits = []
    for _, part in texts.dropna(subset=["dose", "value"]).groupby(keys, sort=False):
        if part["dose"].nunique() < LEAST_DOSES:
            continue
        slope = float(np.polyfit(part["dose"], part["value"], 1)[0])
        flat = part["value"].nunique() == 1
        rank = 0.0 if flat else float(spearmanr(part["dose"], part["value"]).statistic)
        unit = " ".join(dict.fromkeys(part["of"]))
        fits.append((slope, rank, unit, part["prompt"].iloc[0], len(part)))
    if not fits:
        raise RequestError(
            f"No prompt and seed has {LEAST_DOSES} values of {axis!r} with all else equal, and a"
            f" number in {metric.name!r}"
        )
    return pd.DataFrame(fits, columns=["slope", "rank", "unit", "prompt", "cells"])


def _word(rank: Interval, metric: Metric) -> str:
    if rank.clusters < least(metric) or not (rank.low > 0 or rank.high < 0):
        return "undecided"
    return "rises" if rank.mean > 0 else "falls"


def _sentence(metric: Metric, axis: str, slope: Interval, rank: Interval, word: str) -> str:
    unit = " %" * metric.relative
    effects: list[Any] = [signed(metric.in_unit(value)) for value in slope[:3]]
    by, correlation = f"{effects[0]}{unit} a unit", f"rank correlation {number(rank.mean)}"
    if rank.clusters > 1:
        by += f" ({effects[1]} to {effects[2]})"
        correlation += f" ({number(rank.low)} to {number(rank.high)})"
    says = "follows it no clear way" if word == "undecided" else f"{word} with it"
    if rank.clusters < least(metric):
        says = f"undecided, for fewer than {least(metric)} {metric.units} decide nothing"
    size = counted(rank.clusters, metric.unit_of_mean, metric.units)
    return f"{metric.name} over {axis} ({size}): {says}: {by}, {correlation}."
