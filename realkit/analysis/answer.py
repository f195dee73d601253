"""A table that prints as sentences."""

from __future__ import annotations

from html import escape

import pandas as pd

MOST_ROWS, MOST_COLUMNS = 12, 24  # of the table that follows the sentences in print
# What the sentences say better than a terminal's table
ASIDE = ("margin", "smallest_effect", "unit", "n_units", "left_out", "reason", "turns")


class Answer(pd.DataFrame):
    """A table of conclusions. It prints as sentences, and as a table where that is short; slices of
    it are plain tables."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def sentences(self) -> list[str]:
        """What was found, in lines for a person; those that belong to one before are indented."""
        return list(self.attrs["sentences"])

    def __str__(self) -> str:
        text = "\n".join(self.sentences)
        if len(self) > MOST_ROWS or len(self.columns) > MOST_COLUMNS:
            return text
        aside = [name for name in ASIDE if name in self]
        if "unit" in self and self["unit"].nunique() > 1:  # some of the needed are batches
            aside.remove("unit")
        shown = pd.DataFrame(self).drop(columns=aside)
        if "prompts_needed" in shown:
            shown["prompts_needed"] = shown["prompts_needed"].astype(object).fillna("")
        table = shown.to_string(index=False, float_format="{:.3g}".format, na_rep="")
        return f"{text}\n\n{table}"

    def _repr_html_(self) -> str:
        parts = []
        for line in self.sentences:
            tag = "li" if line.startswith("  ") else "p"
            parts.append(f"<{tag}>{escape(line.strip())}</{tag}>")
        return "".join(parts) + pd.DataFrame(self).to_html(max_rows=60)
