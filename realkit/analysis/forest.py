"""The figure of a comparison: each contrast with its interval and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.analysis.lettering import Lettering
from realkit.analysis.metrics import table_of
from realkit.analysis.sentences import counted
from realkit.base.door import door
from realkit.base.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = {"better": "#1a7f37", "worse": "#b00020", "equivalent": "#1f5fa8", "undecided": "#777777"}
WIDEST = 10  # times the largest effect: the most of an interval that is shown
MOST = 120  # contrasts of one metric
WIDE, LINES = 46, 3  # characters and lines of a label


@door
def verdicts(table: pd.DataFrame) -> Figure:
    """What `rk.compare` returned, a panel a metric: a point for each effect a - b, its interval,
    the margin as a grey band, and the verdict's word.

    An interval that is far wider than the others is cut at the panel's edge. Notes below count
    these, the pairs that could not be compared, and the cells without a partner. Raises
    RequestError for another table, and for more than 120 contrasts of one metric.
    """
    from matplotlib import pyplot as plt

    table = table_of(table)
    missing = [name for name in ("a", "b", "metric", "effect", "verdict") if name not in table]
    if missing:
        raise RequestError(f"The table has no column {missing[0]!r}: give what rk.compare returned")
    panels = list(table.groupby("metric", sort=False))
    most = max((len(part) for _, part in panels), default=0)
    if not 0 < most <= MOST:
        raise RequestError(f"{most} contrasts of one metric: expected 1 to {MOST} to draw")
    # A label of three lines, the longest that is usual, needs half an inch.
    size = 3.2 + 4.6 * len(panels), 1.2 + 0.45 * most
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    lettering = Lettering()
    notes: list[str] = []
    for axis, (metric, part) in zip(axes[0], panels, strict=True):
        part = part.reset_index(drop=True)
        _draw(axis, str(metric), part, lettering)
        notes += _notes(str(metric), part, axis.get_xlim())
    return lettering.finish(figure, notes)


def _notes(metric: str, part: pd.DataFrame, edges: tuple[float, float]) -> list[str]:
    """What a panel does not show: pairs without an effect, ends beyond its edges, and cells."""
    parts = []
    if "n_units" in part and "unit" in part and len(decided := part[part["effect"].notna()]):
        few, many = decided["n_units"].min(), decided["n_units"].max()
        unit = decided["unit"].iloc[0]
        size = counted(int(many), unit, f"{unit}{'es' * unit.endswith('ch') or 's'}")
        parts.append(f"{few} to {size}" if few < many else size)
    if apart := int(part["effect"].isna().sum()):
        parts.append(f"{counted(apart, 'pair')} without a point could not be compared")
    if cut := int(((part["low"] < edges[0]) | (part["high"] > edges[1])).sum()):
        parts.append(f"{counted(cut, 'interval')} beyond the edge")
    if "left_out" in part and (lost := int(part["left_out"].max())):
        cells = counted(lost, "cell")
        parts.append(f"left out up to {cells} of a pair, without a partner or value")
    return [f"{metric}: {'; '.join(parts)}."] * bool(parts)


def _draw(axis: Axes, metric: str, part: pd.DataFrame, lettering: Lettering) -> None:
    within = [name for name in part.columns[: list(part.columns).index("a")]]
    labels = []
    for place, row in enumerate(part.to_dict("records")):
        ink = INKS[row["verdict"]]
        axis.plot([row["low"], row["high"]], [place, place], color=ink, linewidth=1.6)
        axis.plot(row["effect"], place, "o", color=ink, markersize=4)
        groups = "".join(f"{row[name]}: " for name in within)
        labels.append(f"{groups}{row['a']} − {row['b']}")
    axis.set_yticks(range(len(part)), lettering.labels(labels, WIDE, LINES), fontsize=7)
    axis.set_ylim(len(part) - 0.4, -0.6)
    words = axis.secondary_yaxis("right")
    words.set_yticks(range(len(part)), part["verdict"], fontsize=7)
    words.tick_params(length=0)
    for label, word in zip(words.get_yticklabels(), part["verdict"], strict=True):
        label.set_color(INKS[word])
    axis.axvline(0, color="black", linewidth=0.8)
    margins = part["margin"].dropna()
    if len(margins):
        axis.axvspan(-margins.iloc[0], margins.iloc[0], color="#dddddd", zorder=0)
    _limit(axis, part)
    unit = ", %" if (part["unit"] == "batch").all() else ""
    axis.set_xlabel(f"{lettering(metric)}{unit}: a − b", fontsize=8)
    axis.grid(axis="x", alpha=0.25)


def _limit(axis: Axes, part: pd.DataFrame) -> None:
    """Show three quarters of the intervals whole: one of few prompts would flatten all others."""
    ends = part[["low", "high"]].abs().max(axis=1).dropna()
    if ends.empty:
        return
    largest = float(part["effect"].abs().max())
    reach = 1.15 * max(min(float(ends.quantile(0.75)), WIDEST * largest), largest)
    if reach == 0:  # all values are equal
        reach = ends.max() or 1.0
        axis.set_xlim(-reach, reach)
        return
    axis.set_xlim(-min(reach, 1.15 * float(ends.max())), min(reach, 1.15 * float(ends.max())))
