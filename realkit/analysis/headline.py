"""What a run found, in two lines."""

from __future__ import annotations

import pandas as pd

from realkit.analysis import sentences
from realkit.analysis.compare import verdicts_of
from realkit.analysis.metrics import metric_of, metrics_of
from realkit.analysis.pairs import MADE, as_made, labelled

MOST_ARMS = 24  # more would keep a person waiting
VARIED = ("model", "sampler", "upscaler", "steps", "guidance", "strength", "dtype")


def headline(df: pd.DataFrame) -> list[str]:
    """A line of a run's first score and one of its seconds, for the first two settings that it
    varied; all others are averaged. One line where there is nothing to compare."""
    df, by = as_made(df), list[str]()
    for name in VARIED:
        known = df[df[name].notna()] if name in MADE and name in df else df
        varied = name in df and labelled(known, [name]).nunique() > 1
        if varied and len(by) < 2 and labelled(df, [*by, name]).nunique() <= MOST_ARMS:
            by.append(name)
    if not by:
        return ["Nothing to compare: the run varies no model, sampler, upscaler or setting."]
    metrics = metrics_of(df)
    chosen = [*metrics[:1], *(["seconds"] if "seconds" in metrics[1:] else [])]
    if not chosen:
        return ["Nothing to compare: no picture has a score or a time."]
    lines = []
    for name in chosen:
        lines.append(sentences.of_family(verdicts_of(df, by, metric_of(df, name, None)), by)[0])
    return lines
