"""A table that prints as sentences."""

from __future__ import annotations

from html import escape

import pandas as pd


class Answer(pd.DataFrame):
    """A table of conclusions. It prints as sentences; slices of it are plain tables."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def sentences(self) -> list[str]:
        """What was found, in lines for a person; those that belong to one before are indented."""
        return list(self.attrs["sentences"])

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        parts = []
        for line in self.sentences:
            tag = "li" if line.startswith("  ") else "p"
            parts.append(f"<{tag}>{escape(line.strip())}</{tag}>")
        return "".join(parts) + pd.DataFrame(self).to_html(max_rows=60)
