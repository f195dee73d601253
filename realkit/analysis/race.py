"""A race: what decides its contrasts, and what it leaves to say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, combinations, starmap
from typing import Any

import pandas as pd

from realkit.analysis import sentences
from realkit.analysis.compare import MOST_ARMS, verdicts_of
from realkit.analysis.metrics import Metric, column_names, metric_of
from realkit.analysis.pairs import ABSENT, AXES, Arms, Pairs, labelled
from realkit.analysis.verdicts import LEAST_PROMPTS, Verdict
from realkit.base.errors import RequestError, shown
from realkit.base.statistics import Contrast
from realkit.base.suggest import instead
from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.runs.looks import Arm, Looks, Record
from realkit.runs.rounds import Race
from realkit.scorers.table import SCORERS
from realkit.sweeps.sweep import Sweep

# Cells that are equal in these share a denoising
LATENTS = (
    "model", "sampler", "negative", "steps", "guidance", "width", "height", "dtype", "prompt",
    "seed",
)  # fmt: skip
AFTER = ("upscaler", "strength")
UNVARIED = ("image_width", "image_height")  # of AXES: columns that no cell has before it is made
UNRACED = ("wins",)  # columns that no run fills


def race_of(sweep: Sweep, decide: Any, by: Any) -> Race:
    """The race that decides the values of `by` on the metric `decide`. Raises RequestError where
    the sweep has no two of them, too few prompts, or does not measure the metric."""
    if decide is None or by is None:
        lacking = "by, such as by='sampler'" if by is None else "decide, such as decide='clip'"
        raise RequestError(f"A race needs decide and by: give {lacking}")
    axes = [axis for axis in AXES if axis not in UNVARIED]
    names = column_names("by", by)
    for name in names:
        if name not in axes:
            raise RequestError(f"by {shown(name)}{instead(name, axes)}")
    metric = _metric(sweep, decide)
    cells = sweep.cells()
    frame = pd.DataFrame([vars(cell) for cell in cells])
    arms = labelled(frame, names).nunique()
    if not 2 <= arms <= MOST_ARMS:
        raise RequestError(
            f"The sweep has {arms} value{'s' * (arms != 1)} of {' and '.join(names)}: expected 2 to"
            f" {MOST_ARMS} to race"
        )
    prompts = frame["prompt"].nunique()
    if prompts < LEAST_PROMPTS:
        raise RequestError(
            f"The sweep has {sentences.counted(prompts, 'prompt')}, and fewer than {LEAST_PROMPTS}"
            " decide nothing: give more, or leave decide out"
        )
    cells_of = Arms(frame.assign(value=1.0), names, Metric("value", "higher"))
    problems = list(starmap(cells_of.problem, combinations(cells_of.names, 2)))
    if all(problems):
        raise RequestError(
            f"No two values of {' and '.join(names)} can be compared: {problems[0]}. Give them"
            " equal settings, or race all that differs: by=['sampler', 'steps']"
        )
    return Race(tuple(names), metric, partial(judge, by=names, metric=metric))


def _metric(sweep: Sweep, decide: Any) -> str:
    """The name of the column that decides."""
    if isinstance(decide, str) and decide in COLUMNS:
        if COLUMNS[decide].better and decide not in UNRACED:
            return decide
        measured = []
        for name, column in COLUMNS.items():
            if column.better and name not in UNRACED:
                measured.append(name)
        raise RequestError(
            f"decide {shown(decide)} has no better direction: expected a scorer of the sweep, or"
            f" one of {', '.join(measured)}"
        )
    name = find(SCORERS, decide)
    if name not in sweep.scorers:
        raise RequestError(
            f"decide {shown(decide)} is not scored by the sweep: add it to its scorers"
        )
    if SCORERS[name].direction == "none":
        raise RequestError(f"decide {shown(decide)} has no better direction: name another scorer")
    return name


def judge(
    table: pd.DataFrame,
    contrasts: Sequence[tuple[Record, Record]],
    confidence: float,
    by: Sequence[str],
    metric: str,
) -> list[Record]:
    """The verdicts of these contrasts at one look (runs.records.Contrast), corrected together.

    A contrast that was decided has left the family, as in a step-down procedure. Before
    LEAST_PROMPTS prompts nothing is decided, whatever the metric.
    """
    labels: dict[tuple[Any, ...], Any] = {}
    for label, arm in zip(labelled(table, by), table[list(by)].to_numpy(object), strict=True):
        labels.setdefault(tuple(arm), label)
    verdicts: Sequence[Verdict | None] = [None] * len(contrasts)
    if metric in table and pd.to_numeric(table[metric], errors="coerce").notna().any():
        pairs = [(labels[tuple(a.values())], labels[tuple(b.values())]) for a, b in contrasts]
        measured = metric_of(table, metric, None)
        verdicts = verdicts_of(table, by, measured, confidence=confidence, contrasts=pairs)
    records = []
    for (a, b), verdict in zip(contrasts, verdicts, strict=True):
        records.append({"a": a, "b": b, **_judged(verdict)})
    return records


def _judged(verdict: Verdict | None) -> Record:
    if verdict is None:
        return {"verdict": "undecided", "reason": "no cell has a value", "n_pairs": 0}
    metric, contrast, pairs = verdict.metric, verdict.contrast, verdict.pairs
    word, reason = verdict.word, verdict.reason
    if word != "undecided" and pairs.prompts < LEAST_PROMPTS:
        word = "undecided"
        reason = f"{pairs.prompts} prompts, and fewer than {LEAST_PROMPTS} decide nothing"
    ends = [metric.effect(value) for value in (contrast.mean, contrast.low, contrast.high)]
    effect, low, high = [end if math.isfinite(end) else None for end in ends]
    return {
        "verdict": word,
        "reason": reason,
        "effect": effect,
        "low": low,
        "high": high,
        "n_prompts": pairs.prompts,
        "n_pairs": pairs.pairs,
        "n_units": contrast.clusters,
        "left_out": pairs.left_out,
        "prompts_needed": verdict.needed,
        "linked": {axis: list(values) for axis, values in pairs.linked.items()},
    }


def answer(table: pd.DataFrame, looks: Looks) -> list[str]:
    """What a race found, and what its full grid would have cost, in lines."""
    if not looks.records:
        return [f"The race has not looked yet: its first round is not complete. {cost(table)}"]
    last = looks.records[-1]
    try:
        metric = metric_of(table, last["metric"], None)
    except RequestError as error:  # no cell has a number
        return [f"Nothing is decided. {error}. {cost(table)}"]
    labels = _labels(looks)
    verdicts = [_verdict(record, metric, labels) for record in looks.contrasts.values()]
    lines = sentences.of_family(verdicts, last["by"])
    decided = len(verdicts) - len(looks.open())
    said = (
        f"A race: {decided} of {sentences.counted(len(verdicts), 'pair')} decided in"
        f" {sentences.counted(len(looks.records), 'look')} at up to {len(looks.prompts)} of"
        f" {last['planned']} prompts."
    )
    if decided:
        at = {item.pairs.prompts for item in verdicts if item.word != "undecided"}
        said += f" The pairs were decided at {' to '.join(map(str, sorted({min(at), max(at)})))}"
        said += " prompts each. In 95 % of such races no verdict is false."
    if looks.open() and not looks.live:
        said += " No open pair has cells to compare: the race goes on when failed cells are made."
    return [*lines, said, cost(table)]


def _verdict(record: Record, metric: Metric, labels: Mapping[Arm, str]) -> Verdict:
    """The verdict that a look recorded."""
    mean, low, high = (_difference(record.get(name), metric) for name in ("effect", "low", "high"))
    contrast = Contrast(mean, low, high, math.nan, record.get("n_units", 0), math.nan, math.nan)
    linked = {axis: tuple(values) for axis, values in record.get("linked", {}).items()}
    counts = record.get("n_prompts", 0), record["n_pairs"], record.get("left_out", 0)
    reason = record.get("reason", "")
    a, b = labels[tuple(record["a"].values())], labels[tuple(record["b"].values())]
    return Verdict(
        a, b, metric, Pairs({}, *counts, linked), contrast, record["verdict"], reason,
        record.get("prompts_needed"), math.nan, "",
    )  # fmt: skip


def _difference(effect: float | None, metric: Metric) -> float:
    """The difference of a recorded effect: of logarithms where the metric is relative."""
    if effect is None:
        return math.nan
    return math.log1p(effect / 100) if metric.relative else effect


def _labels(looks: Looks) -> dict[Arm, str]:
    """The arms by name, as `labelled` words them."""
    by, arms = looks.records[-1]["by"], list(dict.fromkeys(chain.from_iterable(looks.contrasts)))
    labels = labelled(pd.DataFrame(arms, columns=by, dtype=object), by)
    return dict(zip(arms, map(str, labels), strict=True))


def cost(table: pd.DataFrame) -> str:
    """Pictures made of those in the full grid; and its seconds, estimated by those measured here:
    a cell that was not made takes the mean of the cells that differ in prompt and seed alone."""
    made = int(table["image"].notna().sum())
    text = f"{made:,} of {sentences.counted(len(table), 'picture')} of the full grid were made"
    if not made:
        return f"{text}."
    settings = table[[*LATENTS, *AFTER]].astype("string")
    # A cell has the format it was asked with until it is made, often none; then that of its tensors
    settings["dtype"] = settings["dtype"].fillna(settings["dtype"].mode()[0])
    settings = settings.fillna(ABSENT)
    first = ~settings[list(LATENTS)].duplicated()
    shared = table[["encode_s", "denoise_s", "decode_s"]].astype(float).sum(axis=1, min_count=1)
    own = table[["upscale_s", "score_s"]].astype(float).sum(axis=1, min_count=1)
    kind = settings.drop(columns=["prompt", "seed"]).agg("\n".join, axis=1)
    spent = full = 0.0
    for seconds in (shared[first], own):
        spent += seconds.sum()
        full += seconds.fillna(seconds.groupby(kind).transform("mean")).sum()
    text += f": {_time(spent)} of work, loads of models apart."
    if made == len(table):
        return text
    text += f" The full grid takes about {_time(full)}"
    if waiting := int((~table["status"].isin(["ok", "skipped"])).sum()):
        return f"{text}; {sentences.counted(waiting, 'cell')} of the race are still to be made."
    return f"{text}: {100 * (1 - spent / full):.0f} % is saved."


def _time(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
