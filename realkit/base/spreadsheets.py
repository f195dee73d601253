"""Tables as CSV that is safe to open in a spreadsheet, and their reading back.

A spreadsheet runs a cell as a formula that begins with one of TRIGGERS, and a prompt is anybody's
text. So such a text gets an apostrophe before it, as OWASP advises
(https://owasp.org/www-community/attacks/CSV_Injection): spreadsheets show the rest as text. Numbers
stay numbers, also negative ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# The last four are the full-width forms, which Japanese spreadsheets take too.
TRIGGERS = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"
# Texts that already begin with apostrophes get one more, so that each has one way back.
DANGEROUS, MARKED = re.compile(f"'*[{TRIGGERS}]"), re.compile(f"'+[{TRIGGERS}]")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def to_csv(frame: pd.DataFrame) -> str:
    """A table as CSV with a header and without its index."""
    safe = _mapped(frame, _marked)
    text: str = safe.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which is quoted only where lines end so too
        text = safe.to_csv(index=False, lineterminator="\r\n")
    return text


def read_csv(path: Path) -> pd.DataFrame:
    """A table that `to_csv` wrote, its texts as they were. Raises what pandas raises."""
    import pandas as pd

    # Only an empty cell is none: "null" may be a prompt, and " " alone in its line.
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], skip_blank_lines=False)
    return _mapped(frame, _plain)


def _mapped(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    """The table with its texts changed, those of its header too."""
    changed = frame.copy()
    for name in frame.columns:
        if str(frame[name].dtype) in ("object", "string", "str", "category"):
            changed[name] = frame[name].astype(object).map(change)
    return changed.rename(columns=change)


def _marked(value: Any) -> Any:
    if isinstance(value, str) and DANGEROUS.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _plain(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and MARKED.match(value) else value
