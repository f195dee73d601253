"""YAML as the core schema of YAML 1.2 reads it (https://yaml.org/spec/1.2.2/#103-core-schema),
with limits that hold before anything is made.

PyYAML reads YAML 1.1: there 010 is 8, 1:30 is 90, `no` is false and 2026-01-02 a date. Here they
are 10, and texts. Merge keys (`<<`) are read as in 1.1: many files use them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from realkit.base.errors import shown

MOST_BYTES = 10_000_000
MOST_NODES = 60_000  # keys and values, aliases counted as often as they are repeated
DEEPEST = 100  # levels of lists and mappings
TAG = "tag:yaml.org,2002:"

# Patterns of the core schema, and the first characters of what each can match.
NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
BREAKS = re.compile("[\x85\u2028\u2029]")  # line breaks in YAML 1.1 alone
SCHEMA = (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", BOOL, list("tTfF")),
    ("int", INT, list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
)


class TooLarge(ValueError):
    """A text beyond one of the limits; the message has the figure."""


_PyYaml: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is 8 times as fast


class Loader(_PyYaml):
    """The core schema, without duplicate keys: of two, the later would win in silence."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        return super().construct_mapping(node, deep)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Raise ConstructorError for two keys that are equal, or equal as texts: 1 and "1"."""
        keys: set[Any] = set()  # each key and its text; Python takes 1, 1.0 and true for one key
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{TAG}merge":
                continue
            key = self.construct_object(key_node)
            if key in keys or str(key) in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"duplicate key {shown(key)}", problem_mark=node.start_mark
                )
            keys |= {key, str(key)}

    def construct_null(self, node: Any) -> None:
        _scalar(self, node, NULL)

    def construct_bool(self, node: Any) -> bool:
        return _scalar(self, node, BOOL).lower() == "true"

    def construct_int(self, node: Any) -> int:
        text = _scalar(self, node, INT)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)

    def construct_float(self, node: Any) -> float:
        text = _scalar(self, node, FLOAT).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _scalar(loader: Any, node: Any, form: re.Pattern[str]) -> str:
    """The text of a scalar. Raises ConstructorError where it does not have its tag's form."""
    text = loader.construct_scalar(node)
    if not form.match(text):
        raise yaml.constructor.ConstructorError(
            problem=f"{shown(text)} is no {node.tag.removeprefix(TAG)}",
            problem_mark=node.start_mark,
        )
    return text


class Dumper(yaml.SafeDumper):
    """Quotes texts that either version of YAML would read as something else."""

    def represent_text(self, text: str) -> Any:
        style = '"' if BREAKS.search(text) else None
        return self.represent_scalar(f"{TAG}str", text, style=style)


Dumper.add_representer(str, Dumper.represent_text)

for _kind, _form, _first in SCHEMA:
    Loader.add_implicit_resolver(TAG + _kind, _form, _first)
    Dumper.add_implicit_resolver(TAG + _kind, _form, _first)
    Loader.add_constructor(TAG + _kind, getattr(Loader, f"construct_{_kind}"))
Loader.add_implicit_resolver(f"{TAG}merge", re.compile(r"<<\Z"), ["<"])
for _kind in ("str", "seq", "map"):
    Loader.add_constructor(TAG + _kind, getattr(_PyYaml, f"construct_yaml_{_kind}"))
Loader.add_constructor(None, _PyYaml.construct_undefined)


def parsed(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, ValueError or RecursionError for what it
    cannot read, TooLarge beyond the limits."""
    size = len(text.encode(errors="surrogatepass"))
    if size > MOST_BYTES:
        raise too_long(size)
    _check_events(text)
    return yaml.load(text, Loader)


def too_long(size: int) -> TooLarge:
    return TooLarge(f"it has {size / 1e6:,.1f} MB, expected at most {MOST_BYTES / 1e6:.0f} MB")


def _check_events(text: str) -> None:
    """Raise TooLarge for too many or too deep nodes, before any of them is made.

    An alias counts as all that it repeats: nine lines of nine aliases each are 9⁹ values.
    """
    open_at: list[tuple[str | None, int]] = []  # of each open collection: anchor, nodes before it
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in open_at):
                raise TooLarge(f"the value {shown(event.anchor)} holds itself")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_at.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_at.append((event.anchor, count - 1))
            elif event.anchor:
                sizes[event.anchor] = 1
        if len(open_at) > DEEPEST:
            raise TooLarge(f"it is nested more than {DEEPEST} levels deep")
        if count > MOST_NODES:
            raise TooLarge(f"it has more than {MOST_NODES:,} keys and values, aliases repeated")


def dumped(value: Any) -> str:
    """A value as YAML, keys in their order."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
