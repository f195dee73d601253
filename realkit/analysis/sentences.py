"""Verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from realkit.analysis.metrics import metrics_of
from realkit.analysis.verdicts import Verdict, least
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 12  # lines of one kind; the table has all
MOST_NEEDED = 1000  # prompts or batches that are told as a number
TABLE = "the whole table (--csv)"
NEAREST = 3  # undecided pairs that are named: those nearest to a verdict


def number(value: float) -> str:
    """A number in three digits: "1.25", "−0.4", "1,200"."""
    text = f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """The same with its sign: "+1.25"."""
    return f"+{number(value)}" if value > 0 else number(value)


def of_family(verdicts: Sequence[Verdict], by: Sequence[str], place: str = "") -> list[str]:
    """The lines of the verdicts that were corrected together: a heading, then the clear ones, the
    equivalent and the undecided. `place` names the value of another axis that they hold for."""
    if not verdicts:
        return [f"By {' and '.join(by)}, {place}: nothing to compare, or no baseline."]
    metric = verdicts[0].metric
    size = counted(max(verdict.pairs.prompts for verdict in verdicts), "prompt")
    if metric.relative:
        batches = max(verdict.contrast.clusters for verdict in verdicts)
        size += f" in {counted(batches, 'batch', 'batches')}"
    where = f", {place}" if place else ""
    better = f"{metric.better} is {'taken as ' * metric.assumed}better"
    head = f"{metric.name} by {' and '.join(by)}{where} ({size}, {better})"
    lines = [f"{head}: {_best(verdicts)}"]
    lines += _clear([verdict for verdict in verdicts if verdict.word in ("better", "worse")])
    lines += _equivalent([verdict for verdict in verdicts if verdict.word == "equivalent"])
    lines += _undecided([verdict for verdict in verdicts if verdict.word == "undecided"])
    return lines + _notes([verdict for verdict in verdicts if verdict.pairs.pairs])


def counted(count: int, word: str, words: str = "") -> str:
    """A number with its noun: "1 prompt", "12 prompts"."""
    return f"{count:,} {word if count == 1 else words or f'{word}s'}"


def brackets(confidence: float) -> str:
    """What the numbers in brackets are."""
    often = f"in {100 * confidence:g} % of such runs"
    if confidence == 0.95:
        often = "19 times in 20"
    return (
        f"In brackets: where the true difference lies, {often}, for all pairs of a metric together."
    )


def next_step(verdicts: Sequence[tuple[str, Verdict]]) -> list[str]:
    """What to do next about what is undecided: a line, of the scores where one is undecided.
    Verdicts come with the value of another axis that they hold for, "" for all."""
    undecided: list[Verdict] = []
    places: dict[int, str] = {}
    for place, verdict in verdicts:
        if verdict.word == "undecided" and verdict.pairs.pairs:
            undecided.append(verdict)
            places[id(verdict)] = f" ({place})" if place else ""
    if not undecided:
        return ["What to do next: nothing is undecided here. Choose by what you value most."]
    scores = [verdict for verdict in undecided if not verdict.metric.relative]
    if not scores:
        return [
            "What to do next: only costs are undecided. More prompts make more batches to compare,"
            " and an idle machine makes times that differ less."
        ]
    again = "Add prompts to the sweep and run it again: only what is new is made."
    prompts, fewest = max(verdict.contrast.clusters for verdict in scores), least(scores[0].metric)
    if prompts < fewest:
        return [f"What to do next: fewer than {fewest} prompts decide nothing. {again}"]
    scores.sort(key=lambda verdict: verdict.needed or float("inf"))
    nearest = scores[0]
    if not nearest.needed:
        return [f"What to do next: {again}"]
    return [
        f"What to do next: with {nearest.needed:,} prompts instead of {prompts:,}, {nearest.a}"
        f" against {nearest.b} would probably be settled in {nearest.metric.name}"
        f"{places[id(nearest)]}. {again}"
    ]


def without_values(frame: pd.DataFrame) -> list[str]:
    """A line of the scorers of which no cell has a number."""
    lacking, known = [], metrics_of(frame)
    for name in map(str, frame):
        if name in SCORERS and SCORERS[name].direction != "none" and name not in known:
            lacking.append(name)
    return [f"Not compared, for no cell has a number: {', '.join(lacking)}."] if lacking else []


def not_read_whole(frame: pd.DataFrame) -> list[str]:
    """A line where prompts were cut by a model or a scorer: what is compared did not see them
    whole."""
    parts = []
    for name, reader in (("unread", "a model"), ("score_cut_tokens", "a scorer")):
        if name in frame:
            cut = frame[name].notna() & (frame[name].astype(object) != 0)
            if count := frame.loc[cut, "prompt"].nunique():
                parts.append(f"{counted(count, 'prompt')} by {reader} ({name})")
    return [f"Not read whole: {', '.join(parts)}."] if parts else []


def of_skipped(frame: pd.DataFrame) -> list[str]:
    """What must be said of a table in which a race skipped cells."""
    skipped = int((frame["status"] == "skipped").sum()) if "status" in frame else 0
    if not skipped:
        return []
    return [
        f"A race skipped {counted(skipped, 'cell')} here, because it had decided without: these"
        " intervals do not allow for its looks. Its own verdicts are in decisions.jsonl."
    ]


def _arms(verdicts: Sequence[Verdict]) -> list[Any]:
    pairs = [(verdict.a, verdict.b) for verdict in verdicts]
    return list(dict.fromkeys(chain.from_iterable(pairs)))


def _winner(verdict: Verdict) -> tuple[Any, Any]:
    """(the better, the worse) of a clear verdict."""
    return (verdict.a, verdict.b) if verdict.word == "better" else (verdict.b, verdict.a)


def _best(verdicts: Sequence[Verdict]) -> str:
    """The arms that no other is better than, and how many pairs could not be compared."""
    arms = _arms(verdicts)
    met = [verdict for verdict in verdicts if verdict.pairs.pairs]
    apart = len(verdicts) - len(met)
    pairs = counted(apart, "pair")
    without = f" {pairs} could not be compared: they share no equal cells." if apart else ""
    losers = {_winner(verdict)[1] for verdict in met if verdict.word in ("better", "worse")}
    if not losers:
        return f"No verdict says that one of the {len(arms)} is better than another.{without}"
    winners = {_winner(verdict)[0] for verdict in met if verdict.word in ("better", "worse")}
    best = [str(arm) for arm in arms if arm in winners - losers]
    every = len(met) == len(arms) * (len(arms) - 1) // 2
    if every and len(losers) == len(arms) - 1:
        return f"Best of {len(arms)}: {best[0]}."
    rest = [str(arm) for arm in _arms(met) if arm not in losers and arm not in winners]
    open_ = f" Not told apart from the best: {', '.join(rest)}." if rest and every else ""
    return f"Better than others, and worse than none: {', '.join(best)}.{open_}{without}"


def _clear(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each arm that is better than others."""
    beaten: dict[Any, list[str]] = {}
    for verdict in verdicts:
        better, worse = _winner(verdict)
        small = f", {verdict.reason}" if verdict.reason else ""
        text = f"than {worse} by {_amount(verdict)}{small}"
        if verdict.metric.relative:
            text = f"{_amount(verdict)} less than {worse}{small}"
        beaten.setdefault(better, []).append(text)
    lines = []
    for better, others in sorted(beaten.items(), key=lambda item: -len(item[1])):
        verb = "takes" if verdicts[0].metric.relative else "is better"
        more = f"; and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        lines.append(f"  {better} {verb} {'; '.join(others[:MOST_NAMED])}{more}.")
    return lines


def _equivalent(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    for verdict in verdicts[:MOST_NAMED]:
        margin = f"{verdict.metric.margin:g}{' %' * verdict.metric.relative}"
        lines.append(
            f"  {verdict.a} and {verdict.b} are equivalent within {margin}: {_difference(verdict)}."
        )
    return lines + _more(len(verdicts), "equivalent")


def _undecided(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each undecided pair, or one for all where too few prompts decide none."""
    met = [verdict for verdict in verdicts if verdict.pairs.pairs]
    fewest = least(verdicts[0].metric) if verdicts else 0
    few = [verdict for verdict in met if verdict.contrast.clusters < fewest]
    lines = []
    if len(few) > 1:
        units = few[0].metric.units
        counts = sorted({verdict.contrast.clusters for verdict in few})
        unit = few[0].metric.unit_of_mean
        size = f"{counts[0]} to {counts[-1]} {units}"
        if counts[0] == counts[-1]:
            size = counted(counts[0], unit, units)
        needed = [verdict.needed for verdict in few if verdict.needed]
        settle = f"; {min(needed):,} to {max(needed):,} {units} would settle them" if needed else ""
        lines.append(
            f"  {len(few)} pairs are undecided: {size}, and fewer than {fewest} decide"
            f" nothing{settle}."
        )
        met = [verdict for verdict in met if verdict not in few]
    met.sort(key=lambda verdict: verdict.needed or float("inf"))
    for verdict in met[:NEAREST]:
        units, settle = verdict.metric.units, ""
        if verdict.needed:
            settle = f"; {_about(verdict.needed)} {units} would settle it"
        lines.append(
            f"  {verdict.a} against {verdict.b} is undecided: {_difference(verdict)}"
            f"{verdict.reason}{settle}."
        )
    lines += _farther(met[NEAREST:])
    apart = [verdict for verdict in verdicts if not verdict.pairs.pairs]
    for verdict in apart[:MOST_NAMED]:
        lines.append(f"  {verdict.a} and {verdict.b} cannot be compared: {verdict.reason}.")
    return lines + _more(len(apart), "not compared")


def _farther(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for the undecided pairs that are not named."""
    if not verdicts:
        return []
    needed = [verdict.needed for verdict in verdicts if verdict.needed]
    units, settle = verdicts[0].metric.units, ""
    if needed:
        settle = f" {min(needed):,} to {_about(max(needed), '')} {units} would settle them;"
        if _about(min(needed)) == _about(max(needed)):
            settle = f" {_about(needed[0])} {units} would settle {_them(needed)};"
    verb = "is" if len(verdicts) == 1 else "are"
    return [f"  {len(verdicts)} more {verb} undecided:{settle} {TABLE} has {_them(verdicts)}."]


def _about(needed: int, word: str = "about ") -> str:
    """A number of prompts or batches that would settle a pair; beyond MOST_NEEDED nobody makes
    them."""
    return f"{word}{needed:,}" if needed <= MOST_NEEDED else f"more than {MOST_NEEDED:,}"


def _them(several: Sequence[Any]) -> str:
    return "it" if len(several) == 1 else "them"


def _more(count: int, word: str) -> list[str]:
    """A line for those that are not named."""
    rest = count - MOST_NAMED
    if rest <= 0:
        return []
    return [f"  {rest} more {'is' if rest == 1 else 'are'} {word}: {TABLE} has the rest."]


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    """What a reader must know besides: other settings that differ, signs that turn, cells without
    a partner."""
    linked: dict[str, dict[Any, list[str]]] = {}
    for verdict in verdicts:
        for axis, values in verdict.pairs.linked.items():
            for arm, value in zip((verdict.a, verdict.b), values, strict=True):
                arms = linked.setdefault(axis, {}).setdefault(value, [])
                arms += [str(arm)] * (str(arm) not in arms)
    notes = []
    for axis, of_value in linked.items():
        parts = [f"{value} for {', '.join(arms)}" for value, arms in of_value.items()]
        notes.append(f"  Also different: {axis} ({'; '.join(parts)}).")
    turning = [verdict for verdict in verdicts if verdict.turns]
    for verdict in turning[:MOST_NAMED]:
        notes.append(f"  {verdict.a} against {verdict.b} turns with {verdict.turns}.")
    if left_out := max((verdict.pairs.left_out for verdict in verdicts), default=0):
        cells = counted(left_out, "cell")
        notes.append(f"  Left out: up to {cells} of a pair, without an equal partner or a value.")
    return notes


def _amount(verdict: Verdict) -> str:
    """The size of a clear difference with its interval: "1.2 (0.4 to 2)", or in percent."""
    contrast, metric = verdict.contrast, verdict.metric
    effects = [metric.effect(value) for value in (contrast.mean, contrast.low, contrast.high)]
    if verdict.word == "worse" and metric.relative:  # of the worse in terms of the better
        mean, low, high = -contrast.mean, -contrast.high, -contrast.low
        effects = [metric.effect(value) for value in (mean, low, high)]
    sizes = [abs(effect) for effect in effects]
    mean, low, high = sizes[0], min(sizes[1:]), max(sizes[1:])
    unit = " %" * metric.relative
    return f"{number(mean)}{unit} ({number(low)} to {number(high)})"


def _difference(verdict: Verdict) -> str:
    """A difference with its interval, and its sign; "" where there is none."""
    contrast, metric = verdict.contrast, verdict.metric
    if contrast.clusters < 2:
        return ""
    mean, low, high = map(metric.effect, (contrast.mean, contrast.low, contrast.high))
    unit = " %" * metric.relative
    end = ", " if verdict.word == "undecided" else ""
    return f"{signed(mean)}{unit} ({signed(low)} to {signed(high)}){end}"
