"""The errors of a person's request, and their wording in one line without secrets.

RequestError (exit code 2: nothing was started)
└── RunError (exit code 1: something outside refused after the start)
    ├── WriteError, in `files.py` (the results folder cannot be written)
    └── Unforeseen (a library raised what no place of the kit had reckoned with)
"""

from __future__ import annotations

import re
import reprlib
import traceback
from pathlib import Path
from typing import Any

from realkit.base import credentials
from realkit.base.suggest import did_you_mean

LONGEST = 1500  # characters of an error's line


class RequestError(ValueError):
    """A request that is wrong as written: one line of what was given, what was expected, what to
    do."""

    def __init__(self, message: str) -> None:
        line = " ".join(credentials.scrub(message).splitlines())
        if len(line) > LONGEST:  # the middle of it is what was given
            line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
        super().__init__(line)


class RunError(RequestError):
    """A correct request that the disk, the cluster or Kaggle refused on the way; what is done is
    kept."""


class Unforeseen(RunError):
    """What a library or the kit itself raised, in one line; its cause is the error."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is a failed allocation, of Python, numpy or torch."""
    texts = ("CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
    while error is not None:
        # torch's own error by its name: importing torch takes seconds.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if any(text in str(error) for text in texts):
            return True
        error = error.__cause__
    return False


def unforeseen(what: str, error: BaseException) -> RunError:
    """The line for an error of `what` that nothing had reckoned with."""
    if out_of_memory(error):
        return RunError(f"{what}: memory ran out ({one_line(error, 200)}). Ask for less at once")
    if isinstance(error, OSError) and error.filename is not None:
        return RunError(f"{what}: {error.filename!r}: {error.strerror}. Give another path")
    if isinstance(error, OSError) and error.strerror:  # the system's, of no file by name
        return RunError(f"{what}: {error.strerror}. What is done is kept: run it again")
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" in {Path(place[0].filename).name} line {place[0].lineno}" if place else ""
    return Unforeseen(
        f"{what} failed with {type(error).__name__}{where}: {one_line(error, 300)}. It is a fault"
        " of the kit or of a library that it uses: please report this line"
    )


QUOTED = r"'([^']*)'"
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 80, 80


def shown(value: object) -> str:
    """A given value for an error's line: its repr, at most 80 characters."""
    try:
        text = " ".join(_BRIEF.repr(value).split())
    except ValueError:  # Python writes no number of thousands of digits
        return "a number too long to write"
    except Exception:  # a repr of someone else's
        return f"a value of type {type(value).__name__}"
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
    if "set_int_max_str_digits" in text:  # Python's advice is to a programmer
        text = "it holds a number of thousands of digits"
    return " ".join(credentials.scrub(text).split())[:most]


def _problem(item: Any) -> str:
    names = [str(part) for part in item["loc"] if isinstance(part, (int, str))]
    place = ".".join(name for name in names if not name.startswith(("function-", "union")))
    text = problem(item)
    if item["type"] not in ("missing", "value_error"):
        text += f" (given {shown(item['input'])})"
    return f"{place}: {text}" if place else text


def problem(item: Any) -> str:
    """What pydantic says is wrong with one value; with the choice that was probably meant."""
    text: str = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        meant = did_you_mean(item["input"], re.findall(QUOTED, text))
        text += meant and f".{meant}"
    return text
