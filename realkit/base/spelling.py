"""Names and texts of pictures in the letters that a file's format has, so that they come back.

In a name, what a format cannot hold is written as JSON does: `é` as backslash, u and 4 hex digits.
"""

from __future__ import annotations

import json
import re

LATIN, ASCII = "latin-1", "ascii"  # the letters of a PNG chunk's name, and of EXIF
LONGEST = 79  # letters of a PNG chunk's name
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def name_in(letters: str, name: str) -> str:
    """A name of a text in these letters, without the colon that ends it in EXIF."""
    name = writable(name)
    spelled = []
    for at, letter in enumerate(name):
        fits = letter.encode(letters, "ignore") and letter != "\0"
        if (letter == ":" and letters == ASCII) or _ESCAPE.match(name, at):
            fits = False
        spelled.append(letter if fits else _code(letter))
    return "".join(spelled)


def _code(letter: str) -> str:
    return re.sub("(....)", r"\\u\1", letter.encode("utf-16-be").hex())


def name_of(spelled: str) -> str:
    """The name that `name_in` spelled."""
    name = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), spelled)
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def escaped(text: str) -> str:
    """A text that is no JSON, in the letters that EXIF has."""
    return text if text.isascii() and text[:1] in ("{", "[") else json.dumps(text)


def unescaped(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def in_ascii(text: str) -> str:
    """JSON in ASCII: the same value, as ComfyUI writes it."""
    try:
        return text if text.isascii() else json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return writable(text)


def writable(text: str) -> str:
    """Text that a file can hold: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
