"""The errors a person's request can meet."""

from __future__ import annotations

import reprlib
from typing import Any

from realkit.base import credentials


class RequestError(ValueError):
    """A request that cannot be met as written. One line, without secrets: what was given, what was
    expected, what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(credentials.scrub(message).splitlines()))


class RunError(RequestError):
    """What was asked for was right, was begun, and could not be gone on with: the disk, the cluster
    or Kaggle refused. What is done is kept. Exit code 1."""


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 80, 80


def shown(value: object) -> str:
    """What was given, for an error's line: its repr, at most 80 characters of it."""
    try:
        text = " ".join(_BRIEF.repr(value).split())
    except ValueError:  # Python writes no number of thousands of digits
        return "a number too long to write"
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(error: BaseException, most: int = 500) -> str:
    """An error's message in one line without secrets, of at most `most` characters.

    Pydantic's reads `place: what was wrong (given …)`.
    """
    # Pydantic is not imported here: a fresh Kaggle session reads this before it has it.
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        text = "; ".join(_problem(item) for item in error.errors(include_url=False))
    else:
        text = str(error)
    return " ".join(credentials.scrub(text).split())[:most]


def _problem(item: Any) -> str:
    place = ".".join(
        str(part)
        for part in item["loc"]
        if isinstance(part, (int, str)) and not str(part).startswith(("function-", "union"))
    )
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] in ("missing", "value_error") else f" (given {shown(item['input'])})"
    return f"{place}: {message}{given}" if place else f"{message}{given}"
