"""The door of what people call: arguments of the right kind, and one line for whatever goes wrong
behind it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AnySet
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from realkit.base.errors import RequestError, one_line, out_of_memory, shown, unforeseen

P = ParamSpec("P")
T = TypeVar("T")
UNIONS = (Union, UnionType)
DEEPEST = 4  # levels of lists and mappings in which numbers are looked for
WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "True or False",
    Path: "a path", type(None): "None", Mapping: "a mapping", dict: "a mapping",
    Sequence: "a list", list: "a list", tuple: "a tuple", Iterable: "a list",
    Callable: "a function",
}  # fmt: skip


def door(function: Callable[P, T]) -> Callable[P, T]:
    """A public function whose errors are one line each.

    Numbers of numpy and pandas, and their arrays of one dimension, arrive as Python's. An argument
    that is missing, unknown or of another kind than its annotation is a RequestError before
    anything is done; values are the function's to check. What a library raises behind the door is
    a RunError that holds it as its cause.
    """
    signature, name = inspect.signature(function), function.__name__
    kinds: dict[str, Any] = {}

    @wraps(function)
    def through(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            expected = ", ".join(signature.parameters)
            raise RequestError(f"{name}: {error}. Expected {name}({expected})") from None
        if not kinds:
            kinds.update(_kinds(function))
        for argument, value in bound.arguments.items():
            bound.arguments[argument] = value = plain(value)
            check_kind(argument, value, kinds.get(argument, Any))
        try:
            return function(*bound.args, **bound.kwargs)
        except RequestError:
            raise
        except Exception as error:
            raise unforeseen(name, error) from error

    through.at_the_door = True  # type: ignore[attr-defined]
    return through


@contextmanager
def worded(called: str) -> Iterator[None]:
    """Word in one line what a library raises at what a person gave; `called` begins it. Out of
    memory passes: another rung may have room."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise RequestError(f"{called}: {one_line(error, 300) or type(error).__name__}") from error


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read without loading a library; others are the function's own to
    check."""
    known = {}
    for argument, written in inspect.get_annotations(function).items():
        try:
            names = getattr(function, "__globals__", {})
            known[argument] = eval(written, names) if isinstance(written, str) else written
        except (NameError, AttributeError, TypeError):  # imported for the type checker alone
            known[argument] = Any
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            known[argument] = GenericAlias(Sequence, (known[argument],))
        if parameter.kind is parameter.VAR_KEYWORD:
            known[argument] = Any
    return known | {"": Any}


def check_kind(argument: str, value: Any, kind: Any) -> None:
    """Raise RequestError for a value of another kind than an annotation's, for a set where an order
    matters, and for a path that no disk can hold."""
    if not _fits(value, kind):
        order = " A set has no order." if isinstance(value, AnySet) else ""
        raise RequestError(f"{argument} {shown(value)}: expected {_words(kind)}.{order}")
    parts = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    if Path in parts and isinstance(value, (str, Path)):
        check_path(argument, value)


def check_path(argument: str, path: str | Path) -> None:
    """Raise RequestError for what no disk can hold as a path, and for a path that is closed to this
    user."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"{argument} {shown(str(path))}: {reason}. Give another path") from None


def expanded(path: str | Path) -> Path:
    """A path whose ~ is the user's home. Raises RequestError where there is none, as for the users
    of many containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        reason = one_line(error).rstrip(".")
        raise RequestError(
            f"Path {shown(str(path))}: {reason}. Set HOME, and REALKIT_CACHE to a writable folder"
        ) from None


def plain(value: Any, level: int = 0) -> Any:
    """A value with numpy's and pandas' numbers, and their arrays of one dimension, as Python's."""
    kind = type(value)
    if kind in (list, tuple) and level < DEEPEST:
        return kind([plain(item, level + 1) for item in value])
    if kind is dict and level < DEEPEST:
        return {key: plain(item, level + 1) for key, item in value.items()}
    library = kind.__module__.partition(".")[0]
    if library not in ("numpy", "pandas") or library not in sys.modules:
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        item = value.item()
        return float(item) if type(item).__module__ == "numpy" else item  # a long double
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        return plain(value.tolist(), level + 1)
    return value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotation's kind; a whole number is a number, a truth value is
    none."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any or not (isinstance(origin, type) or origin in (*UNIONS, Literal)):
        return True
    if origin in UNIONS:
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, tuple(map(type, inner)))
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool)
    if origin in (list, tuple, Sequence, Iterable):
        many = isinstance(value, Iterable if origin is Iterable else (list, tuple))
        if not many or isinstance(value, (bytes, bytearray, AnySet)):
            return False
        return origin is Iterable or not inner or all(_fits(item, inner[0]) for item in value)
    return isinstance(value, origin)


def _words(kind: Any) -> str:
    """An annotation's kind in words."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in UNIONS:
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (list, Sequence, Iterable) and inner:
        return f"a list of {_words(inner[0]).removeprefix('a ')}"
    return WORDS.get(origin, getattr(origin, "__name__", str(origin)))
