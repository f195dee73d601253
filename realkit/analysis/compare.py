"""`rk.compare`: a verdict for every pair of models, samplers, upscalers or settings, paired by
prompt and seed, with an interval that is corrected for the number of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from realkit.analysis import sentences
from realkit.analysis.answer import Answer
from realkit.analysis.metrics import Metric, metric_of, metrics_of
from realkit.analysis.pairs import Pairs, all_pairs, labelled, matrix, paired
from realkit.analysis.verdicts import Verdict, judged, least
from realkit.base.errors import RequestError, shown
from realkit.base.statistics import (
    Contrast,
    clusters_needed,
    family,
    mean_interval,
    smallest_effect,
)
from realkit.runs.folder import read

MOST_ARMS = 60  # 1,770 pairs
COLUMNS = [
    "a", "b", "metric", "effect", "low", "high", "p_adjusted", "verdict", "margin", "n_prompts",
    "n_pairs", "smallest_effect", "prompts_needed", "unit", "n_units", "left_out", "reason",
    "turns",
]  # fmt: skip


def compare(
    df: pd.DataFrame | str | Path,
    by: str | Sequence[str],
    metric: str | Sequence[str] | None = None,
    within: str | None = None,
    baseline: Any | None = None,
    margin: float | None = None,
    confidence: float = 0.95,
) -> Answer:
    """Compare the values of `by` with each other, or with `baseline`: a row a pair and metric.

    `df` is a table of results, or a results folder. `by` is an axis ("sampler", "steps"), or
    several that are taken together. `metric` is a score, a time or memory; by default every score
    with a better direction, and the seconds of a picture. Cells are paired on prompt and seed with
    every other axis equal; the differences of a prompt are averaged, for the prompt is the unit.

    `effect` is a - b in the metric's unit, of seconds and memory in percent of b, with its interval
    `low` to `high` (base.statistics.family): corrected for all pairs of one metric, in each value
    of `within` separately. `verdict` is

    - "better" or "worse": the interval is beyond zero, there are at least 6 prompts, and no prompt
      carries more than half of the difference;
    - "equivalent": the interval is within ± `margin`, by default the scorer's own, in the metric's
      unit, of seconds and memory in percent; never where there is none;
    - "undecided": else. `reason` says why, `prompts_needed` how many would settle it.

    Of seconds and memory only cells of equal batch, memory rung and card are compared, and the unit
    is the batch. Raises RequestError for an empty table, an unknown column, one value of `by`, and
    a metric that no cell has.
    """
    frame = _frame(df)
    names = [by] if isinstance(by, str) else list(by)
    _check(frame, names, within, confidence)
    baseline = _baseline(frame, names, baseline)
    asked = [metric] if isinstance(metric, str) else list(metric or metrics_of(frame))
    if not asked:
        raise RequestError("The table has no score and no times: score its pictures first")
    metrics = [metric_of(frame, name, margin) for name in asked]
    rows, lines = [], []
    for one in metrics:
        for group, part in _groups(frame, within):
            verdicts = verdicts_of(part, names, one, baseline, confidence)
            place = {within: group} if within else {}
            rows += [place | _row(verdict) for verdict in verdicts]
            lines += sentences.of_family(verdicts, names, f"{within} {group}" if within else "")
    columns = [within, *COLUMNS] if within else COLUMNS
    table = Answer(rows, columns=columns)
    table["prompts_needed"] = table["prompts_needed"].astype("Int64")
    table.attrs["sentences"] = [*lines, sentences.brackets(confidence)]
    return table


def _frame(df: pd.DataFrame | str | Path) -> pd.DataFrame:
    """A table, read from a results folder where one is given; a copy without its attributes."""
    if isinstance(df, (str, Path)):
        df = read(df).table()
    return pd.DataFrame(df).reset_index(drop=True)


def _check(frame: pd.DataFrame, by: list[str], within: str | None, confidence: float) -> None:
    if frame.empty:
        raise RequestError("The table has no rows: expected the cells of a run")
    for name in (*by, *([within] if within else []), "prompt", "seed"):
        if name not in frame.columns:
            raise RequestError(
                f"The table has no column {shown(name)}: expected one of {', '.join(frame.columns)}"
            )
    for name in by:
        if name in ("prompt", "seed", within):
            raise RequestError(
                f"by {name!r}: expected an axis such as model, sampler or steps. Prompts and seeds"
                " are what a comparison is averaged over"
            )
    if not 0.5 <= confidence < 1:
        raise RequestError(f"confidence {shown(confidence)}: expected from 0.5 to below 1")
    arms = labelled(frame, by).nunique()
    if not 2 <= arms <= MOST_ARMS:
        raise RequestError(
            f"The table has {arms} values of {' and '.join(by)}: expected 2 to {MOST_ARMS} to"
            " compare"
        )


def _baseline(frame: pd.DataFrame, by: list[str], baseline: Any | None) -> Any | None:
    """The arm that a baseline names: a number may be given as text."""
    if baseline is None:
        return None
    arms = list(dict.fromkeys(labelled(frame, by)))
    for arm in arms:
        if arm == baseline or str(arm) == str(baseline):
            return arm
    raise RequestError(
        f"baseline {shown(baseline)} is no {' and '.join(by)} of the table: expected one of"
        f" {', '.join(map(str, arms))}"
    )


def _groups(frame: pd.DataFrame, within: str | None) -> Iterable[tuple[Any, pd.DataFrame]]:
    if within is None:
        return [("", frame)]
    labels = labelled(frame, [within])
    return [(label, frame[labels == label]) for label in dict.fromkeys(labels)]


def verdicts_of(
    frame: pd.DataFrame,
    by: Sequence[str],
    metric: Metric,
    baseline: Any | None = None,
    confidence: float = 0.95,
) -> list[Verdict]:
    """The verdicts of one family: every pair of the values of `by`, or each with the baseline."""
    labels = labelled(frame, by)
    arms = list(dict.fromkeys(labels))
    cells = {arm: frame[labels == arm] for arm in arms}
    contrasts = all_pairs(arms, baseline)
    pairs = [paired(cells[a], cells[b], metric, by) for a, b in contrasts if b in cells]
    results = family(matrix(pairs), confidence) if pairs else []
    verdicts = []
    for (a, b), found, contrast in zip(contrasts, pairs, results, strict=False):
        word, reason = judged(contrast, found.differences, metric, found.problem)
        needed = None if word != "undecided" else _needed(contrast, metric, confidence)
        turns = _turns(found, metric)
        smallest = smallest_effect(contrast, confidence)
        verdict = Verdict(a, b, metric, found, contrast, word, reason, needed, smallest, turns)
        verdicts.append(verdict)
    return verdicts


def _needed(contrast: Contrast, metric: Metric, confidence: float) -> int | None:
    """How many units would settle it: never fewer than decide at all, or than there are."""
    needed = clusters_needed(contrast, metric.limit, confidence)
    return None if needed is None else max(needed, least(metric), contrast.clusters + 1)


def _turns(pairs: Pairs, metric: Metric) -> str:
    """The axis with which a difference turns its sign: intervals of two of its values lie on both
    sides of zero. "" where there is none."""
    for axis, values in pairs.axes.items():
        below, above = [], []
        for value, differences in values.items():
            interval = mean_interval(differences)
            text = f"{value} {sentences.signed(metric.effect(interval.mean))}"
            if interval.low > 0:
                above.append(text)
            elif interval.high < 0:
                below.append(text)
        if below and above:
            return f"{axis}: {', '.join((*above, *below))}"
    return ""


def _row(verdict: Verdict) -> dict[str, Any]:
    metric, contrast, pairs = verdict.metric, verdict.contrast, verdict.pairs
    return {
        "a": verdict.a,
        "b": verdict.b,
        "metric": metric.name,
        "effect": metric.effect(contrast.mean),
        "low": metric.effect(contrast.low),
        "high": metric.effect(contrast.high),
        "p_adjusted": contrast.p,
        "verdict": verdict.word,
        "margin": metric.margin,
        "n_prompts": pairs.prompts,
        "n_pairs": pairs.pairs,
        "smallest_effect": metric.effect(verdict.smallest),
        "prompts_needed": verdict.needed,
        "unit": "batch" if metric.relative else "prompt",
        "n_units": contrast.clusters,
        "left_out": pairs.left_out,
        "reason": verdict.reason,
        "turns": verdict.turns,
    }
