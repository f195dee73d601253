"""Paired verdicts on restored pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.base.errors import RequestError, shown
from realkit.base.statistics import Interval, mean_interval
from realkit.scorers.likeness import MEASURES

if TYPE_CHECKING:
    import pandas as pd


def check_baseline(frame: pd.DataFrame, baseline: str) -> None:
    """Raise RequestError, with the baseline's own error, where it restored no picture."""
    rows = frame[frame["upscaler"] == baseline]
    if (rows["status"] == "ok").any():
        return
    errors = rows["error"].dropna().unique()
    reason = f": {errors[0]}" if len(errors) else ""
    raise RequestError(f"The baseline {baseline!r} restored nothing{reason}: choose another")


def restoration_verdict(frame: pd.DataFrame, baseline: str = "bicubic") -> pd.DataFrame:
    """How much better than the baseline each upscaler restores, one row an upscaler and measure.

    `gain` is the mean difference, paired by picture, above 0 where the upscaler is better; `low` to
    `high` is its 95 % interval (`base.statistics.mean_interval`), not corrected for the number of
    rows. `verdict` is better, worse, or unclear: the interval holds 0, or there is one picture. A
    picture with infinite PSNR is left out of its pair. Raises RequestError where the baseline
    restored no picture.
    """
    import numpy as np
    import pandas as pd

    done = frame[frame["status"] == "ok"].replace([np.inf, -np.inf], np.nan)
    names = list(dict.fromkeys(done["upscaler"]))
    if baseline not in names:
        raise RequestError(
            f"No picture was restored by the baseline {shown(baseline)}: expected one of"
            f" {', '.join(names) or 'none'}"
        )
    rows = []
    for measure in MEASURES:
        if done[measure].isna().all():
            continue
        values = done.pivot_table(index="picture", columns="upscaler", values=measure, sort=False)
        values = values.astype(float).reindex(columns=names)
        quality = _quality(values, MEASURES[measure].better)
        for name in names:
            if name != baseline:
                gain = mean_interval((quality[name] - quality[baseline]).dropna())
                rows.append((name, measure, *gain, _word(gain)))
    columns = ["upscaler", "measure", "gain", "low", "high", "pictures", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _quality(values: pd.DataFrame, better: str) -> pd.DataFrame:
    """A measure turned so that higher is better."""
    if better == "nearer 1":
        return -(values - 1).abs()
    if better == "lower":
        return -values
    return values


def _word(gain: Interval) -> str:
    if gain.low > 0:
        return "better"
    if gain.high < 0:
        return "worse"
    return "unclear"
