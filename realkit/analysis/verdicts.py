"""Paired verdicts with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.base.errors import RequestError, shown
from realkit.scorers.likeness import MEASURES

if TYPE_CHECKING:
    import pandas as pd


def check_baseline(frame: pd.DataFrame, baseline: str) -> None:
    """Raise RequestError, with its error, where what the others are held against restored
    nothing."""
    own = frame[frame["upscaler"] == baseline]
    if not (own["status"] == "ok").any():
        said = own["error"].dropna().unique()
        raise RequestError(
            f"The baseline {baseline!r} restored nothing{f': {said[0]}' if len(said) else ''}: take"
            " another"
        )


def restoration_verdict(
    frame: pd.DataFrame, baseline: str = "bicubic", draws: int = 10_000
) -> pd.DataFrame:
    """How much better than the baseline each upscaler restores, by each measure: mean differences
    paired by picture, above 0 where the upscaler is better.

    `low` to `high` is a 95 % interval, each for itself: percentiles of a bootstrap over pictures,
    stretched about the mean as far as Student's t is wider than the normal for so few (Hesterberg
    2015). `verdict`: better, worse, or unclear, where the interval holds 0 or there is one picture.
    Infinite PSNR counts in no pair. Raises RequestError without a baseline.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import norm, t

    done = frame[frame["status"] == "ok"].replace([np.inf, -np.inf], np.nan)
    names = list(dict.fromkeys(done["upscaler"]))
    if baseline not in names:
        raise RequestError(
            f"No picture was restored by the baseline {shown(baseline)}: expected one of"
            f" {', '.join(names) or 'none'}"
        )
    rows = []
    for key in [key for key in MEASURES if done[key].notna().any()]:
        value = done.pivot_table(
            index="picture", columns="upscaler", values=key, sort=False
        ).astype(float)
        good = {"higher": value, "lower": -value, "nearer 1": -(value - 1).abs()}[
            MEASURES[key].better
        ].reindex(columns=names)
        for name in [name for name in names if name != baseline]:
            gain = (good[name] - good[baseline]).dropna().to_numpy()
            n, mean, low, high = len(gain), gain.mean() if len(gain) else np.nan, np.nan, np.nan
            if n > 1:
                drawn = np.random.default_rng(0).choice(gain, (draws, n)).mean(1)
                wider = np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1) / norm.ppf(0.975)
                low, high = mean + wider * (np.quantile(drawn, [0.025, 0.975]) - mean)
            word = "better" if low > 0 else "worse" if high < 0 else "unclear"
            rows.append((name, key, mean, low, high, n, word))
    return pd.DataFrame(
        rows, columns=["upscaler", "measure", "gain", "low", "high", "pictures", "verdict"]
    )


def interval(group: pd.DataFrame, y: str, unit: str) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling the values of `unit`."""
    import numpy as np

    means = group.groupby(unit)[y].mean().to_numpy()
    drawn = np.random.default_rng(0).choice(means, (2000, len(means))).mean(1)
    return min(float(np.quantile(drawn, 0.025)), means.mean()), max(
        float(np.quantile(drawn, 0.975)), means.mean()
    )
