"""A notebook's parameters: what its tagged cell assigns, and which values may replace it."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from typing import Any

from realkit.base.errors import RequestError, one_line, shown

UNKNOWN = object()  # a default that is computed: any value may take its place
KINDS: dict[str, tuple[type, ...]] = {  # in this order: True is an int too
    "bool": (bool,),
    "number": (int, float),
    "text": (str,),
    "list": (list, tuple),
    "mapping": (dict,),
}
ANY = "any"  # the kind of None, and of what is computed
EXPECTED = {
    "text": "text, a list of texts or null", "number": "a number, a list of numbers or null",
    "bool": "true or false", "mapping": "a mapping",
    "list": "a list of the same kind of values",
}  # fmt: skip


def parameters_cell(cells: Iterable[Any], where: str) -> str | None:
    """The source of the code cell tagged `parameters`, None where there is none. Raises
    RequestError where several are: papermill puts values after the first, and the others would
    undo them."""
    tagged = []
    for cell in cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            tagged.append(cell.source)
    if len(tagged) > 1:
        raise RequestError(
            f"{where} has {len(tagged)} cells tagged 'parameters': tag the one with its settings"
        )
    return tagged[0] if tagged else None


def assigned(source: str, where: str) -> dict[str, Any]:
    """Names that a parameters cell assigns, with their literal values; UNKNOWN for those that are
    computed. Raises RequestError where the cell is not Python."""
    lines = source.splitlines()
    plain = ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]  # IPython's
    try:
        body = ast.parse("\n".join(plain)).body
    except (SyntaxError, ValueError, RecursionError) as error:
        message = f"{where}: its parameters cell is not Python: {one_line(error)}"
        raise RequestError(message) from error
    defaults: dict[str, Any] = {}
    for statement in body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        for target in targets:
            for node in ast.walk(target):  # a, b = 1, 2 assigns names inside of a target
                if isinstance(node, ast.Name):
                    defaults[node.id] = _literal(statement.value) if node is target else UNKNOWN
    return defaults


def _literal(node: ast.expr | None) -> Any:
    try:
        return UNKNOWN if node is None else ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def check_value(key: str, value: Any, default: Any, where: str) -> None:
    """Raise RequestError for a value that no notebook can hold, or of another kind."""
    what = f"{where}: parameter {shown(key)} is {shown(value)}, expected"
    if not _plain(value):
        raise RequestError(
            f"{what} text, finite numbers, true or false, null, or lists and mappings of them"
        )
    if not _fits(value, default):
        raise RequestError(f"{what} {EXPECTED[_kind(default)]}: its default is {shown(default)}")


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, bool, int))


def _kind(value: Any) -> str:
    return next((kind for kind, types in KINDS.items() if isinstance(value, types)), ANY)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value may replace a default. A default of None takes any value; a text or a number
    also takes null and a list of its kind."""
    default_kind, kind = _kind(default), _kind(value)
    if default_kind == "list":
        kinds = {_kind(item) for item in default}
        return kind == "list" and (not default or kinds == {ANY} or _all_of(value, kinds))
    if default_kind in ("text", "number"):
        if kind == "list":
            return _all_of(value, {default_kind})
        return kind == default_kind or value is None
    return default_kind in (ANY, kind)


def _all_of(values: Iterable[Any], kinds: set[str]) -> bool:
    """Whether all values are of these kinds. Null and a mapping (a value that sets others with it)
    may stand among them; lists are searched."""
    for item in values:
        kind = _kind(item)
        if kind == "list":
            if not _all_of(item, kinds):
                return False
        elif kind not in kinds | {ANY, "mapping"}:
            return False
    return True
