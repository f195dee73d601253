"""Scorers of one's own: a function of this Python session."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from realkit.base.door import check_kind, door
from realkit.base.errors import RequestError, one_line, shown
from realkit.catalog.columns import COLUMNS
from realkit.scorers.references import Locks
from realkit.scorers.table import SCORERS, Rate, Scorer, one_by_one

if TYPE_CHECKING:
    from PIL.Image import Image

ENGINE = "function"
_FUNCTIONS: dict[str, Callable[..., float]] = {}


def scorer(
    *,
    name: str = "",
    unit: str = "",
    direction: Literal["higher", "lower", "none"] = "higher",
    margin: float | None = None,
    criterion: Literal["photorealism", "steerability", "efficiency", "none"] = "none",
    version: int = 1,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Decorate a function (RGB picture) → number, or (RGB picture, prompt) → number, and it is a
    scorer for this session, under `name`, else the function's own:

        @rk.scorer(direction="lower", unit="levels")
        def darkness(image):
            return 255 - numpy.asarray(image).mean()

    A number is identified by the function's text and `version`: raise it where something that the
    function calls changes. Raises RequestError for a name that a shipped scorer or a column has,
    and for a function of other arguments.
    """

    @door
    def register(function: Callable[..., float]) -> Callable[..., float]:
        called = name or getattr(function, "__name__", "")
        if not called:
            raise RequestError(f"Scorer {shown(function)} has no name: give name=")
        taken = called in COLUMNS or (called in SCORERS and SCORERS[called].engine != ENGINE)
        if taken:
            raise RequestError(f"Scorer {called!r}: the name is taken, give name= another")
        about = (inspect.getdoc(function) or "a function").partition("\n")[0]
        entry = _entry(
            called, source=_text_hash(function), unit=unit, direction=direction, margin=margin,
            criterion=criterion, about=about,
            prompted=_arguments(called, function) == 2, version=version,
        )  # fmt: skip
        SCORERS.add(called, entry)
        _FUNCTIONS[called] = function
        return function

    check_kind("name", name, str)
    return register


def _entry(name: str, **settings: Any) -> Scorer:
    """The entry of a function. Raises RequestError for a setting that no entry takes."""
    try:
        return Scorer(engine=ENGINE, range=(-math.inf, math.inf), resize="none", **settings)
    except ValidationError as error:
        raise RequestError(f"Scorer {shown(name)}: {one_line(error, 300)}") from error


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError where the function is not of this session: in a Ray worker, say."""
    if name not in _FUNCTIONS:
        raise RequestError(
            f"Scorer {name!r} is a function of another Python session: define it here, and run in"
            " one process"
        )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The function, checked to give a number."""
    check(name, entry)
    function = _FUNCTIONS[name]

    def number(image: Image, prompt: str) -> float:
        value = function(image, prompt) if entry.prompted else function(image)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise RequestError(f"Scorer {name!r} gave {shown(value)}: expected a number") from None

    return one_by_one(number)


def _arguments(name: str, function: Callable[..., Any]) -> int:
    """How many of (picture, prompt) a function takes."""
    try:
        count = len(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        count = 0
    if count not in (1, 2):
        raise RequestError(f"Scorer {name!r}: expected a function of a picture, or with its prompt")
    return count


def _text_hash(function: Callable[..., Any]) -> str:
    """A hash of a function's text, or of its compiled code where the text is not known."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        text = repr((code.co_code, code.co_consts, code.co_names)) if code else repr(function)
    return hashlib.sha256(text.encode()).hexdigest()
