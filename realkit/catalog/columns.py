"""The columns of a results table, as data."""

from __future__ import annotations

from typing import Literal

from realkit.catalog.lookup import Spec, Table


class Column(Spec):
    """A column: its meaning, and how its value follows from rows. columns.toml says more."""

    meaning: str
    stage: Literal["", "denoise", "decode", "image", "upscale", "score"] = ""
    better: Literal["", "higher", "lower"] = ""
    unit: Literal["", "s", "J", "GiB", "pixels"] = ""
    field: str = ""
    legs: Literal["first", "sum", "sum of all", "largest"] = "first"
    part_of: Literal["", "seconds", "joules"] = ""


COLUMNS = Table("column", Column)
