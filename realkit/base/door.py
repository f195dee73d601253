"""The door of what people call: arguments of the right kind, and one line for whatever goes wrong
behind it."""

from __future__ import annotations

import inspect
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AnySet
from contextlib import contextmanager
from functools import wraps
from os import PathLike
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from realkit.base.errors import RequestError, one_line, out_of_memory, shown, unforeseen
from realkit.base.suggest import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")
UNIONS = (Union, UnionType)
DEEPEST = 4  # levels of lists and mappings in which numbers are looked for
WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "True or False",
    Path: "a path", type(None): "None", Mapping: "a mapping", dict: "a mapping",
    Sequence: "a list", list: "a list", tuple: "a tuple", Iterable: "a list",
    Callable: "a function", PathLike: "a path",
}  # fmt: skip


def door(function: Callable[P, T]) -> Callable[P, T]:
    """A public function, or a class that people call, whose errors are one line each.

    Numbers of numpy and pandas, and their arrays of one dimension, arrive as Python's. An argument
    that is missing or unknown, and a path that no disk can hold, is a RequestError before anything
    is done. Values are the function's to check, in its own words; where it raises something else,
    and an argument is of another kind than its annotation, that argument is the RequestError. What
    is left is a RunError that holds the library's error as its cause.
    """
    if isinstance(function, type):
        function.__init__ = door(function.__init__)  # type: ignore[misc]
        return function
    signature, name = inspect.signature(function), _called(function)
    kinds: dict[str, Any] = {}

    @wraps(function)
    def through(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise RequestError(_unbound(name, signature, kwargs, error)) from None
        kinds.update({} if kinds else _kinds(function))
        for argument, value in bound.arguments.items():
            bound.arguments[argument] = value = plain(value)
            if isinstance(value, (str, Path)) and Path in _either(kinds[argument]):
                check_path(argument, value)
        try:
            return function(*bound.args, **bound.kwargs)
        except RequestError:
            raise
        except Exception as error:
            for argument, value in bound.arguments.items():
                check_kind(argument, value, kinds[argument], error)
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


def _unbound(
    name: str, signature: inspect.Signature, given: Mapping[str, Any], error: TypeError
) -> str:
    """The line for arguments that a function does not take: an unknown one before one that is
    missing, which it may have been meant for."""
    known = list(signature.parameters)
    open_ended = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    reason, meant = str(error), ""
    for argument in given:
        if argument not in known and not open_ended:
            reason = f"got an unexpected keyword argument {argument!r}"
            meant = did_you_mean(argument, known)
            break
    expected = ", ".join(argument for argument in known if argument != "self")
    return f"{name}: {reason}.{meant} Expected {name}({expected})"


def _called(function: Callable[..., Any]) -> str:
    """What people call: load, plots.grid, Run."""
    name = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")
    return name.rpartition(".")[2]


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read without loading a library; others are the function's own to
    check."""
    function = inspect.unwrap(function)
    known: dict[str, Any] = dict.fromkeys(inspect.signature(function).parameters, Any)
    for argument, written in inspect.get_annotations(function).items():
        known[argument] = written
        if isinstance(written, str):
            known[argument] = _read(written, dict(getattr(function, "__globals__", {})))
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            known[argument] = GenericAlias(Sequence, (known[argument],))
        if parameter.kind is parameter.VAR_KEYWORD:
            known[argument] = Any
    return known


def _read(annotation: str, names: dict[str, Any]) -> Any:
    """An annotation's kind; a name that is imported for the type checker alone is any kind."""
    try:
        return eval(annotation, names)
    except NameError as error:
        return _read(annotation, names | {str(error.name): Any})
    except (AttributeError, TypeError):
        return Any


def check_kind(argument: str, value: Any, kind: Any, cause: Exception | None = None) -> None:
    """Raise RequestError for a value of another kind than an annotation's."""
    if not _fits(value, kind):
        order = ", in an order, which a set has not" if isinstance(value, AnySet) else ""
        raise RequestError(f"{argument} {shown(value)}: expected {_words(kind)}{order}") from cause


def _either(kind: Any) -> tuple[Any, ...]:
    """The kinds of a union, or the one."""
    return get_args(kind) if get_origin(kind) in UNIONS else (kind,)


def check_path(argument: str, path: str | Path) -> None:
    """Raise RequestError for what no disk can hold as a path, for one that is closed to this user,
    and for a device or a pipe, which may have no end."""
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISFIFO(kind):
            raise ValueError("it is a pipe, expected a file or folder")
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise ValueError("it is a device, expected a file or folder")
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


def whole(value: Any) -> Any:
    """A value with its whole floats as the whole numbers that they are, as numpy and pandas write
    them; in a list or tuple too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return type(value)(map(whole, value)) if type(value) in (list, tuple) else value


def check_listed(argument: str, value: Any, column: str) -> None:
    """Raise RequestError for what has no order, and for a table, which would be its columns'
    names."""
    if isinstance(value, AnySet):
        raise RequestError(f"{argument} {shown(value)}: a set has no order, expected a list")
    if type(value).__name__ == "DataFrame":
        raise RequestError(
            f'{argument} is a table: expected one of its columns, such as df["{column}"]'
        )


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
        if origin in (Iterable, tuple) or not inner:
            return True
        return all(_fits(item, inner[0]) for item in value)
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
