"""`rk.compare`: a verdict for every pair of models, samplers, upscalers or settings, paired by
prompt and seed, with an interval that is corrected for the number of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from realkit.analysis import sentences
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
from realkit.analysis.pairs import MADE, Arms, Pairs, all_pairs, as_made, labelled, matrix
from realkit.analysis.verdicts import LEAST_PROMPTS, Verdict, judged, least
from realkit.base.errors import RequestError, shown
from realkit.base.statistics import Contrast, clusters_needed, family, smallest_effect
from realkit.base.suggest import instead
from realkit.runs.folder import read

MOST_ARMS = 60  # 1,770 pairs
MOST_TURNS = 600  # contrasts of pairs and values of one axis
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
    several that are taken together. `metric` is a score, a time, joules or memory; by default every
    score with a better direction, and the seconds of a picture. Cells are paired on prompt and seed
    with every other axis equal; the differences of a prompt are averaged: the prompt is the unit.

    `effect` is a - b in the metric's unit, of times and the like in percent of b, with its interval
    `low` to `high` (base.statistics.family): corrected for all pairs of one metric, in each value
    of `within` separately. `verdict` is

    - "better" or "worse": the interval is beyond zero, there are at least 6 prompts, and no prompt
      carries more than half of the difference;
    - "equivalent": the interval is within ± `margin`, by default the scorer's own, in the metric's
      unit, of times and the like in percent; never where there is none;
    - "undecided": else. `reason` says why, `prompts_needed` how many would settle it.

    Of times, joules and memory only cells of equal batch, memory rung and card are compared, and
    the unit is the batch. Raises RequestError for an empty table, an unknown column, one value of
    `by`, a metric that no cell has, and where no two cells can be paired.
    """
    frame, names = _frame(df), column_names("by", by)
    for name in set(names) & set(MADE) & set(frame):
        known = frame[name].notna()
        frame = frame[known] if known.any() else frame  # what was not made has no such value
    _check(frame, names, within, confidence)
    arms = list(dict.fromkeys(labelled(frame, names)))
    baseline = _baseline(arms, names, baseline)
    asked = metrics_of(frame) if metric is None else column_names("metric", metric)
    if not asked:
        raise RequestError("The table has no number to compare: score its pictures first")
    metrics = [metric_of(frame, name, margin) for name in asked]
    rows, lines, every = [], [], list[tuple[str, Verdict]]()
    for one in metrics:
        for group, part in _groups(frame, within):
            verdicts = verdicts_of(part, names, one, baseline, confidence)
            words, place = (f"{within} {group}", {within: group}) if within else ("", {})
            every += [(words, verdict) for verdict in verdicts]
            rows += [place | _row(verdict) for verdict in verdicts]
            lines += sentences.of_family(verdicts, names, words)
    _check_pairs(rows, names)
    lines += sentences.of_skipped(frame)
    lines += sentences.without_values(frame) if metric is None else []
    lines += [*sentences.not_read_whole(frame), sentences.brackets(confidence)]
    columns = [within, *COLUMNS] if within else COLUMNS
    table = Answer(rows, columns=columns)
    table["prompts_needed"] = table["prompts_needed"].astype("Int64")
    if len({isinstance(arm, str) for arm in arms}) > 1:  # "none" beside numbers: one kind a column
        table["a"], table["b"] = table["a"].map(str), table["b"].map(str)
    table.attrs["sentences"] = lines + sentences.next_step(every)
    return table


def verdicts_of(
    frame: pd.DataFrame,
    by: Sequence[str],
    metric: Metric,
    baseline: Any | None = None,
    confidence: float = 0.95,
    contrasts: Sequence[tuple[Any, Any]] = (),
) -> list[Verdict]:
    """The verdicts of one family: `contrasts`, else every pair of the values of `by`, or each with
    the baseline."""
    cells = Arms(frame, by, metric)
    if baseline is not None and baseline not in cells.names:
        return []
    contrasts = contrasts or all_pairs(cells.names, baseline)
    pairs = [cells.paired(a, b) for a, b in contrasts]
    if not pairs:
        return []
    results = family(matrix([found.differences for found in pairs]), confidence)
    turns = _turns(pairs, metric, confidence)
    verdicts = []
    for (a, b), found, contrast, turn in zip(contrasts, pairs, results, turns, strict=True):
        word, reason = judged(contrast, found.differences, metric, found.problem)
        needed = None if word != "undecided" else _needed(contrast, metric, confidence)
        smallest = smallest_effect(contrast, confidence)
        verdict = Verdict(a, b, metric, found, contrast, word, reason, needed, smallest, turn)
        verdicts.append(verdict)
    return verdicts


def _frame(df: pd.DataFrame | str | Path) -> pd.DataFrame:
    """A table, read from a results folder where one is given; a copy without its attributes."""
    return as_made(table_of(read(df).table() if isinstance(df, (str, Path)) else df))


def _check(frame: pd.DataFrame, by: list[str], within: Any, confidence: Any) -> None:
    if within is not None and not isinstance(within, str):
        raise RequestError(f"within {shown(within)}: expected a column's name")
    check_columns(frame, *by, *([within] if within else []), "prompt", "seed")
    for name in by:
        if name == within:
            raise RequestError(f"within {name!r} is what is compared: expected another axis")
        if name in ("prompt", "seed"):
            raise RequestError(
                f"by {name!r}: expected an axis such as model, sampler or steps. Prompts and seeds"
                " are what a comparison is averaged over"
            )
    check_confidence(confidence)
    arms = labelled(frame, by).nunique()
    if not 2 <= arms <= MOST_ARMS:
        raise RequestError(
            f"The table has {arms} value{'s' * (arms != 1)} of {' and '.join(by)}: expected 2 to"
            f" {MOST_ARMS} to compare"
        )


def _check_pairs(rows: list[dict[str, Any]], by: list[str]) -> None:
    """Raise RequestError where no two cells could be paired."""
    if any(row["n_pairs"] for row in rows):
        return
    reasons = dict.fromkeys(row["reason"] for row in rows)
    why = next(iter(reasons), "no value of `within` has two of them")
    raise RequestError(
        f"No two cells can be compared by {' and '.join(by)}: {why}. Compare by several axes"
        " together, or run cells that are equal in all others"
    )


def _baseline(arms: list[Any], by: list[str], baseline: Any | None) -> Any | None:
    """The arm that a baseline names: a number may be given as text."""
    if baseline is None:
        return None
    text = " · ".join(map(str, baseline)) if isinstance(baseline, tuple) else str(baseline)
    for arm in arms:
        if str(arm) == text or _number(arm) == _number(text):
            return arm
    raise RequestError(
        f"baseline {shown(baseline)} is no {' and '.join(by)} of the table{instead(text, arms)}"
    )


def _number(value: Any) -> float | str:
    """A value as a number where it is one, else as it stands: 5 and "5.0" are equal."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def _groups(frame: pd.DataFrame, within: str | None) -> Iterable[tuple[Any, pd.DataFrame]]:
    if within is None:
        return [("", frame)]
    labels = labelled(frame, [within])
    return [(label, frame[labels == label]) for label in dict.fromkeys(labels)]


def _needed(contrast: Contrast, metric: Metric, confidence: float) -> int | None:
    """How many units would settle it: never fewer than decide at all, or than there are."""
    needed = clusters_needed(contrast, metric.limit, confidence)
    return None if needed is None else max(needed, least(metric), contrast.clusters + 1)


def _turns(pairs: Sequence[Pairs], metric: Metric, confidence: float) -> list[str]:
    """Of each pair, the axis with which its difference turns its sign: intervals of two of its
    values lie on both sides of zero, corrected for all pairs and values. "" where there is none."""
    found = [""] * len(pairs)
    for axis in dict.fromkeys(chain.from_iterable(pair.axes for pair in pairs)):
        places, differences = [], []
        for number, pair in enumerate(pairs):
            for value, by_prompt in pair.axes.get(axis, {}).items():
                if len(by_prompt) >= LEAST_PROMPTS:
                    places.append((number, value))
                    differences.append(by_prompt)
        if not 2 <= len(places) <= MOST_TURNS:
            continue
        sides: dict[int, list[list[str]]] = {}
        for (number, value), contrast in zip(
            places, family(matrix(differences), confidence), strict=True
        ):
            text = f"{value} {sentences.signed(metric.effect(contrast.mean))}"
            above, below = sides.setdefault(number, [[], []])
            if contrast.low > 0:
                above.append(text)
            elif contrast.high < 0:
                below.append(text)
        for number, (above, below) in sides.items():
            if above and below and not found[number]:
                found[number] = f"{axis}: {', '.join((*above, *below))}"
    return found


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
        "margin": metric.margin if metric.margin is not None else math.nan,
        "n_prompts": pairs.prompts,
        "n_pairs": pairs.pairs,
        "smallest_effect": metric.effect(verdict.smallest),
        "prompts_needed": verdict.needed,
        "unit": metric.unit_of_mean,
        "n_units": contrast.clusters,
        "left_out": pairs.left_out,
        "reason": verdict.reason,
        "turns": verdict.turns,
    }
