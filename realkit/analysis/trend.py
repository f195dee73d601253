"""Dose and response: how a metric follows a number such as guidance or steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from realkit.analysis.answer import Answer
from realkit.analysis.metrics import Metric, check_columns, column_names, metric_of, metrics_of
from realkit.analysis.pairs import AXES, UNIT, labelled
from realkit.analysis.sentences import counted, number, signed
from realkit.analysis.verdicts import LEAST_PROMPTS
from realkit.base.errors import RequestError
from realkit.base.statistics import Interval, mean_interval

LEAST_DOSES = 3
COLUMNS = [
    "metric", "slope", "slope_low", "slope_high", "rank_correlation", "rank_low", "rank_high",
    "doses", "n_prompts", "verdict",
]  # fmt: skip


def trend(
    df: pd.DataFrame, axis: str, metric: str | Sequence[str] | None = None, confidence: float = 0.95
) -> Answer:
    """How each metric follows a numeric axis ("guidance", "steps", "strength"), a row a metric.

    In each group of cells that differ in the axis alone, a line is fitted (least squares) and
    Spearman's rank correlation computed; the prompt is the unit of their means and intervals.
    `slope` is in the metric's unit for each unit of the axis, of seconds and memory in percent.
    `verdict` is "rises" or "falls" where the rank correlation's interval is beyond zero over at
    least 6 prompts, else "undecided". A rise that ends, such as a plateau, is for `rk.compare`.
    Raises RequestError for a column that is missing or no number, and for fewer than 3 values.
    """
    frame = pd.DataFrame(df).reset_index(drop=True)
    check_columns(frame, axis, "prompt", "seed")
    doses = pd.to_numeric(frame[axis], errors="coerce")
    values = sorted(doses.dropna().unique())
    if len(values) < LEAST_DOSES:
        raise RequestError(
            f"The table has {len(values)} numbers in {axis!r}: a trend needs {LEAST_DOSES} or more"
        )
    names = metrics_of(frame) if metric is None else column_names("metric", metric)
    rows, lines = [], []
    for name in names:
        one = metric_of(frame, name, None)
        slopes, ranks = _by_prompt(frame, doses, axis, one)
        slope = mean_interval(list(slopes.values()), confidence=confidence)
        rank = mean_interval(list(ranks.values()), confidence=confidence)
        word = _word(rank)
        rows.append(
            (name, *map(one.effect, slope[:3]), *rank[:3], len(values), rank.clusters, word)
        )
        lines.append(_sentence(one, axis, slope, rank, word))
    table = Answer(rows, columns=COLUMNS)
    table.attrs["sentences"] = lines
    return table


def _by_prompt(
    frame: pd.DataFrame, doses: pd.Series, axis: str, metric: Metric
) -> tuple[dict[str, float], dict[str, float]]:
    """(mean slope, mean rank correlation) of each prompt."""
    keys = [name for name in (*UNIT, *AXES) if name in frame and name != axis]
    texts = pd.DataFrame({name: labelled(frame, [name]).map(str) for name in keys})
    texts["dose"], texts["value"] = doses, metric.values(frame)
    slopes: dict[str, list[float]] = {}
    ranks: dict[str, list[float]] = {}
    for _, part in texts.dropna(subset=["dose", "value"]).groupby(keys, sort=False):
        if part["dose"].nunique() < LEAST_DOSES:
            continue
        prompt = part["prompt"].iloc[0]
        slopes.setdefault(prompt, []).append(float(np.polyfit(part["dose"], part["value"], 1)[0]))
        flat = part["value"].nunique() == 1
        rank = 0.0 if flat else float(spearmanr(part["dose"], part["value"]).statistic)
        ranks.setdefault(prompt, []).append(rank)
    if not slopes:
        raise RequestError(
            f"No prompt and seed has {LEAST_DOSES} values of {axis!r} with all else equal, and a"
            f" number in {metric.name!r}"
        )
    return _means(slopes), _means(ranks)


def _means(lists: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in lists.items()}


def _word(rank: Interval) -> str:
    if rank.clusters < LEAST_PROMPTS or not (rank.low > 0 or rank.high < 0):
        return "undecided"
    return "rises" if rank.mean > 0 else "falls"


def _sentence(metric: Metric, axis: str, slope: Interval, rank: Interval, word: str) -> str:
    unit = " %" * metric.relative
    effects: list[Any] = [signed(metric.effect(value)) for value in slope[:3]]
    by = f"{effects[0]}{unit} a unit ({effects[1]} to {effects[2]})"
    correlation = (
        f"rank correlation {number(rank.mean)} ({number(rank.low)} to {number(rank.high)})"
    )
    says = "follows it no clear way" if word == "undecided" else f"{word} with it"
    size = counted(rank.clusters, "prompt")
    return f"{metric.name} over {axis} ({size}): {says}: {by}, {correlation}."
