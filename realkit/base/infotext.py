"""The text of stable-diffusion-webui (A1111 1.10) about a picture: prompt, negative prompt, and a
last line of settings, "Steps: 20, Sampler: Euler a, …". Other web interfaces read it too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from realkit.base.files import LENIENT

NEGATIVE = "Negative prompt:"
LEAST = 3  # settings of a last line, as A1111 counts them: else it belongs to the prompt
SPECIAL = (",", ":", "\n")  # A1111 quotes a value that holds one of them
LONGEST = 1_000_000  # characters of a last line
_KEY = re.compile(r"(\w[\w \-/]{1,100}):\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"(?=\s*(?:,|$))')


@dataclass(frozen=True)
class Infotext:
    """What a text says. `settings` hold text as it is written, numbers too: their digits count.
    Where a value is JSON (Civitai's resources, hashes), `settings` hold what it means."""

    prompt: str = ""
    negative: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        negative = f"\n{NEGATIVE} {self.negative}" if self.negative else ""
        return f"{self.prompt}{negative}\n{line(self.settings)}".strip()


def quoted(value: object) -> str:
    """A value as A1111 writes it: as a JSON text where it holds a comma, a colon or a line's end.

    A1111 writes any other value plain. Of those its own reader changes some: the empty text, and
    what begins with a quotation mark, or begins or ends with white space. They are quoted too.
    """
    text = str(value)
    plain = text and text == text.strip() and text[0] != '"'
    if plain and not any(mark in text for mark in SPECIAL):
        return text
    return json.dumps(text, ensure_ascii=False)


def number(value: float) -> str:
    """A number with all of its digits; a whole one without a point, as A1111 writes it."""
    return str(int(value)) if value == int(value) else repr(float(value))


def line(settings: Mapping[str, Any]) -> str:
    """The last line: keys and quoted values. JSON stays as it is, as Civitai writes it."""
    words = []
    for key, value in settings.items():
        if isinstance(value, (dict, list)):
            words.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
        else:
            words.append(f"{key}: {quoted(value)}")
    return ", ".join(words)


def parsed(text: str) -> Infotext:
    """What a text says, by A1111's rules: a last line with fewer than LEAST settings belongs to the
    prompt. Reads every text; one that is no infotext is all prompt."""
    lines = text.strip().split("\n")
    settings: dict[str, Any] = {}
    for setting in _settings(lines[-1]):
        settings[setting.key] = setting.value
    if len(settings) < LEAST:
        settings = {}
    else:
        lines.pop()
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for words in lines:
        words = words.strip()
        if words.startswith(NEGATIVE):
            part, words = negative, words.removeprefix(NEGATIVE).strip()
        part.append(words)
    return Infotext("\n".join(prompt), "\n".join(negative), settings)


def is_infotext(text: str) -> bool:
    """Whether a text has a last line of settings."""
    return len({setting.key for setting in _settings(text.strip().rpartition("\n")[2])}) >= LEAST


def with_settings(text: str, settings: Mapping[str, Any]) -> str:
    """An infotext with these settings at its end, in place of earlier ones of the same keys; the
    rest of it stays as it is written."""
    before, end, last = text.strip().rpartition("\n")
    place, kept = 0, []
    for setting in _settings(last):
        if setting.key in settings:
            kept.append(last[place : setting.begin].strip(" ,"))
            place = setting.end
    kept.append(last[place:].strip(" ,"))
    kept.append(line(settings))
    return f"{before}{end}{', '.join(filter(None, kept))}"


@dataclass(frozen=True)
class _Setting:
    """A setting of a last line, and where in the line it is."""

    key: str
    value: Any
    begin: int
    end: int


def _settings(text: str) -> list[_Setting]:
    """The settings of a last line; text between them that has no key is left out."""
    settings = []
    place = 0
    while len(text) <= LONGEST and (key := _KEY.search(text, place)):
        value, end = _value(text, key.end())
        settings.append(_Setting(key[1], value, key.start(), end))
        comma = text.find(",", end)
        place = len(text) if comma < 0 else comma + 1
    return settings


def _value(text: str, place: int) -> tuple[Any, int]:
    """The value at a place, and where it ends."""
    mark = text[place : place + 1]
    try:
        if mark == '"' and (match := _QUOTED.match(text, place)):
            return json.loads(match[0]), match.end()
        if mark in ("{", "["):
            value, end = LENIENT.raw_decode(text, place)
            if any(mark in text[place:end] for mark in SPECIAL):
                return value, end
    except (ValueError, RecursionError):  # no JSON after all: A1111 takes it as it is, too
        pass
    end = text.find(",", place)
    end = len(text) if end < 0 else end
    return text[place:end].strip(), end


def setting(text: str, key: str) -> str:
    """The value of a key in a text's last line; "" where it has none."""
    for item in _settings(text.strip().rpartition("\n")[2]):
        if item.key == key:
            return str(item.value)
    return ""
