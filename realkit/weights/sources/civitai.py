"""Civitai's references: civitai:MODEL, civitai:MODEL@VERSION and the site's URLs → the file of a
version, its hash and where to fetch it.

A version's model file is meant, or the one that the query of a download address describes:
civitai:MODEL@VERSION?type=VAE&format=SafeTensor.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from realkit.base import credentials
from realkit.base.errors import RequestError
from realkit.weights.sources import web
from realkit.weights.sources.web import TIMEOUT_S, TRIES, WAITED_FOR

ENDPOINT = "CIVITAI_ENDPOINT"  # another address of the service, for mirrors
SITE = "https://civitai.com"
SHORT = re.compile(
    r"civitai:(?P<model>\d+)?(@(?P<version>\d+))?(\?(?P<asked>.+))?", re.IGNORECASE | re.ASCII
)
ASKED = (
    "type",
    "format",
    "size",
    "fp",
)  # what tells the files of a version apart, as the site's download addresses name it
LOGIN = (
    "Make one at civitai.com/user/account and set CIVITAI_TOKEN (environment, Kaggle or Colab"
    " secrets)"
)
HOSTS = re.compile(r"(www\.)?civitai\.(com|green|red)")


@dataclass(frozen=True)
class Reference:
    """A model, a version of it, or both; the newest version where none is named. `asked`: of ASKED,
    what the file must be."""

    model: str = ""
    version: str = ""
    asked: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return (
            f"civitai:{self.model}"
            + (f"@{self.version}" if self.version else "")
            + _query(self.asked)
        )


@dataclass(frozen=True)
class Published:
    """A file as the site publishes it: SHA-256 in lower-case hex, or "" where none is published."""

    version: str
    name: str
    sha256: str
    url: str
    pickled: bool
    stem: str  # what it is called in the cache


def parse(ref: str) -> Reference | None:
    """What a reference names on Civitai; None where it is not of Civitai. Raises RequestError for
    an address there that names no model."""
    if ref.lower().startswith("civitai:"):
        short = SHORT.fullmatch(ref)
        if not short or not (short["model"] or short["version"]):
            raise RequestError(
                f"Civitai reference {ref!r}: expected civitai:MODEL or civitai:MODEL@VERSION, both"
                " numbers, such as civitai:4201@245598"
            )
        return Reference(
            short["model"] or "", short["version"] or "", _asked(ref, short["asked"] or "")
        )
    if not ref.startswith(("http://", "https://")):
        return None
    try:
        url = urlsplit(ref)
    except ValueError as error:
        raise RequestError(
            f"Address {credentials.scrub(ref)!r} is none that can be read ({error}): correct it"
        ) from None
    if not HOSTS.fullmatch(url.hostname or "") and f"{url.scheme}://{url.netloc}" != _endpoint():
        return None
    if found := re.match(r"/models/([0-9]+)(/|$)", url.path):
        version = parse_qs(url.query, keep_blank_values=True).get("modelVersionId", [None])[0]
        if version is None or re.fullmatch("[0-9]+", version):
            return Reference(found[1], version or "")
    if found := re.match(r"/api/download/models/([0-9]+)/?$", url.path):
        return Reference("", found[1], _asked(ref, url.query, only=False))
    if found := re.match(r"/api/v1/model-versions/([0-9]+)/?$", url.path):
        return Reference("", found[1])
    raise RequestError(
        f"Civitai address {credentials.scrub(ref)!r}: expected …/models/NUMBER, with"
        " ?modelVersionId=NUMBER for one version"
    )


def _asked(ref: str, query: str, only: bool = True) -> tuple[tuple[str, str], ...]:
    """What a query says of the file. An address may say other things too, a reference of our own
    (`only`) may not."""
    found = parse_qs(query, keep_blank_values=True)
    if only and (unknown := [name for name in found if name not in ASKED]):
        raise RequestError(
            f"Civitai reference {credentials.scrub(ref)!r} asks for {unknown[0]!r}: expected some"
            f" of {', '.join(ASKED)}, such as ?type=VAE"
        )
    return tuple((name, found[name][0]) for name in ASKED if found.get(name, [""])[0])


def _query(asked: tuple[tuple[str, str], ...]) -> str:
    return "?" + urlencode(asked, quote_via=quote) if asked else ""


def _described(file: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """A published file in the words of ASKED, as far as the site describes it."""
    known = (
        {"type": "Model"}
        | (file.get("metadata") or {})
        | ({"type": file["type"]} if file.get("type") else {})
    )
    return tuple((name, str(known[name])) for name in ASKED if known.get(name))


def _meets(file: dict[str, Any], asked: tuple[tuple[str, str], ...]) -> bool:
    """Whether a file is what is asked for; where no type is named, a model."""
    known = {name: value.lower() for name, value in _described(file)}
    return all(known.get(name) == value.lower() for name, value in asked) and (
        "type" in dict(asked) or known["type"] in ("model", "pruned model")
    )


def published(ref: Reference, sha: str = "") -> Published:
    """The file of a version that the reference describes, else its model: the one with this
    SHA-256, else the primary one. Raises RequestError."""
    version = _ask(f"model-versions/{ref.version}", ref) if ref.version else _newest(ref)
    if ref.model and ref.version and str(version.get("modelId", ref.model)) != ref.model:
        raise RequestError(
            f"Civitai version {ref.version} belongs to model {version['modelId']}, not {ref.model}:"
            " correct the reference"
        )
    listed = version.get("files") or []
    files = [file for file in listed if _meets(file, ref.asked)]
    if ref.asked and not files:
        there = (
            ", ".join(f"{_query(_described(file))} ({file['name']})" for file in listed[:8])
            or "no file"
        )
        raise RequestError(f"{ref} does not offer such a file: it has {there}. Take one of these")
    if sha:
        files = [file for file in files if _sha(file) in (sha, "")]
    safe = [file for file in files if file["name"].endswith(".safetensors")]
    chosen = next((file for file in safe if file.get("primary")), None) or next(
        iter(safe or files), None
    )
    if chosen is None:
        wanted = f"the file with SHA-256 {sha[:12]}…" if sha else "a model file"
        raise RequestError(f"{ref} does not offer {wanted} (any more): take another version")
    url = (
        chosen.get("downloadUrl")
        or f"{_endpoint()}/api/download/models/{version['id']}{_query(_described(chosen))}"
    )
    stem = _sha(chosen) or f"civitai-{version['id']}" + (
        f"-{hashlib.sha256(_query(ref.asked).encode()).hexdigest()[:8]}" if ref.asked else ""
    )
    return Published(
        str(version["id"]),
        chosen["name"],
        _sha(chosen),
        url,
        not chosen["name"].endswith(".safetensors"),
        stem,
    )


def token(url: str) -> str | None:
    """The token, for the service's own addresses: whatever else an answer names gets none."""
    at = urlsplit(url)
    own = f"{at.scheme}://{at.netloc}" == _endpoint() or (
        at.scheme == "https" and HOSTS.fullmatch(at.hostname or "")
    )
    return credentials.token("civitai") if own else None


def _newest(ref: Reference) -> dict[str, Any]:
    found = _ask(f"models/{ref.model}", ref)
    if not (versions := found.get("modelVersions")):
        raise RequestError(f"{ref} has no version that can be downloaded: take another model")
    newest: dict[str, Any] = versions[0]
    return newest


def _sha(file: dict[str, Any]) -> str:
    return str((file.get("hashes") or {}).get("SHA256", "")).lower()


def _ask(path: str, ref: Reference) -> dict[str, Any]:
    import requests

    token = credentials.token("civitai")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        try:
            answer = requests.get(
                f"{_endpoint()}/api/v1/{path}", headers=headers, timeout=TIMEOUT_S
            )
            if answer.status_code in WAITED_FOR and not last:
                time.sleep(web.asked_to_wait(answer.headers.get("Retry-After"), attempt))
                continue
            answer.raise_for_status()
            found = answer.json()
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            return found
        except requests.HTTPError:
            status = answer.status_code
            raise RequestError(
                f"{ref} cannot be looked up: {web.refusal(status, token, LOGIN)}"
            ) from None
        except ValueError:
            raise RequestError(
                f"{ref} cannot be looked up: the answer is not what Civitai's API gives. Try again"
                " later"
            ) from None
        except requests.RequestException as error:
            if last or isinstance(error, requests.ConnectionError):
                raise RequestError(
                    f"{ref} cannot be looked up: {type(error).__name__}. Turn the internet on, or"
                    " attach the file and give its path"
                ) from None
    raise AssertionError("unreachable")


def _endpoint() -> str:
    return os.environ.get(ENDPOINT, SITE).rstrip("/")
