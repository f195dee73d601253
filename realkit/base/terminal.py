"""Lines for a terminal, in whatever encoding it has."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, TextIO

ERRORS = "realkit"  # the name of `spelled` as a handler of encoding errors
# What the kit writes that Latin-1 or ASCII lacks, in their letters
LETTERS = {
    "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "←": "<-", "×": "x", "²": "^2", "·": "*",
    "≥": ">=", "≤": "<=", "≈": "~", "±": "+/-", "“": '"', "”": '"', "’": "'", "é": "e",
}  # fmt: skip


def spelled(error: UnicodeError) -> tuple[str, int]:
    """The characters that an encoding lacks, in letters that every encoding has; else "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = []
    for letter in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        letters.append(LETTERS.get(letter, plain or "?"))
    return "".join(letters), error.end


codecs.register_error(ERRORS, spelled)


def fit(*streams: Any) -> None:
    """Let streams write every text; a minus stays a minus."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def close(stream: Any) -> None:
    """Let what a stream still holds go nowhere: its disk or device takes no more, and Python would
    try again, and complain, at its end."""
    with (
        contextlib.suppress(OSError, ValueError, AttributeError),
        Path(os.devnull).open("wb") as sink,
    ):
        os.dup2(sink.fileno(), stream.fileno())


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line, to standard output by default, whatever the terminal's encoding."""
    stream = file or sys.stdout
    try:
        print(line, file=stream)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        print(line.encode(encoding, ERRORS).decode(encoding), file=stream)
