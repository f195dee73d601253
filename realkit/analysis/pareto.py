"""The trade-off between two columns, and which settings nothing beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from realkit.analysis.compare import MOST_ARMS, verdicts_of
from realkit.analysis.drawing import averaged, check_numbers, filtered, without_values
from realkit.analysis.lettering import Lettering
from realkit.analysis.metrics import (
    RELATIVE_UNITS,
    Metric,
    check_columns,
    metric_of,
    range_of,
    table_of,
)
from realkit.analysis.pairs import CONDITIONS, labelled
from realkit.base.door import door
from realkit.base.errors import RequestError
from realkit.base.statistics import mean_interval
from realkit.catalog.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*Xph"  # one for each hue; numbers follow
LEGEND_ROWS, LEGEND_WIDTH, LEGEND_LINES = 25, 40, 3
ON, PERHAPS, BEHIND = "on the front", "perhaps on the front", "behind the front"
# How a point is drawn by its standing; "" where it was not judged.
STYLES: dict[str, dict[str, Any]] = {
    ON: {"markersize": 9, "markeredgecolor": "black"},
    PERHAPS: {"markersize": 7, "markerfacecolor": "none"},
    BEHIND: {"markersize": 5, "alpha": 0.45},
    "": {},
}


class Point(NamedTuple):
    """One setting: its arm as comparisons name it, and its place with the interval of y."""

    arm: Any
    hue: Any
    name: Any
    x: float
    y: float
    low: float
    high: float


@door
def pareto(
    df: pd.DataFrame,
    x: str = "seconds",
    y: str = "clip",
    *,
    by: str = "sampler",
    hue: str = "model",
    unit: str = "prompt",
) -> Figure:
    """Mean of `y` over median of `x` for each pair of `by` and `hue`, and the pairs' front.

    Less `x` and a better `y` win; the dashed front joins the pairs that no other beats in both
    numbers. The mean is that of the means of each `unit`; a bar is its 95 % interval
    (`base.statistics.mean_interval`), absent where there is one `unit` only. A pair is marked as
    surely on the front where each other is worse in `y` by `rk.compare`'s verdicts, or dearer:
    by its verdicts too where `x` is a time, joules or memory, else as it stands. It is behind the
    front where one of no more `x` is better in `y`; else it is perhaps on it. `hue` may
    be the same column as `by`. What has no finished value is left out; notes below count it, and
    name the axes over which a point is a mean. Raises RequestError for a column that is missing,
    holds no numbers or has no better direction, and where times, joules or memory of different
    batch sizes, cards or number formats would be pooled.
    """
    from matplotlib import pyplot as plt

    frame = table_of(df)
    check_columns(frame, x, y, by, hue, "status", unit)
    if x == y:
        raise RequestError(f"x and y are both {x!r}: expected two columns")
    check_numbers(frame, x, y)
    done, notes = _done(frame, x, y, unit)
    notes += [*averaged(done, (by, hue)), *filtered(df)]
    for name in (x, y):
        if name in COLUMNS and COLUMNS[name].unit in RELATIVE_UNITS:
            _check_conditions(done, name, (by, hue))
    done = done.assign(**{name: labelled(done, [name]) for name in {by, hue}})
    metric, points = metric_of(done, y, None), _points(done, x, y, by, hue, unit)
    colours = _colours(list(dict.fromkeys(done[by])))
    markers = _markers(dict.fromkeys(done[hue]))
    standing = _standing(done, x, metric, points, [hue, by] if hue != by else [by], unit)
    legend_cols = 1 + (len(colours) + len(markers)) // LEGEND_ROWS
    figure, axis = plt.subplots(figsize=(7 + 2 * legend_cols, 5), layout="constrained")
    for point in points:
        style = {"color": colours[point.name], "marker": markers[point.hue]}
        bar = [[point.y - point.low], [point.high - point.y]]
        style |= STYLES[standing.get(point.arm, "")]
        axis.errorbar(point.x, point.y, yerr=bar, capsize=2, elinewidth=0.8, **style)
    front = list(zip(*_front(points, metric.better == "lower"), strict=True))
    axis.step(*front, "--", where="post", label="front", color="#888888", linewidth=1, zorder=0)
    lettering = Lettering()
    _legend(axis, colours, markers, standing, lettering, hue == by)
    axis.set_xlabel(f"{lettering(x)} (median)")
    axis.set_ylabel(f"{lettering(y)} (mean, 95 % interval over {unit}s)")
    axis.grid(alpha=0.25)
    axis.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=legend_cols
    )
    return lettering.finish(figure, notes)


def _done(frame: pd.DataFrame, x: str, y: str, unit: str) -> tuple[pd.DataFrame, list[str]]:
    """(the finished cells that have both values, a note of those that are left out)."""
    values = frame[[x, y]].astype(float).replace([np.inf, -np.inf], np.nan)
    whole = values.notna().all(axis=1) & frame[unit].notna()
    if not whole.any():
        raise RequestError(f"No cell has both {x!r} and {y!r}")
    notes = without_values(frame, ~whole, (x, y))
    return frame.assign(**{x: values[x], y: values[y]})[whole], notes


def _points(done: pd.DataFrame, x: str, y: str, by: str, hue: str, unit: str) -> list[Point]:
    arms = labelled(done, [hue, by] if hue != by else [by])
    points = []
    for (hue_value, name), group in done.groupby([done[hue], done[by]], sort=False):
        interval = mean_interval(group[y], group[unit].map(str))
        mean, low, high, _ = interval.within(*range_of(y))
        arm = arms[group.index[0]]
        points.append(Point(arm, hue_value, name, float(group[x].median()), mean, low, high))
    return points


def _standing(
    done: pd.DataFrame, x: str, metric: Metric, points: Sequence[Point], by: list[str], unit: str
) -> dict[Any, str]:
    """Where each arm stands to the front; empty where there are too many to be judged."""
    if len(points) > MOST_ARMS:
        return {}
    frame = done.assign(prompt=done[unit].map(str), seed=done.get("seed", 0))
    better = _beaten(frame, by, metric, points)
    cheaper: dict[Any, set[Any]] = {}
    for point in points:
        cheaper[point.arm] = {other.arm for other in points if other.x > point.x}
    surely = cheaper
    if x in COLUMNS and COLUMNS[x].unit in RELATIVE_UNITS:
        surely = _beaten(frame, by, metric_of(done, x, None), points)
    everyone = set(better)
    standing = {}
    for arm in everyone:
        no_dearer = everyone - cheaper[arm] - {arm}
        if any(arm in better[rival] for rival in no_dearer):
            standing[arm] = BEHIND
        else:
            ahead = better[arm] | surely[arm] | {arm}
            standing[arm] = ON if ahead == everyone else PERHAPS
    return standing


def _beaten(
    frame: pd.DataFrame, by: list[str], metric: Metric, points: Sequence[Point]
) -> dict[Any, set[Any]]:
    """Of each arm, the arms that it is better than."""
    better: dict[Any, set[Any]] = {point.arm: set() for point in points}
    for verdict in verdicts_of(frame, by, metric):
        if verdict.word == "better":
            better[verdict.a].add(verdict.b)
        elif verdict.word == "worse":
            better[verdict.b].add(verdict.a)
    return better


def _legend(
    axis: Axes,
    colours: Mapping[Any, Any],
    markers: Mapping[Any, str],
    standing: Mapping[Any, str],
    lettering: Lettering,
    one_column: bool,
) -> None:
    """Empty lines that name colours, markers and standings in the legend."""
    labels = lettering.labels(list(colours), LEGEND_WIDTH, LEGEND_LINES)
    for (name, colour), label in zip(colours.items(), labels, strict=True):
        marker = markers[name] if one_column else "s"
        axis.plot([], [], marker=marker, color=colour, label=label, linestyle="")
    if not one_column:
        labels = lettering.labels(list(markers), LEGEND_WIDTH, LEGEND_LINES)
        for marker, label in zip(markers.values(), labels, strict=True):
            (line,) = axis.plot([], [], marker=marker, color="black", linestyle="")
            line.set(markerfacecolor="none", label=label)
    for name in (ON, PERHAPS, BEHIND):
        if name in standing.values():
            axis.plot([], [], "o", color="#888888", linestyle="", label=name, **STYLES[name])


def _colours(names: Sequence[Any]) -> dict[Any, Any]:
    from matplotlib import pyplot as plt

    if len(names) > 20:
        wheel = plt.get_cmap("turbo", len(names))
        return {name: wheel(n) for n, name in enumerate(names)}
    # tab20 alternates dark and light shades of ten colours: take the dark ones first.
    wheel = plt.get_cmap("tab20")
    return {name: wheel((2 * n) % 20 + n // 10) for n, name in enumerate(names)}


def _markers(hues: Mapping[Any, None]) -> dict[Any, str]:
    numbers = [f"${n + 1}$" for n in range(len(MARKERS), len(hues))]
    return dict(zip(hues, [*MARKERS, *numbers], strict=False))


def _front(points: Iterable[Point], lower: bool) -> list[tuple[float, float]]:
    """The places with a better y than every place at less x, by ascending x."""
    sign = -1 if lower else 1
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if not front or sign * point.y > sign * front[-1][1]:
            front.append((point.x, point.y))
    return front


def _check_conditions(done: pd.DataFrame, column: str, axes: tuple[str, str]) -> None:
    """Raise RequestError where a column's values must not be pooled, or compared by one axis."""
    for name in CONDITIONS:
        if name in done and name not in axes and done[name].nunique() > 1:
            values = ", ".join(map(str, sorted(done[name].dropna().unique())))
            raise RequestError(
                f"{column} was measured at different {name}: {values}. Filter the table first"
            )
