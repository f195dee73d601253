"""What better, worse, equivalent and undecided mean; and verdicts on restored pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realkit.analysis.metrics import Metric, check_columns, table_of
from realkit.analysis.pairs import Pairs
from realkit.base.door import door
from realkit.base.errors import RequestError, shown
from realkit.base.statistics import LEAST_PROMPTS, Contrast, family
from realkit.base.suggest import instead
from realkit.scorers.likeness import MEASURES

if TYPE_CHECKING:
    import pandas as pd

LEAST_BATCHES = 3  # of times and memory, whose unit is the batch: each is a mean over its pictures
LARGEST_SHARE = 0.5  # of a difference, that one prompt may carry


@dataclass(frozen=True)
class Verdict:
    """One contrast: a word, and why."""

    a: Any
    b: Any
    metric: Metric
    pairs: Pairs
    contrast: Contrast
    word: str
    reason: str
    needed: int | None
    smallest: float  # difference that would have been found
    turns: str


def least(metric: Metric) -> int:
    """The fewest units that decide anything."""
    return LEAST_BATCHES if metric.relative else LEAST_PROMPTS


def judged(
    contrast: Contrast, differences: dict[Any, float], metric: Metric, problem: str = ""
) -> tuple[str, str]:
    """(verdict, reason) of a contrast: the only place that says what better and equivalent mean."""
    units = metric.units
    if contrast.clusters < 2:
        return "undecided", problem or f"one {metric.unit_of_mean} has no interval"
    beyond = contrast.low > 0 or contrast.high < 0
    margin = metric.margin
    effects = [metric.effect(value) for value in (contrast.mean, contrast.low, contrast.high)]
    within = margin is not None and -margin <= effects[1] and effects[2] <= margin
    if contrast.clusters < least(metric):
        few = f"{contrast.clusters} {units}, and fewer than {least(metric)} decide nothing"
        return "undecided", few
    if beyond:
        share, unit = _largest_share(differences, contrast.mean)
        if share <= LARGEST_SHARE:
            better = (contrast.mean > 0) == (metric.better == "higher")
            small = margin is not None and abs(effects[0]) <= margin
            reason = "less than the margin" if small else ""
            return ("better" if better else "worse"), reason
        if not within:
            alone = f"one of {contrast.clusters} {units} carries {share:.0%} of it, {unit}"
            return "undecided", alone
    if within:
        return "equivalent", ""
    if not any(differences.values()):
        return "undecided", "all values are equal: give a margin"
    return "undecided", "there may be no difference"


def _largest_share(differences: dict[Any, float], mean: float) -> tuple[float, str]:
    """The share of a difference that its strongest unit carries, and the unit's name."""
    total = mean * len(differences)
    unit = max(differences, key=lambda name: differences[name] / total)
    return differences[unit] / total, shown(str(unit).partition("\n")[0])


@door
def check_baseline(frame: pd.DataFrame, baseline: str) -> None:
    """Raise RequestError, with the baseline's own error, where it restored no picture."""
    frame = table_of(frame)
    check_columns(frame, "upscaler", "status", "error")
    rows = frame[frame["upscaler"] == baseline]
    if (rows["status"] == "ok").any():
        return
    errors = rows["error"].dropna().unique()
    reason = f": {errors[0]}" if len(errors) else ""
    raise RequestError(f"The baseline {baseline!r} restored nothing{reason}: choose another")


@door
def restoration_verdict(frame: pd.DataFrame, baseline: str = "bicubic") -> pd.DataFrame:
    """How much better than the baseline each upscaler restores, one row an upscaler and measure.

    `gain` is the mean difference, paired by picture, above 0 where the upscaler is better; `low` to
    `high` is its 95 % interval (`base.statistics.family`), corrected for the upscalers of a
    measure. `verdict` is better, worse or undecided, as `judged` says; the picture is the unit. A
    picture with infinite PSNR is left out of its pair. Raises RequestError where the baseline
    restored no picture.
    """
    import numpy as np
    import pandas as pd

    frame = table_of(frame)
    check_columns(frame, "upscaler", "picture", "status", *MEASURES)
    done = frame[frame["status"] == "ok"].replace([np.inf, -np.inf], np.nan)
    names = list(dict.fromkeys(done["upscaler"]))
    if baseline not in names:
        end = instead(baseline, names or ["none"])
        raise RequestError(f"No picture was restored by the baseline {shown(baseline)}{end}")
    rows = []
    for measure in MEASURES:
        if done[measure].isna().all():
            continue
        values = done.pivot_table(index="picture", columns="upscaler", values=measure, sort=False)
        values = values.astype(float).reindex(columns=names)
        quality = _quality(values, MEASURES[measure].better)
        others = [name for name in names if name != baseline]
        gains = quality[others].sub(quality[baseline], axis=0)
        metric = Metric(measure, "higher", unit_of_mean="picture")
        contrasts = family(gains.to_numpy()) if others else []
        for name, contrast in zip(others, contrasts, strict=True):
            word, _ = judged(contrast, gains[name].dropna().to_dict(), metric)
            rows.append((name, measure, *contrast[:3], contrast.clusters, word))
    columns = ["upscaler", "measure", "gain", "low", "high", "pictures", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _quality(values: pd.DataFrame, better: str) -> pd.DataFrame:
    """A measure turned so that higher is better."""
    if better == "nearer 1":
        return -(values - 1).abs()
    if better == "lower":
        return -values
    return values
