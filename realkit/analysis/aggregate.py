"""A table in groups: mean scores with their intervals, median times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from realkit.analysis.metrics import check_columns, metrics_of
from realkit.analysis.pairs import CONDITIONS, labelled
from realkit.base.statistics import mean_interval
from realkit.catalog.columns import COLUMNS


def aggregate(df: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row for each combination of the columns `by`: its cells, prompts, scores and seconds.

    A score has its mean over prompts, with its 95 % interval in NAME_low and NAME_high, the same
    that plots draw. `seconds` is the median of a picture, `pictures_an_hour` as many as that makes
    in an hour without loading, `joules` the median of a picture where the cards count them: all
    empty where cells of different batches, memory rungs or cards would be pooled. Raises
    RequestError for an unknown column, and an empty table.
    """
    check_columns(df, *by)
    scores = [name for name in metrics_of(df) if name not in COLUMNS]
    keys = pd.DataFrame({name: labelled(df, [name]) for name in by})
    rows = []
    for label, part in df.groupby([keys[name] for name in by], sort=False):
        row = dict(zip(by, label, strict=True))
        row |= {"cells": len(part), "ok": int((part["status"] == "ok").sum())}
        row["prompts"] = part["prompt"].nunique()
        for name in scores:
            scored = part.dropna(subset=[name])
            interval = mean_interval(scored[name], scored["prompt"].astype(str))
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        seconds = _median(part, "seconds")
        row |= {"seconds": seconds, "pictures_an_hour": 3600 / seconds if seconds else math.nan}
        if "joules" in df and df["joules"].notna().any():
            row["joules"] = _median(part, "joules")
        rows.append(row)
    return pd.DataFrame(rows)


def _median(part: pd.DataFrame, name: str) -> float:
    """The median of a time or an energy; nan where it is missing, or unlike cells are pooled."""
    if name not in part:
        return math.nan
    for condition in CONDITIONS:
        if condition in part and part[condition].nunique() > 1:
            return math.nan
    return float(pd.to_numeric(part[name], errors="coerce").median())
