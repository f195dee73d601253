"""Access tokens: from the environment, the secrets of Kaggle and Colab, or the hub's login file.

Their values are never logged: `scrub` hides them in every text that leaves the program.
"""

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
ASK_AGAIN = 60.0  # seconds until an absent secret is asked for again: a person may add it
SHORTEST = 6  # characters of a value worth hiding: shorter ones are parts of ordinary words

# In redirects an address comes percent-encoded, any number of times: %3D, %253D, …
EQUALS = r"""(?:=|%(?:25)*3d)["']?"""
VALUE = r"""(?:(?!%(?:25)*26)[^\s&"'<>)\]},;#])+"""
NAMED = rf"""(
    (?:token|api[_-]?key|access[_-]?key(?:id)?|signature|credentials?|passw(?:or)?d|secret){EQUALS}
|   # ordinary words, where they name a parameter of an address
    (?:[?&\#]|%(?:25)*(?:3f|26|23))(?:amp;)?(?:[\w.-]*[_.-])?
    (?:key|authkey|sig|auth|pwd|pass|jwt|hmac){EQUALS}
|   authorization["']?\s*[:=,]\s*b?["']?(?:bearer|basic|token)\s+
){VALUE}"""
# user:password@ of an address; a password may hold /, ? and #, but a port is digits before them
LOGIN = r"""(?<=://)(?:
    [^\s/?\#"'<>]+ | [^\s/?\#@:\["'<>]+ : (?!\d{0,5}(?:[/?\#]|$)) [^\s"'<>]*?
)@"""
ENCODED_LOGIN = r"""((?::|%3a)%2f%2f)(?:(?!%2f|%3f|%23)[^\s/?\#&"'<>])+(@|%40)"""
HUB_TOKEN = r"""(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2}))
    (?-i:hf_)(?:oauth_[\w.=-]{20,}|[a-z0-9]{20,})"""
SECRETS = tuple(  # pattern of a secret that nobody told us of → what is shown for it
    (re.compile(pattern, re.IGNORECASE | re.VERBOSE), shown)
    for pattern, shown in (
        (NAMED, r"\1***"), (LOGIN, "***@"), (ENCODED_LOGIN, r"\1***\2"), (HUB_TOKEN, "***"),
    )
)  # fmt: skip

_answers: dict[tuple[str, str], tuple[str, float]] = {}  # (source, name): value or "", time asked
_silent: set[str] = set()  # sources that did not answer in time
_seen: set[str] = set()  # every value so far


def token(service: Service) -> str | None:
    """The token for a service, or None."""
    return _find(service)[0]


def token_source(service: Service) -> str | None:
    """The source of the token: "environment", "Kaggle secrets", "Colab secrets" or "login file";
    None where there is no token."""
    return _find(service)[1]


def scrub(text: str) -> str:
    """The text with `***` for every known token, percent-encoded or not, and for SECRETS."""
    # A token may begin with another one: the longest goes first, and takes what follows it.
    for value in sorted(_seen | _present(), key=len, reverse=True):
        if len(value) >= SHORTEST:
            pattern = "".join(f"(?:{re.escape(c)}|{_encoded(c)})" for c in value)
            text = re.sub(pattern + r"[\w-]*", "***", text)
    for secret, shown in SECRETS:
        text = secret.sub(shown, text)
    return text


def holds_secret(text: str) -> bool:
    """Whether a text holds a secret. Such a reference is refused: rows repeat it."""
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
        sources.append(("login file", _login))
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
    """A secret's value; "" where it is absent or the service fails in any way.

    A source that once did not answer in time is not asked again.
    """

    def ask() -> str:
        try:
            value = read(name)
        except BaseException:  # no module, secret, access or network: all mean that it is absent
            return ""
        return value.strip() if isinstance(value, str) else ""

    value, time_asked = _answers.get((source, name), ("", float("-inf")))
    if value or source in _silent or time.monotonic() - time_asked < ASK_AGAIN:
        return value
    answer = within(PATIENCE, ask)
    if answer is None:
        _silent.add(source)
    _answers[source, name] = answer or "", time.monotonic()
    return answer or ""


def _login(name: str) -> str:
    """What huggingface_hub itself would send, under the first of its names.

    On Colab it asks the secrets too, so it is left alone where they did not answer.
    """
    if name != NAMES["huggingface"][0] or "Colab secrets" in _silent:
        return ""

    def ask() -> str | None:
        from huggingface_hub import get_token

        return get_token()

    return (within(PATIENCE, ask) or "").strip()


def _present() -> set[str]:
    """The values that can be read without a network, whether or not anybody asked for them."""
    values: set[str] = set()
    for names in NAMES.values():
        values.update(map(_environment, names))
    with suppress(Exception):
        from huggingface_hub import constants

        values.add(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip())
    return values


def _encoded(character: str) -> str:
    """A pattern for a percent-encoded character, encoded again any number of times."""
    return "".join(f"%(?:25)*(?i:{byte:02x})" for byte in character.encode())
