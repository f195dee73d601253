"""A table in groups: mean scores with their intervals, median times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from realkit.analysis.metrics import (
    Metric,
    check_columns,
    column_names,
    metric_of,
    metrics_of,
    range_of,
    table_of,
)
from realkit.analysis.pairs import CONDITIONS, labelled
from realkit.base.statistics import mean_interval
from realkit.catalog.columns import COLUMNS


def aggregate(df: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """A row for each combination of the columns `by`: its cells, prompts, scores and seconds.

    A score has its mean over prompts, with its 95 % interval in NAME_low and NAME_high, the same
    that plots draw; where some cells lack it, NAME_cells counts those that have it. `seconds` is
    the median of a picture, `pictures_an_hour` as many as that makes in an hour without loading,
    `joules` the median of a picture where the cards count them: all empty where cells of different
    batches, memory rungs or cards would be pooled. Raises RequestError for an unknown column, and
    an empty table.
    """
    frame, names = table_of(df), column_names("by", by)
    check_columns(frame, *names, "prompt", "status")
    scores = [metric_of(frame, name, None) for name in metrics_of(frame) if name not in COLUMNS]
    labels = [labelled(frame, [name]).rename(name) for name in names]
    rows = []
    for label, part in frame.groupby(labels, sort=False):
        row = dict(zip(names, label, strict=True))
        row |= {"cells": len(part), "ok": int((part["status"] == "ok").sum())}
        row["prompts"] = part["prompt"].nunique()
        for metric in scores:
            row |= _mean(part, metric, frame)
        if "seconds" in frame:
            seconds = _median(part, "seconds")
            row |= {"seconds": seconds, "pictures_an_hour": 3600 / seconds if seconds else math.nan}
        if "joules" in frame and frame["joules"].notna().any():
            row["joules"] = _median(part, "joules")
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(part: pd.DataFrame, metric: Metric, frame: pd.DataFrame) -> dict[str, float]:
    """A score's mean with its interval, and the number of its cells where the table has gaps."""
    name = metric.name
    values = metric.values(part).where(part["prompt"].notna()).dropna()
    interval = mean_interval(values, part.loc[values.index, "prompt"].map(str))
    mean, low, high, _ = interval.within(*range_of(name))
    row = {name: mean, f"{name}_low": low, f"{name}_high": high}
    if metric.values(frame).where(frame["prompt"].notna()).isna().any():
        row[f"{name}_cells"] = len(values)
    return row


def _median(part: pd.DataFrame, name: str) -> float:
    """The median of a time or an energy; nan where it is missing, or unlike cells are pooled."""
    if name not in part:
        return math.nan
    for condition in CONDITIONS:
        if condition in part and part[condition].nunique() > 1:
            return math.nan
    return float(pd.to_numeric(part[name], errors="coerce").median())
