"""`rk.at_equal`: of each arm the setting that costs what the others may cost, chosen by the cost
alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realkit.analysis.answer import Answer
from realkit.analysis.metrics import RELATIVE_UNITS, check_columns, column_names, table_of
from realkit.analysis.pairs import ABSENT, AXES, BOUGHT, BOUND, CONDITIONS, labelled, texts
from realkit.analysis.sentences import MOST_NAMED, counted, number
from realkit.base.errors import RequestError, shown
from realkit.base.suggest import instead
from realkit.catalog.columns import COLUMNS
from realkit.runs.folder import read

DIAL = "steps"  # the axis that buys cost: what is chosen
CHOSEN = "A setting's cost is the median of its cells. No score had a part in the choice."
SLACK = 1.05  # what counts as equal cost: a clock differs by as much when a setting is run again


def at_equal(
    df: pd.DataFrame | str | Path,
    by: str | Sequence[str],
    cost: str = "seconds",
    most: float | None = None,
) -> Answer:
    """The cells of each value of `by` at the steps that cost nearest to `most`, and not more.

    `df` is a table of results, or a results folder, that varies `by` and the steps. `cost` is a
    column of which less is better: "seconds", "denoise_s", "nfe", "joules". `most` is above 0, in
    its unit. By default it is the largest cost that every arm reaches: the least of the costs of
    their dearest settings, or one that is up to 5 % above it, so that a clock's noise takes no arm
    a setting away; one for each value of the axes that the arms share, such as model or guidance.

    The cost of a setting is the median over its cells, of times, joules and memory over those of
    one batch, memory rung and card: the ones that most arms were measured on. No score has a part
    in the choice, so the best of several is not picked on the data that then judge it.

    The rows have three columns more: `cost`, `cost_bound` and `below_bound`, 0 at the bound to 1.
    `rk.compare` pairs them on prompt and seed although their steps differ; its sentences name the
    steps. `attrs["sentences"]` says which setting each arm got, who is left out because the
    cheapest setting is above the bound, and where noise of the cost may have chosen. Raises
    RequestError for an empty table, an unknown column, a cost that no cell has, and where fewer
    than two arms are within the bound, all else equal.
    """
    table = read(df).table() if isinstance(df, (str, Path)) else df
    frame, names = table_of(table), column_names("by", by)
    costs = _costs(frame, names, cost, most)
    relative = COLUMNS[cost].unit in RELATIVE_UNITS
    keys = _keys(frame, names, costs.notna())
    terms = [name for name in CONDITIONS if relative and name in frame and name not in names]
    settings = _settings(frame, keys.assign(terms=_joined(frame, terms)), costs)
    choices = []
    places = []
    for place, part in settings.groupby("place", sort=False):
        choice = _Choice(part, most)
        heading = f"At equal {cost} by {' and '.join(names)}{', ' * bool(place)}{place}"
        choices.append(choice.chosen)
        places.append(choice.sentences(heading, cost))
    chosen = pd.concat(choices).set_index("number")
    if chosen.empty:
        if settings.groupby("terms")["arm"].nunique().max() < 2:
            where = _measured_on(frame[costs.notna()], keys["arm"], terms)
            raise RequestError(
                f"No two of {' and '.join(names)} were measured alike, and {cost} of unlike cards,"
                f" batches, rungs or number formats are not compared: {where}. Run them on one, or"
                " compare at equal nfe"
            )
        raise RequestError(_none_within(settings, most, cost, names))
    rows = keys["number"].isin(chosen.index)
    numbers = keys.loc[rows, "number"]
    spent, bound = numbers.map(chosen["cost"]), numbers.map(chosen[BOUND])
    more = {"cost": spent, BOUND: bound, "below_bound": 1 - spent / bound}
    answer = Answer(frame[rows].assign(**more).reset_index(drop=True))
    sentences = [*_cut(places), *_without_cost(keys, costs, cost), CHOSEN]
    answer.attrs = {**table.attrs, "sentences": sentences}
    return answer


def _costs(frame: pd.DataFrame, by: Sequence[str], cost: Any, most: Any) -> pd.Series:
    """The costs of the cells, nan where there is none. Raises RequestError for what cannot be
    chosen by."""
    if not isinstance(cost, str):
        raise RequestError(f"cost {shown(cost)}: expected a column's name")
    check_columns(frame, *by, cost, DIAL, "prompt", "seed")
    for name in by:
        if name in (DIAL, "prompt", "seed"):
            raise RequestError(
                f"by {name!r}: expected an axis such as model or sampler. The steps are what is"
                " chosen, prompts and seeds what is averaged over"
            )
    if cost not in COLUMNS or COLUMNS[cost].better != "lower":
        known = [name for name in COLUMNS if COLUMNS[name].better == "lower" and name in frame]
        raise RequestError(f"{shown(cost)} is no cost{instead(cost, known)}")
    real = isinstance(most, (int, float, np.number)) and not isinstance(most, bool)
    if most is not None and (not real or not 0 < most < float("inf")):
        raise RequestError(f"most {shown(most)}: expected a number above 0, in the unit of {cost}")
    arms = labelled(frame, by).nunique()
    if arms < 2:
        raise RequestError(
            f"The table has {counted(arms, 'value')} of {' and '.join(by)}: expected 2 or more"
        )
    costs = pd.to_numeric(frame[cost], errors="coerce").astype(float)
    costs = costs.where((costs > 0) & (costs < float("inf")))
    if costs.isna().all():
        raise RequestError(f"No cell of the table has a number above 0 in {cost!r}")
    return costs


def _keys(frame: pd.DataFrame, by: Sequence[str], measured: pd.Series) -> pd.DataFrame:
    """Of each row its arm, its steps, its `place` in the axes that all arms share, its `own` values
    of those that they do not, as texts; and a number, equal where all of these are."""
    keys = pd.DataFrame({"arm": labelled(frame, by).map(str), DIAL: texts(frame, DIAL)})
    axes = [name for name in AXES if name in frame and name not in (*by, *BOUGHT)]
    columns = pd.DataFrame({name: texts(frame, name) for name in axes}, index=frame.index)
    asked = [name for name in axes if not COLUMNS[name].stage]
    alike = [keys["arm"], keys[DIAL], *(columns[name] for name in asked)]
    for name in axes:
        if name not in asked:  # a cell that failed has no such value: it takes its siblings'
            values = columns[name].where(measured)
            of_siblings = values.groupby(alike, sort=False).transform("first")
            columns[name] = values.fillna(of_siblings).fillna(ABSENT)
    shared: list[str] = []
    others: list[str] = []
    for name in axes:
        if columns[name].nunique() > 1:
            of_arms = columns.loc[measured, name].groupby(keys["arm"]).agg(set)
            (shared if set.intersection(*of_arms) else others).append(name)
    keys["place"], keys["own"] = _joined(columns, shared), _joined(columns, others)
    keys["number"] = keys.groupby(list(keys), sort=False).ngroup()
    return keys


def _joined(frame: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """The values of several columns as one text: "batch 4, card T4"."""
    joined = pd.Series("", index=frame.index)
    for name in names:
        joined = joined.where(joined == "", joined + ", ") + f"{name} " + texts(frame, name)
    return joined


def _settings(frame: pd.DataFrame, keys: pd.DataFrame, costs: pd.Series) -> pd.DataFrame:
    """A row for each setting and its terms: the median of its costs, its cells, its arm's line."""
    keys = keys.assign(cost=costs, order=pd.to_numeric(frame[DIAL], errors="coerce"))
    names = ["place", "arm", "own", DIAL, "number", "terms"]
    groups = keys[costs.notna()].groupby(names, sort=False)
    settings = groups.agg(
        cost=("cost", "median"), cells=("cost", "size"), order=("order", "first"),
        low=("cost", _lower), high=("cost", _upper),
    ).reset_index()  # fmt: skip
    own = settings["own"].map(" ({})".format).where(settings["own"] != "", "")
    settings["line"] = settings["arm"] + own
    return settings


def _lower(costs: pd.Series) -> float:
    """The lower quartile."""
    return float(costs.quantile(0.25))


def _upper(costs: pd.Series) -> float:
    """The upper quartile."""
    return float(costs.quantile(0.75))


class _Choice:
    """The settings chosen in one place, where all arms are to cost the same. A line is an arm with
    its own values, such as turbo at guidance 0. `chosen` has a row for each line within the bound,
    and none where fewer than two arms are: an arm without a rival would only shift the means."""

    def __init__(self, settings: pd.DataFrame, most: float | None) -> None:
        tally = settings.groupby("terms", sort=False).agg(
            lines=("line", "nunique"), settings=("number", "size"), cells=("cells", "sum")
        )
        order = ["lines", "settings", "cells"]
        tally = tally.sort_values(order, ascending=False, kind="stable")
        self.terms = str(tally.index[0])
        on_terms = settings["terms"] == self.terms
        self.settings = settings[on_terms].sort_values(["cost", "order"], kind="stable")
        self.unlike = settings[~on_terms & ~settings["number"].isin(self.settings["number"])]
        self.several_terms = len(tally) > 1
        costs = self.settings["cost"]
        reached = SLACK * self.settings.groupby("line")["cost"].max().min()
        self.bound = float(costs[costs <= reached].max() if most is None else most)
        self._source = ", which each reaches within 5 %" if most is None else ""
        within = self.settings[costs <= self.bound].drop_duplicates("line", keep="last")
        self.within = within.assign(**{BOUND: self.bound})
        alone = within["arm"].nunique() < 2
        self.chosen = self.within.iloc[:0] if alone else self.within

    def sentences(self, heading: str, cost: str) -> list[str]:
        """Which setting each arm got, and who is left out."""
        lines = [f"{heading}: at most {number(self.bound)} {cost}{self._source}."]
        if self.several_terms:
            lines.append(f"  Costs are those of {self.terms}.")
        chosen, left_out = [], []
        for line in dict.fromkeys(self.settings.sort_index()["line"]):
            settings = self.settings[self.settings["line"] == line]
            above = settings[settings["cost"] > self.bound]
            if len(above) < len(settings):
                chosen.append(f"  {line}: {self._spent(settings, above, cost)}.")
            else:
                cheapest = f"{above[DIAL].iloc[0]} steps, {number(above['cost'].iloc[0])} {cost}"
                left_out.append(f"  Left out: {line}, whose cheapest setting is {cheapest}.")
        lines += _named(chosen) + _named(left_out) + self._unsure()
        if len(self.unlike):
            count = counted(self.unlike["number"].nunique(), "setting")
            of = ", ".join(dict.fromkeys(self.unlike["line"]))
            lines.append(f"  Left out: {count} of {of}, with no cost on these terms.")
        if self.chosen.empty:
            lines.append("  Nothing is compared here: fewer than two are within the bound.")
        return lines

    def _unsure(self) -> list[str]:
        """A line where the noise of the costs may have made the choice."""
        cells, bound = self.settings, self.bound
        over = cells["number"].isin(self.within["number"]) & (cells["high"] > SLACK * bound)
        under = (cells["cost"] > bound) & (cells["low"] < bound / SLACK)
        across = cells[over | under].sort_index()
        if across.empty:
            return []
        names = (across["line"] + " at " + across[DIAL] + " steps").tolist()
        settings = ", ".join(names[:MOST_NAMED])
        if (rest := len(names) - MOST_NAMED) > 0:
            settings += f" and {rest} more"
        return [
            f"  Not sure: of {settings}, a quarter of the cells or more are across the bound by"
            " over 5 %. More batches would tell, or a bound on nfe."
        ]

    def _spent(self, settings: pd.DataFrame, above: pd.DataFrame, cost: str) -> str:
        """The setting that a line got, how far below the bound it is, and what comes next."""
        setting = settings.iloc[len(settings) - len(above) - 1]
        share = 100 * (1 - setting["cost"] / self.bound)
        below = f"{share:.0f} % below the bound" if share >= 0.5 else "at the bound"
        dearer = "it has no dearer setting"
        if len(above):
            over = 100 * (above["cost"].iloc[0] / self.bound - 1)
            dearer = f"{above[DIAL].iloc[0]} steps are {number(over)} % above it"
        return f"{setting[DIAL]} steps, {number(setting['cost'])} {cost}, {below}; {dearer}"


def _named(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST_NAMED
    return lines[:MOST_NAMED] + [f"  {rest} more: the column steps has the rest."] * (rest > 0)


def _cut(places: list[list[str]]) -> list[str]:
    """The lines of as many places as a person reads."""
    lines: list[str] = []
    for place in places[:MOST_NAMED]:
        lines += place
    if (rest := len(places) - MOST_NAMED) > 0:
        lines.append(f"{rest} more groups of settings: the columns steps, cost and {BOUND} say.")
    return lines


def _without_cost(keys: pd.DataFrame, costs: pd.Series, cost: str) -> list[str]:
    """A line for the arms that have no cost at all."""
    arms = dict.fromkeys(keys["arm"])
    bare = [arm for arm in arms if costs[keys["arm"] == arm].isna().all()]
    return [f"Left out: {', '.join(bare)}, without a number in {cost}."] if bare else []


def _measured_on(measured: pd.DataFrame, arms: pd.Series, terms: Sequence[str]) -> str:
    """What each arm was measured on, where no two share it: "card T4 (Euler), A100 (Heun)"; all
    that differs where they share each, but not all together."""
    apart, differing = [], []
    for name in terms:
        of_arms: dict[str, list[str]] = {}
        for arm, value in zip(arms[measured.index], texts(measured, name), strict=True):
            of_value = of_arms.setdefault(value, [])
            of_value += [arm] * (arm not in of_value)
        if len(of_arms) > 1:
            values = [f"{value} ({', '.join(names)})" for value, names in of_arms.items()]
            differing.append(f"{name} {', '.join(values)}")
            if all(len(names) == 1 for names in of_arms.values()):
                apart.append(differing[-1])
    return "; ".join(apart or differing)


def _none_within(settings: pd.DataFrame, most: float | None, cost: str, by: Sequence[str]) -> str:
    """Why no two arms can be compared, and what each would need."""
    parts = []
    for arm, costs in settings.groupby("arm", sort=False)["cost"]:
        parts.append(f"{arm} {number(costs.min())} to {number(costs.max())}")
    bound = "a bound that all of them reach" if most is None else f"{number(most)} {cost}"
    return (
        f"No two of {' and '.join(by)} have a setting within {bound}, all else equal:"
        f" {', '.join(parts[:MOST_NAMED])} {cost}. Give another most, or sweep more steps"
    )
