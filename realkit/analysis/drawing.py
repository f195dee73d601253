"""What all figures of a table share: columns that can be drawn, and what a figure says that it
leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realkit.analysis.pairs import AXES, UNIT, texts
from realkit.analysis.sentences import counted
from realkit.base.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

MOST_VALUES = 4  # of an axis that a note names one by one
VALUE_LENGTH = 40  # letters of a value that a note names
# What follows from other axes: a note would say the same thing twice.
DERIVED = ("image_width", "image_height", "nfe_budget")


def check_numbers(df: pd.DataFrame, *columns: str) -> None:
    from pandas.api.types import is_numeric_dtype

    for name in columns:
        values = df[name].dropna().infer_objects()
        if len(values) and not is_numeric_dtype(values):
            raise RequestError(f"Column {name!r} holds no numbers: expected a score or measurement")


def number_text(value: float) -> str:
    """A number of a table as a person reads it: "1234", "64.6", "0.0213"; "–" where it is none."""
    if math.isnan(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def states(frame: pd.DataFrame) -> str:
    """How many cells of a table are not ok: "2 failed, 1 pending"; "" where all are."""
    counts = frame["status"].astype("string").fillna("without a status").value_counts()
    return ", ".join(f"{n:,} {status}" for status, n in counts.items() if status != "ok")


def filtered(df: pd.DataFrame) -> list[str]:
    """A note of the cells of a run that were filtered away before its table was drawn."""
    whole = df.attrs.get("cells")
    if not isinstance(whole, int) or len(df) >= whole:
        return []
    return [f"Drawn from {len(df):,} of the run's {counted(whole, 'cell')}."]


def without_values(frame: pd.DataFrame, left: pd.Series, columns: Sequence[str]) -> list[str]:
    """A note of the cells that a figure leaves out for want of a number, and why. `left` is true
    where a cell is left out."""
    if not left.any():
        return []
    lost = frame[left]
    reasons = [states(lost)] if "status" in frame else [""]
    if whole := int((lost["status"] == "ok").sum()) if "status" in frame else len(lost):
        reasons.append(f"{whole:,} without a number in {' or '.join(columns)}")
    why = ", ".join(filter(None, reasons))
    return [f"Left out: {len(lost):,} of {counted(len(frame), 'cell')}: {why}."]


def unseen(frame: pd.DataFrame, first: pd.DataFrame, laid_out: Sequence[str]) -> list[str]:
    """A note of the cells that lie behind the first cell of their place, which `first` has; places
    are told apart by the columns `laid_out`."""
    hidden = frame.drop(first.index)
    if hidden.empty:
        return []
    settings = []
    for name in _varying(frame, laid_out):
        values = list(dict.fromkeys(texts(first, name)))
        settings.append(f"{name}={_listed(values)}")
    shown = f" ({', '.join(settings)})" if settings else ""
    bad = f", of them {bad}" if (bad := states(hidden)) else ""
    return [f"Each place shows its first cell{shown}; {len(hidden):,} not shown{bad}."]


def averaged(frame: pd.DataFrame, laid_out: Sequence[str], of: str = "Each point") -> list[str]:
    """Notes of the axes that a figure averages over in the groups of the columns `laid_out`: in
    each, and in some."""
    parts: dict[str, list[str]] = {}
    for name, (varied, groups) in _varying(frame, laid_out).items():
        values = list(dict.fromkeys(texts(frame, name)))
        short = len(values) <= MOST_VALUES and name not in ("prompt", "negative")
        verb = f"{of} pools" if varied == groups else f"{varied} of {groups} also pool"
        part = f"{name} {_listed(values)}" if short else counted(len(values), name)
        parts.setdefault(verb, []).append(part)
    notes = [f"{verb} {'; '.join(told)}." for verb, told in parts.items()]
    return sorted(notes, key=lambda note: not note.startswith(of))


def _varying(frame: pd.DataFrame, laid_out: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The axes with several values in some group of the columns `laid_out`, with the number of such
    groups and of all."""
    groups = [frame[name].astype("string").fillna("") for name in dict.fromkeys(laid_out)]
    names: dict[str, tuple[int, int]] = {}
    for name in ("model", "sampler", *UNIT, *AXES):
        if name not in frame or name in (*laid_out, *DERIVED, *names):
            continue
        varied = texts(frame, name).groupby(groups).nunique() > 1
        if varied.any():
            names[name] = int(varied.sum()), len(varied)
    return names


def _listed(values: Sequence[str]) -> str:
    """A few values of an axis, shortened; of more their number."""
    if len(values) > MOST_VALUES:
        return f"{len(values)} values"
    short = []
    for value in values:
        cut = len(value) > VALUE_LENGTH
        short.append(value[:VALUE_LENGTH] + "…" * cut)
    return ", ".join(short)
