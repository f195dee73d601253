"""YAML of version 1.2's core schema: right values, limits with their figure, texts kept."""

import contextlib
import math
import string
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from realkit.base.yaml_core import TooLarge, dumped, parsed

# Text → value, from https://yaml.org/spec/1.2.2/#103-core-schema; the right column of the comments
# is what YAML 1.1 makes of it.
CORE = [
    ("010", 10),  # 8
    ("08", 8),  # text
    ("0o10", 8),  # text
    ("0x1F", 31),
    ("-12", -12),
    ("+12", 12),
    ("1_000", "1_000"),  # 1000
    ("0b11", "0b11"),  # 3
    ("1:30", "1:30"),  # 90
    ("1:30.5", "1:30.5"),  # 90.5
    ("1e3", 1000.0),  # text
    (".5", 0.5),
    ("5.", 5.0),
    ("-.inf", -math.inf),
    ("yes", "yes"),  # true
    ("No", "No"),  # false
    ("on", "on"),  # true
    ("OFF", "OFF"),  # false
    ("y", "y"),
    ("true", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("null", None),
    ("~", None),
    ("2026-01-02", "2026-01-02"),  # a date
    ("2026-13-02", "2026-13-02"),  # an error
    ("=", "="),  # an error
    ("'010'", "010"),
    ("!!str 010", "010"),
    ("!!float 1", 1.0),
]


@pytest.mark.parametrize(("text", "value"), CORE, ids=[text for text, _ in CORE])
def test_a_scalar_is_what_the_core_schema_says(text, value):
    read = parsed(f"a: {text}")["a"]
    assert read == value and type(read) is type(value)


def test_merge_keys_repeat_a_mapping():
    assert parsed("base: &b {a: 1, c: 2}\nown: {<<: *b, c: 3}")["own"] == {"a": 1, "c": 3}


@pytest.mark.parametrize(
    "text",
    ["{a: 1, a: 2}", "{1: a, '1': b}", "{1: a, 0x1: b}", "{1: a, 1.0: b}", "{true: a, True: b}",
     "[{b: {a: 1, a: 2}}]"],
)  # fmt: skip
def test_duplicate_keys_are_refused(text):
    with pytest.raises(yaml.YAMLError, match="duplicate key"):
        parsed(text)


@pytest.mark.parametrize(
    "text", ["!!timestamp 2026-01-02", "!!binary aGk=", "!!python/name:os.system", "!!int 1:30",
             "!!bool yes", "!!set {a}", "{[a]: 1}", "a: b: c", "a\0b", "- a\n---\n- b"],
)  # fmt: skip
def test_what_the_core_schema_lacks_is_refused(text):
    with pytest.raises(yaml.YAMLError):
        parsed(text)


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
LARGE = {
    "more than 60,000": "\n".join(f"k{number}: v" for number in range(30_001)),
    "aliases repeated": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + BOMB,
    "10.0 MB, expected at most 10 MB": "a: " + "x" * 10_000_000,
    "nested more than 100": "[" * 100_000,
    "'a' holds itself": "a: &a {b: [*a]}",
}


@pytest.mark.parametrize("says", LARGE)
def test_what_is_too_large_is_refused_at_once(says):
    began = time.perf_counter()
    with pytest.raises(TooLarge, match=says):
        parsed(LARGE[says])
    assert time.perf_counter() - began < 2


def test_the_largest_that_is_read_takes_seconds_at_most():
    began = time.perf_counter()
    assert len(parsed("\n".join(f"k{number}: v" for number in range(29_000)))) == 29_000
    assert len(parsed("a: " + "word " * 1_999_999)["a"]) == 9_999_994
    assert time.perf_counter() - began < 8


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.from_regex(r"\A[-+0-9._:exobnfyYNn~=<]{1,8}\Z"),
)  # fmt: skip
KEYS = st.text(string.ascii_letters, min_size=1, max_size=6)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)  # fmt: skip


@settings(derandomize=True, max_examples=100, deadline=None)
@given(VALUES)
def test_what_is_dumped_is_read_again(value):
    assert parsed(dumped(value)) == value


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab01:-?[]{},&*!#|>'\"%@`\n\t .~<=\\é\x85\ufeff"), max_size=40))
def test_any_text_is_a_value_or_refused(text):
    with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
        dumped(parsed(text))
