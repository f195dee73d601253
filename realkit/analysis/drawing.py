"""What all figures share: texts as they are drawn, and columns that can be drawn."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


def text(value: Any, width: int = 1000) -> str:
    """Wrapped text to draw; a dollar sign does not start mathematics."""
    return fill(str(value), width).replace("$", r"\$")


def check_numbers(df: pd.DataFrame, *columns: str) -> None:
    from pandas.api.types import is_numeric_dtype

    for name in columns:
        values = df[name].dropna().infer_objects()
        if len(values) and not is_numeric_dtype(values):
            raise RequestError(f"Column {name!r} holds no numbers: expected a score or measurement")
