"""Plain web addresses: files downloaded into the cache, resumed after a cut, and verified."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from realkit.base import credentials
from realkit.base.cache import cache_folder, digest, room, sha256, unwritten
from realkit.base.errors import RequestError
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.pickles import allow_pickle, check_safetensors
from realkit.weights.reference import Reference

if TYPE_CHECKING:
    import requests

STEP = 1 << 16  # bytes read at once; a cut loses at most these
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")  # of an address that may name a file here
TIMEOUT_S = (15, 60)  # to connect, and between two reads


def lock(ref: Reference) -> Lock:
    """Download an address to learn its hash: nothing publishes it."""
    allow_pickle(urlsplit(ref.name).path)
    return Lock(str(ref), "url", files={SINGLE: sha256(_cached(ref.name))})


def fetch(locked: Lock) -> Path:
    """The locked file. Raises RequestError where the address serves another file now."""
    path = _cached(locked.ref)
    if sha256(path) != locked.files[SINGLE]:
        raise RequestError(
            f"{credentials.scrub(locked.ref)!r} is another file than when it was locked: restore"
            " the old file, or use a new results folder"
        )
    return path


def _cached(url: str) -> Path:
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    suffix = Path(urlsplit(url).path).suffix
    path = cache_folder("files") / f"{name}{suffix if SUFFIX.fullmatch(suffix) else SINGLE}"
    if not path.is_file():
        download(url, path, called=credentials.scrub(url))
    return check_download(path)


def check_download(path: Path) -> Path:
    """A downloaded file that no published hash verifies; removed where its header is damaged."""
    try:
        check_safetensors(path)
    except RequestError:
        path.unlink()
        raise
    return path


def download(
    url: str, path: Path, *, called: str, sha: str = "", token: str | None = None, login: str = ""
) -> Path:
    """Fetch a URL to `path`: whole and, where `sha` is given, verified, or not at all.

    An interrupted download is resumed. `called` names the file in errors and in the progress bar,
    `login` says where to get a token. The token goes to the first host only, never to a redirect.
    Raises RequestError.
    """
    from filelock import FileLock

    part = path.with_name(f"{path.name}.part")
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file() and (not sha or sha256(path) == sha):
                return path
            _complete(url, part, called, token, login)
            if sha and (actual := digest(part)) != sha:
                part.unlink()
                raise RequestError(
                    f"{called} was downloaded with SHA-256 {actual[:12]}…, expected {sha[:12]}…:"
                    " it is removed, run again or report it to its source"
                )
            part.replace(path)
    except OSError as error:
        raise unwritten(called, path.parent, error) from None
    return path


def _complete(url: str, part: Path, called: str, token: str | None, login: str) -> None:
    """Stream to `part` until it is whole, as often as the retry policy allows."""
    from realkit.weights.sources.retries import POLICY, TRIES, another_try

    policy = POLICY
    while not _stream(url, part, called, token, login):
        following = another_try(policy, ConnectionError("the connection ended early"))
        if following is None:
            raise RequestError(
                f"{called} cannot be downloaded: the connection to {urlsplit(url).hostname} ended"
                f" early {TRIES} times. Run again to resume, or attach the file"
            )
        policy = following


def _stream(url: str, part: Path, called: str, token: str | None, login: str) -> bool:
    """Append the missing bytes of a URL to `part`; return whether it is whole now.

    Raises RequestError where the server refuses or cannot be reached.
    """
    import requests

    from realkit.weights.sources.retries import session

    size = part.stat().st_size if part.exists() else 0
    mark = part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"} | bearer(token)  # Content-Length then counts bytes
    if size:
        headers["Range"] = f"bytes={size}-"
    try:
        answer = session().get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise RequestError(
            f"{called} cannot be downloaded: {type(error).__name__} at {urlsplit(url).hostname}."
            " Run again to resume, or attach the file"
        ) from None
    with answer:
        if answer.status_code == 416:  # `part` is longer than the file, or of another file
            part.unlink()
            return False
        if not answer.ok:
            reason = refusal(answer.status_code, token, login)
            raise RequestError(f"{called} cannot be downloaded: {reason}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise RequestError(
                f"{called} cannot be downloaded: the server answered with a web page, which usually"
                f" {_wanted(token, login)}"
            )
        etag = answer.headers.get("ETag", "")
        if answer.status_code == 206:
            earlier = mark.read_text(encoding="utf-8") if mark.exists() else ""
            if not size or etag != earlier:  # `part` is the beginning of another file
                part.unlink(missing_ok=True)
                return False
        else:
            size = 0  # the server sends everything again
        length = answer.headers.get("Content-Length", "")
        missing = int(length) if re.fullmatch("[0-9]{1,18}", length) else 0
        room(part.parent, missing, called)
        mark.write_text(etag, encoding="utf-8")
        received = _append(answer, part, size, missing, called)
    if received < missing:
        return False
    mark.unlink(missing_ok=True)
    return True


def _append(answer: requests.Response, part: Path, size: int, missing: int, called: str) -> int:
    """Write a response's body after the first `size` bytes of `part`; return the bytes received.

    A connection that breaks is no error here: fewer bytes are returned than are missing, or -1.
    """
    import requests
    from tqdm import tqdm

    received = 0
    bar = tqdm(
        total=size + missing or None, initial=size, desc=called[:40], unit="B", unit_scale=True
    )
    with part.open("ab" if size else "wb") as file, bar:
        try:
            for chunk in answer.iter_content(STEP):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        except requests.RequestException:
            return -1
    return received


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def refusal(status: int, token: str | None, login: str = "") -> str:
    """What an HTTP status means to a person; `login` says where to get a token."""
    if status in (401, 403):
        return f"the server answered {status}: it {_wanted(token, login)}"
    reasons = {
        404: "the server has no such file (404)",
        429: "the server asks to wait (429): try again later",
    }
    return reasons.get(status, f"the server answered {status}: try again later")


def _wanted(token: str | None, login: str) -> str:
    wanted = "wants another token than the one it was given" if token else "wants a token"
    return f"{wanted}. {login}" if login else wanted
