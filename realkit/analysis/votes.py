"""What blind votes say: strengths of the arms, whether each voter is to be trusted, and which score
predicts the votes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from realkit.analysis.answer import Answer
from realkit.analysis.davidson import OUTCOMES, strengths
from realkit.analysis.metrics import check_columns, column_names, metric_of, metrics_of
from realkit.analysis.pairs import labelled
from realkit.analysis.sentences import counted as some
from realkit.analysis.sentences import number, signed
from realkit.analysis.trials import PHOTOGRAPH, picture_id
from realkit.base.errors import RequestError
from realkit.base.statistics import mean_interval
from realkit.runs.folder import read

ONE_SIDED = 0.001  # probability below which so many choices of one side are no accident
LEAST_REPEATS = 3  # of which a voter's agreement with itself is told
COLUMNS = ["arm", "strength", "low", "high", "won", "tied", "lost", "votes"]
Vote = dict[str, Any]


def votes(folder: str | Path, by: str | Sequence[str]) -> Answer:
    """The strength of each value of `by` in the blind votes of a results folder, best first.

    `strength` is the logarithm of Davidson's, 0 for the average arm; of two arms 1 apart, the
    stronger wins e times as often as it loses. `low` to `high` is its 95 % interval, over prompts
    and voters (analysis.davidson). The sentences also name voters who chose one side whatever it
    showed, and the scores that agree with the votes. Raises RequestError for a folder without
    votes, and for votes on one arm.
    """
    names = column_names("by", by)
    run = read(folder)
    df, cast = run.table(), run.store.votes.read()
    check_columns(df, *names)
    if not cast:
        raise RequestError(f"{str(folder)!r} has no votes: make a page with realkit vote")
    arm_of = _arms(df, names, cast)
    counted = [vote for vote in cast if _apart(vote, arm_of)]
    if not counted:
        raise RequestError(
            f"None of the {len(cast)} votes is between two values of {' and '.join(names)}"
        )
    table = _strengths(counted, arm_of)
    left_out = len(cast) - len(counted)
    table.attrs["sentences"] = [
        *_ranking(table, counted, names),
        *_voters(counted),
        *_agreement(df, counted),
        *[f"  Left out: {some(left_out, 'vote')} on one arm alone, or on other pictures."]
        * (left_out > 0),
    ]
    return table


def agreement(df: pd.DataFrame, cast: Sequence[Vote]) -> pd.DataFrame:
    """How often each score of the table agrees with the votes: `share` of the votes that are no tie
    and whose pictures differ in it, with its 95 % interval over prompts, best first."""
    pictures = df.dropna(subset=["image"])
    pictures = pictures.set_index(pictures["image"].map(picture_id))
    pictures = pictures[~pictures.index.duplicated()]
    rows = []
    for name in metrics_of(df):
        if name in ("seconds", "wins"):
            continue
        metric = metric_of(df, name, None)
        values = metric.values(pictures).dropna().to_dict()
        agrees, prompts = [], []
        for vote in cast:
            a, b = values.get(vote["a"]), values.get(vote["b"])
            if vote["choice"] == "tie" or a is None or b is None or a == b:
                continue
            better = "a" if (a > b) == (metric.better == "higher") else "b"
            agrees.append(float(better == vote["choice"]))
            prompts.append(vote["prompt"])
        if agrees:
            rows.append((name, *mean_interval(agrees, prompts).within(0, 1), len(agrees)))
    found = pd.DataFrame(rows, columns=["score", "share", "low", "high", "prompts", "votes"])
    return found.sort_values("share", ascending=False, ignore_index=True)


def _arms(df: pd.DataFrame, by: list[str], cast: Iterable[Vote]) -> dict[str, str]:
    """The arm of each picture's id; of photographs their own."""
    arms: dict[str, str] = {}
    for image, arm in zip(df["image"], labelled(df, by), strict=True):
        if isinstance(image, str):
            arms.setdefault(picture_id(image), str(arm))
    for vote in cast:
        for side in ("a", "b"):
            if vote[side].startswith(PHOTOGRAPH):
                arms[vote[side]] = PHOTOGRAPH.rstrip("/")
    return arms


def _apart(vote: Vote, arm_of: dict[str, str]) -> bool:
    """Whether a vote is between two arms."""
    a, b = arm_of.get(vote["a"]), arm_of.get(vote["b"])
    return a is not None and b is not None and a != b


def _strengths(counted: list[Vote], arm_of: dict[str, str]) -> Answer:
    pairs = [(arm_of[vote["a"]], arm_of[vote["b"]]) for vote in counted]
    arms, codes = np.unique(np.array(pairs), return_inverse=True)
    places = codes.reshape(len(counted), 2)
    outcomes = np.array([OUTCOMES[vote["choice"]] for vote in counted])
    prompts = np.unique([vote["prompt"] for vote in counted], return_inverse=True)[1]
    voters = np.unique([vote["voter"] for vote in counted], return_inverse=True)[1]
    found = strengths(places, outcomes, (prompts, voters))
    rows = []
    for place, arm in enumerate(arms):
        first, second = places[:, 0] == place, places[:, 1] == place
        won = int((first & (outcomes == 0)).sum() + (second & (outcomes == 1)).sum())
        tied = int(((first | second) & (outcomes == 2)).sum())
        total = int((first | second).sum())
        strength = found.values[place], found.low[place], found.high[place]
        rows.append((str(arm), *strength, won, tied, total - won - tied, total))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return Answer(table.sort_values("strength", ascending=False, ignore_index=True))


def _ranking(table: pd.DataFrame, counted: list[Vote], by: list[str]) -> list[str]:
    voters = len({vote["voter"] for vote in counted})
    prompts = len({vote["prompt"] for vote in counted})
    head = f"{some(len(counted), 'blind vote')} of {some(voters, 'voter')}"
    head += f" on {some(prompts, 'prompt')}"
    lines = [f"{head}, by {' and '.join(by)}:"]
    for row in table.to_dict("records"):
        word = "no verdict"
        if row["low"] > 0:
            word = "stronger than the average"
        elif row["high"] < 0:
            word = "weaker than the average"
        interval = "one prompt has no interval"
        if prompts > 1:
            interval = f"{signed(row['low'])} to {signed(row['high'])}"
        won = f"won {row['won']}, tied {row['tied']}, lost {row['lost']}"
        lines.append(f"  {row['arm']}: {signed(row['strength'])} ({interval}), {word}; {won}.")
    return lines


def _voters(counted: list[Vote]) -> list[str]:
    """A line for each voter who is not to be trusted, and one for each agreement with itself."""
    lines = []
    for voter in dict.fromkeys(vote["voter"] for vote in counted):
        own = [vote for vote in counted if vote["voter"] == voter]
        voter = " ".join(voter.split())
        lines += _sides(voter, own)
        same = _repeats(own)
        if len(same) >= LEAST_REPEATS:
            lines.append(f"  {voter} answered {sum(same)} of {len(same)} repeated pairs as before.")
    return lines


def _sides(voter: str, own: list[Vote]) -> list[str]:
    """What is wrong with a voter's choice of sides."""
    sided = [vote for vote in own if vote["choice"] != "tie"]
    if not sided:
        return [f"  {voter} saw no difference in all {len(own)} votes."]
    left = sum(vote["choice"] == vote["left"] for vote in sided)
    if binomtest(left, len(sided)).pvalue >= ONE_SIDED:
        return []
    side, count = ("left", left) if 2 * left > len(sided) else ("right", len(sided) - left)
    return [
        f"  {voter} chose the {side} picture in {count} of {len(sided)} votes, although sides are"
        " shuffled: leave these votes out."
    ]


def _repeats(own: list[Vote]) -> list[bool]:
    """Of each pair that was shown again: whether the answer was the same."""
    first: dict[frozenset[str], str] = {}
    same = []
    for vote in own:
        pair = frozenset((vote["a"], vote["b"]))
        chosen = "tie" if vote["choice"] == "tie" else vote[vote["choice"]]
        if pair in first:
            same.append(first[pair] == chosen)
        first.setdefault(pair, chosen)
    return same


def _agreement(df: pd.DataFrame, counted: list[Vote]) -> list[str]:
    lines = []
    for row in agreement(df, counted).to_dict("records"):
        share, low, high = (number(100 * row[name]) for name in ("share", "low", "high"))
        interval = f" ({low} to {high})" if row["prompts"] > 1 else ""
        lines.append(
            f"  {row['score']} agrees with {share} %{interval} of {some(row['votes'], 'vote')};"
            " 50 % is chance."
        )
    return lines
