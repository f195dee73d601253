"""Where access tokens come from: the environment, the secrets of Kaggle and Colab, the hub's login
file. Their values are never logged."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from realkit.base.place import on_colab, on_kaggle, within

Service = Literal["huggingface", "civitai"]
NAMES: dict[Service, tuple[str, ...]] = {
    "huggingface": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "civitai": ("CIVITAI_TOKEN", "CIVITAI_API_TOKEN"),
}
PATIENCE = 10.0  # seconds that a secrets service may take
# seconds until an absent secret is asked for again: each question is a network call, and a person
# may add one meanwhile
ASK_AGAIN = 60.0
SHORTEST = (
    6  # characters of a value worth hiding; to hide shorter ones would blacken ordinary words
)
VALUE = r"""(?:=|%(?:25)*3d)["']?)(?:(?!%(?:25)*26)[^\s&"'<>)\]},;#])+"""
# What says itself that it is a secret → what is shown for it. Addresses come percent-encoded too,
# in redirects.
SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        (
            r"((?:token|api[_-]?key|access[_-]?key(?:id)?|signature|credentials?|passw(?:or)?d|secret)"
            + VALUE,
            r"\1***",
        ),
        # ordinary words where they are no parameter of an address
        (
            r"((?:[?&#]|%(?:25)*(?:3f|26|23))(?:amp;)?(?:[\w.-]*[_.-])?(?:key|authkey|sig|auth|pwd|pass|jwt|hmac)"
            + VALUE,
            r"\1***",
        ),
        (
            r"""(authorization["']?\s*[:=,]\s*b?["']?(?:bearer|basic|token)\s+)[^\s"',;<>}\])]+""",
            r"\1***",
        ),
        # user:password@; one that holds /, ? or # is told from a port
        (
            r"""(?<=://)(?:[^\s/?#"'<>]+|[^\s/?#@:\["'<>]+:(?!\d{0,5}(?:[/?#]|$))[^\s"'<>]*?)@""",
            "***@",
        ),
        (r"""((?::|%3a)%2f%2f)(?:(?!%2f|%3f|%23)[^\s/?#&"'<>])+(@|%40)""", r"\1***\2"),
        (
            r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2}))(?-i:hf_)(?:oauth_[\w.=-]{20,}|[a-z0-9]{20,})",
            "***",
        ),
    )
)

_answers: dict[
    tuple[str, str], tuple[str, float]
] = {}  # (source, name) → its value or "", and when it was asked for
_silent: set[str] = set()  # sources that did not answer in time
_seen: set[str] = set()  # every value found so far


def token(service: Service) -> str | None:
    """The token for a service, or None."""
    return _find(service)[0]


def token_source(service: Service) -> str | None:
    """The source of the token: "environment", "Kaggle secrets", "Colab secrets" or "login file";
    None where there is no token."""
    return _find(service)[1]


def scrub(text: str) -> str:
    """The text with `***` for every known token, plain or percent-encoded, and for whatever says
    itself that it is a secret (SECRETS)."""
    for value in sorted(_seen | _present(), key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = re.sub(
                "".join(f"(?:{re.escape(c)}|{_encoded(c)})" for c in value) + r"[\w-]*", "***", text
            )  # one may begin another
    for pattern, shown in SECRETS:
        text = pattern.sub(shown, text)
    return text


def holds_secret(text: str) -> bool:
    """Whether there is anything to hide in a text; a reference that holds a secret is refused,
    since references are written into every row."""
    return scrub(text) != text


def _find(service: Service) -> tuple[str, str] | tuple[None, None]:
    for source, read in _sources(service):
        for name in NAMES[service]:
            if value := read(name):
                _seen.add(value)
                return value, source
    return None, None


def _sources(service: Service) -> list[tuple[str, Callable[[str], str]]]:
    """What to ask, in order. The environment comes first and is never cached."""
    sources: list[tuple[str, Callable[[str], str]]] = [("environment", _environment)]
    if on_kaggle():
        sources.append(("Kaggle secrets", lambda name: _secret("Kaggle secrets", name, _kaggle)))
    if on_colab():
        sources.append(("Colab secrets", lambda name: _secret("Colab secrets", name, _colab)))
    if service == "huggingface":
        sources.append(
            ("login file", lambda name: _login() if name == NAMES["huggingface"][0] else "")
        )
    return sources


def _environment(name: str) -> str:
    return os.environ.get(name, "").strip()


def _kaggle(name: str) -> str:
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret(name)


def _colab(name: str) -> str:
    from google.colab import userdata

    return userdata.get(name)


def _secret(source: str, name: str, read: Callable[[str], str]) -> str:
    """A secret's value, or "" where there is none or the service fails in any way. A source that
    once did not answer in time is not asked again."""

    def ask() -> str:
        try:
            value = read(name)
        except (
            BaseException
        ):  # no module, no secret, no access, no network: all mean that it is absent
            return ""
        return value.strip() if isinstance(value, str) else ""

    value, asked = _answers.get((source, name), ("", float("-inf")))
    if value or source in _silent or time.monotonic() - asked < ASK_AGAIN:
        return value
    found = within(PATIENCE, ask)
    if found is None:
        _silent.add(source)
    _answers[source, name] = found or "", time.monotonic()
    return found or ""


def _login() -> str:
    """What huggingface_hub itself would send. On Colab it asks the secrets too, so it is left alone
    where they do not answer."""
    if "Colab secrets" in _silent:
        return ""

    def ask() -> str | None:
        from huggingface_hub import get_token

        return get_token()

    return (within(PATIENCE, ask) or "").strip()


def _present() -> set[str]:
    """Values that nobody need have asked for yet, as far as they can be had without a network."""
    values = {_environment(name) for names in NAMES.values() for name in names}
    with suppress(Exception):
        from huggingface_hub import constants

        values.add(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip())
    return values


def _encoded(character: str) -> str:
    """A pattern for a percent-encoded character, encoded again any number of times as in nested
    redirects."""
    return "".join(f"%(?:25)*(?i:{byte:02x})" for byte in character.encode())
