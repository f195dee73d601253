"""What can be compared: a column's unit, which direction is better, and the margin within which two
values count as equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from realkit.base.errors import RequestError, shown
from realkit.base.suggest import instead
from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.scorers.likeness import MEASURES
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

RELATIVE_UNITS = ("s", "J", "GiB")  # compared in percent
ENDLESS = (float("-inf"), float("inf"))
# What the values of some columns reach, beside scores, whose entries say it.
RANGES = {
    "wins": (0.0, 1.0), "told_apart": (0.0, 100.0), "answered": (0.0, 100.0),
    "response": (-100.0, 100.0), "leakage": (0.0, 100.0),
    "ssim": (-1.0, 1.0),
}  # fmt: skip
# The figures of rk.sets and rk.edits, with the better direction; "": it has no verdict.
FIGURES: dict[str, Literal["higher", "lower", ""]] = {
    "kernel_distance": "lower", "told_apart": "", "diversity": "higher", "vendi": "higher",
    "response": "higher", "answered": "higher", "leakage": "lower",
}  # fmt: skip


def range_of(name: str) -> tuple[float, float]:
    """The least and the most that a column's values can be."""
    return SCORERS[name].range if name in SCORERS else RANGES.get(name, ENDLESS)


@dataclass(frozen=True)
class Metric:
    """A column with a better direction. A relative one is compared by ratios, in percent."""

    name: str
    better: Literal["higher", "lower"]
    relative: bool = False
    margin: float | None = None  # in the column's unit; of a relative metric in percent
    unit_of_mean: str = "prompt"  # what a mean is over: a prompt, a picture, a batch
    assumed: bool = False  # the better direction is not known

    def values(self, frame: pd.DataFrame) -> pd.Series:
        """The column's numbers, of a relative metric their logarithms; nan for anything else."""
        import pandas as pd

        values = pd.to_numeric(frame[self.name], errors="coerce").astype(float)
        if self.relative:
            values = values.where(values > 0).map(np.log)
        return values.replace([np.inf, -np.inf], np.nan)

    def in_unit(self, value: float) -> float:
        """A change in the metric's unit: of logarithms, in percent."""
        return 100 * float(np.expm1(value)) if self.relative else value

    def effect(self, difference: float) -> float:
        """A difference in the metric's unit, no larger than that of the least and the most that its
        values can be; nan stays nan."""
        if self.relative:
            return self.in_unit(difference)
        least, most = range_of(self.name)
        return max(min(difference, most - least), least - most)

    @property
    def units(self) -> str:
        """The word for several units: "prompts", "batches"."""
        return f"{self.unit_of_mean}es" if self.unit_of_mean == "batch" else f"{self.unit_of_mean}s"

    @property
    def limit(self) -> float | None:
        """The margin as a difference: of logarithms where the metric is relative."""
        if self.margin is None or not self.relative:
            return self.margin
        return float(np.log1p(self.margin / 100))


def metric_of(frame: pd.DataFrame, name: str, margin: float | None) -> Metric:
    """The metric of a column; `margin` in place of its own. Raises RequestError for a column that
    is missing, empty, no number, or has no better direction."""
    if name not in frame.columns:
        known = ", ".join(metrics_of(frame)) or "none"
        end = instead(name, frame.columns, listed=known)
        raise RequestError(f"The table has no metric {shown(name)}{end}")
    real = isinstance(margin, (int, float)) and not isinstance(margin, bool)
    if margin is not None and (not real or not 0 < margin < float("inf")):
        raise RequestError(f"margin {shown(margin)}: expected a number above 0")
    if name in COLUMNS:
        column = COLUMNS[name]
        relative = column.unit in RELATIVE_UNITS
        unit = "batch" if relative else "prompt"
        metric = Metric(name, column.better or "higher", relative, margin, unit)
        better: str = column.better
    elif name in SCORERS:
        scorer = SCORERS[name]
        better = scorer.direction.replace("none", "")
        direction: Literal["higher", "lower"] = "lower" if better == "lower" else "higher"
        metric = Metric(name, direction, margin=margin or scorer.margin)
    elif name in FIGURES:
        better = FIGURES[name]
        metric = Metric(name, FIGURES[name] or "higher", margin=margin)
    elif name in MEASURES:
        better = MEASURES[name].better.replace("nearer 1", "")
        metric = Metric(name, "lower" if better == "lower" else "higher", margin=margin)
    else:  # a scorer of a catalogue that is not here
        better, metric = "higher", Metric(name, "higher", margin=margin, assumed=True)
    if not better:
        raise RequestError(
            f"{name!r} has no better direction: expected one of {', '.join(metrics_of(frame))}"
        )
    if metric.values(frame).isna().all():
        above = " above 0" if metric.relative else ""
        raise RequestError(f"No cell of the table has a number{above} in {name!r}")
    return metric


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """The metrics of a table that a comparison takes by default: scores with a better direction,
    figures of sets and edits, then the seconds of a picture."""
    names = []
    for name in frame.columns:
        scored = name in SCORERS and SCORERS[name].direction != "none"
        directed = scored or FIGURES.get(name)
        if directed and Metric(name, "higher").values(frame).notna().any():
            names.append(name)
    times = Metric("seconds", "lower", relative=True)
    if "seconds" in frame and times.values(frame).notna().any():
        names.append("seconds")
    return names


def meaning(column: str) -> tuple[str, str]:
    """(better is, meaning) of a column; empty where it is unknown."""
    if column in COLUMNS:
        return COLUMNS[column].better, COLUMNS[column].meaning
    if column in MEASURES:
        return MEASURES[column].better, MEASURES[column].about
    if column in SCORERS:
        spec = SCORERS[find(SCORERS, column)]
        return spec.direction, f"{spec.about}; {spec.unit}"
    return "", ""


def table_of(df: Any) -> pd.DataFrame:
    """A plain copy of a table, its rows numbered. Raises RequestError for anything else, and for
    columns that are no distinct names."""
    import pandas as pd

    if not isinstance(df, pd.DataFrame):
        raise RequestError(
            f"{shown(df)} is no table: expected a dataframe, such as rk.read(folder).table()"
        )
    if df.columns.nlevels > 1:
        raise RequestError("The table's columns have several levels: expected one name each")
    if not df.columns.is_unique:
        twice = df.columns[df.columns.duplicated()][0]
        raise RequestError(f"The table has the column {shown(twice)} twice: expected it once")
    return pd.DataFrame(df).reset_index(drop=True)


def check_columns(frame: pd.DataFrame, *names: str) -> None:
    """Raise RequestError for a column that a table lacks, and for a table without rows."""
    for name in names:
        if name not in frame.columns:
            columns = ", ".join(map(str, frame.columns)) or "none, for it has no columns"
            end = instead(name, frame.columns, listed=columns)
            raise RequestError(f"The table has no column {shown(name)}{end}")
    if frame.empty:
        raise RequestError("The table has no rows: expected the cells of a run")


def check_confidence(confidence: Any) -> None:
    """Raise RequestError for what is no confidence of an interval."""
    real = isinstance(confidence, (int, float)) and not isinstance(confidence, bool)
    if not real or not 0.5 <= confidence <= 0.9999:
        raise RequestError(f"confidence {shown(confidence)}: expected from 0.5 to 0.9999")


def column_names(argument: str, value: Any) -> list[str]:
    """Names of columns, each once. Raises RequestError, which names the argument, for no name."""
    names = [value] if isinstance(value, str) else value
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not listed or not names:
        raise RequestError(f"{argument} {shown(value)}: expected a column's name, or several")
    return list(dict.fromkeys(names))
