"""Inputs that are nearly right: JSON values, bytes and texts, altered at random."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT,
              st.sampled_from(["ok", "failed", "score", "denoise", "../x", "0" * 64, 10**400])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@st.composite
def altered(draw: Any, original: Any) -> Any:
    """A JSON value with up to three values or keys replaced, dropped or nested."""
    value = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        at = value
        while isinstance(at, (dict, list)) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[key], (dict, list)) or not at[key] or draw(st.booleans()):
                break
            at = at[key]
        if not isinstance(at, (dict, list)) or not at:
            return draw(JSON)
        how = draw(st.sampled_from(["replace", "drop", "add", "nest"]))
        if how == "drop":
            del at[key]
        elif how == "nest":
            at[key] = {"a": [at[key]]}
        elif how == "add" and isinstance(at, dict):
            at[draw(TEXT)] = draw(JSON)
        else:
            at[key] = draw(JSON)
    return value


@st.composite
def cut(draw: Any, original: bytes) -> bytes:
    """Bytes with some replaced, inserted or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "insert", "cut", "huge"]))
        if how == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        else:
            data[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


def tokens(*words: str, most: int = 14) -> st.SearchStrategy[str]:
    """Texts of these pieces and any others."""
    return st.lists(st.sampled_from(words) | TEXT, max_size=most).map("".join)


def safetensors(header: Any, tail: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tail)
