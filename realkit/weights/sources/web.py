"""Files from plain URLs, resumed and verified, in a cache; and the SHA-256 of files, computed once
for each state of a file."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from realkit.base import credentials
from realkit.base.cache import digest, room, sha256, unwritten
from realkit.base.errors import RequestError

STEP = 1 << 16  # bytes read at once: what has come of such a piece is lost when the connection ends
TRIES = 6  # of a connection that is refused, cut or asked to wait
WAIT_S = 120  # the longest wait that a server may ask for
TIMEOUT_S = (15, 60)  # to connect, and between bytes
WAITED_FOR = {408, 429, 500, 502, 503, 504}


def download(
    url: str, path: Path, *, called: str, sha: str = "", token: str | None = None, login: str = ""
) -> Path:
    """Fetch a URL to `path`: whole and, where `sha` is given, verified, or not at all. What an
    interruption left is resumed.

    `called` names it in errors and progress, `login` says how to come by a token. The token goes to
    the first host only, never to where it redirects. Raises RequestError.
    """
    import requests
    from filelock import FileLock

    part = path.with_name(f"{path.name}.part")
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file() and (not sha or sha256(path) == sha):
                return path
            for attempt in range(TRIES):
                try:
                    _stream(url, part, called, token, login)
                    break
                except requests.HTTPError as error:
                    refusing = error.response
                    assert refusing is not None
                    status = refusing.status_code
                    if status not in WAITED_FOR or attempt == TRIES - 1:
                        raise RequestError(
                            f"{called} cannot be downloaded: {refusal(status, token, login)}"
                        ) from None
                    time.sleep(asked_to_wait(refusing.headers.get("Retry-After"), attempt))
                except requests.RequestException as error:
                    if attempt == TRIES - 1:
                        reason = f"{type(error).__name__} at {urlsplit(url).hostname}"
                        raise RequestError(
                            f"{called} cannot be downloaded: {reason}. Run again to go on where it"
                            " stopped, or attach the file"
                        ) from None
                    time.sleep(asked_to_wait(None, attempt))
            if sha and (found := digest(part)) != sha:
                part.unlink()
                raise RequestError(
                    f"{called} was downloaded with SHA-256 {found[:12]}…, expected {sha[:12]}…: it"
                    " is removed, run again or report it to its source"
                )
            part.replace(path)
    except OSError as error:
        raise unwritten(called, path.parent, error) from None
    return path


def _stream(url: str, part: Path, called: str, token: str | None, login: str) -> None:
    """Append to `part` what is missing of a URL; raise requests' errors where the server refuses or
    the connection ends too early."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    mark = part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # nothing is missing, or what is there is no beginning of it
            part.unlink()
            raise requests.ConnectionError("began anew")
        answer.raise_for_status()
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise RequestError(
                f"{called} cannot be downloaded: the server answered with a web page, which usually"
                f" {_wanted(token, login)}"
            )
        etag = answer.headers.get("ETag", "")
        known = mark.read_text(encoding="utf-8") if mark.exists() else ""
        resumed = answer.status_code == 206 and have > 0 and etag == known
        if answer.status_code == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("another file than before")
        have = have if resumed else 0
        missing = int(answer.headers.get("Content-Length") or 0)
        room(part.parent, missing, called)
        mark.write_text(etag, encoding="utf-8")
        got = 0
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=have + missing or None,
                initial=have,
                desc=called[:40],
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in answer.iter_content(STEP):
                file.write(chunk)
                got += len(chunk)
                bar.update(len(chunk))
        if missing and got < missing:
            raise requests.ConnectionError("the connection ended early")
    mark.unlink(missing_ok=True)


def asked_to_wait(header: str | None, attempt: int) -> float:
    if header and re.fullmatch(r"\d{1,6}", header.strip()):
        return min(int(header), WAIT_S)
    return min(0.5 * 2.0**attempt, WAIT_S)


def refusal(status: int, token: str | None, login: str = "") -> str:
    """What an HTTP status means for the one who asked; `login` says how to come by a token."""
    if status in (401, 403):
        return f"the server answered {status}: it {_wanted(token, login)}"
    return {
        404: "the server has no such file (404)",
        429: "the server asks to wait (429): try again later",
    }.get(status, f"the server answered {status}: try again later")


def _wanted(token: str | None, login: str) -> str:
    return ("wants another token than the one it was given" if token else "wants a token") + (
        f". {login}" if login else ""
    )


def scrubbed(error: Exception) -> str:
    """The first line of an error, without secrets."""
    first: Any = str(error).strip().splitlines()
    return credentials.scrub(
        f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
    )
