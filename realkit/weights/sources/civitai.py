"""Civitai: the file of a model's version, its published hash, and where to fetch it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictInt, StrictStr, ValidationError

from realkit.base import credentials
from realkit.base.cache import cache_folder, sha256
from realkit.base.errors import RequestError, one_line, shown
from realkit.weights.lock import SHA256, SINGLE, Lock
from realkit.weights.pickles import allow_pickle
from realkit.weights.reference import (
    CIVITAI_QUERY,
    FILES,
    Reference,
    civitai_endpoint,
    opens_with_civitai_token,
    parse,
    written_query,
)
from realkit.weights.sources import web

LOGIN = (
    "Make one at civitai.com/user/account and set CIVITAI_TOKEN (environment, Kaggle or Colab"
    " secrets)"
)


class _File(BaseModel):
    """What is read of a file in the API's answer."""

    name: StrictStr
    type: StrictStr | None = None
    metadata: dict[str, Any] | None = None
    hashes: dict[str, Any] | None = None
    downloadUrl: StrictStr | None = None


class _Version(BaseModel):
    """What is read of a version in the API's answer."""

    id: StrictInt
    files: list[_File] | None = None


@dataclass(frozen=True)
class Published:
    """A file as the site publishes it: SHA-256 in lower-case hex, or "" where none is published."""

    version: str
    name: str
    sha256: str
    url: str
    stem: str  # its name in the cache, without suffix


def lock(ref: Reference) -> Lock:
    """Pin a reference to a version. The file is downloaded only where no hash is published."""
    published = look_up(ref)
    allow_pickle(published.name)
    pinned = str(replace(ref, revision=published.version))
    sha = published.sha256 or sha256(_download(pinned, published, ""))
    return Lock(pinned, "civitai", published.version, files={SINGLE: sha})


def fetch(locked: Lock) -> Path:
    """The locked file, from the cache where it is whole there: then the site is not asked."""
    sha = locked.files[SINGLE]
    for name in (sha, f"civitai-{locked.revision}"):
        for path in cache_folder("files").glob(f"{name}[.-]*"):
            if path.suffix.lower() in FILES and sha256(path) == sha:
                return path
    return _download(locked.ref, look_up(parse(locked.ref), sha), sha)


def _download(ref: str, published: Published, sha: str) -> Path:
    path = cache_folder("files") / f"{published.stem}{Path(published.name).suffix}"
    url, called = published.url, f"{ref} ({published.name})"
    sha = published.sha256 or sha
    web.download(url, path, called=called, sha=sha, token=token(url), login=LOGIN)
    return path if published.sha256 else web.check_download(path)


def token(url: str) -> str | None:
    """The token, for the service's own addresses: any other that an answer names gets none."""
    return credentials.token("civitai") if opens_with_civitai_token(url) else None


def look_up(ref: Reference, sha: str = "") -> Published:
    """The file of a version that the reference describes, or the version's model file.

    Of several, the one with the SHA-256 `sha`, else the primary one; .safetensors comes first.
    Raises RequestError.
    """
    version = _ask(f"model-versions/{ref.revision}", ref) if ref.revision else _newest(ref)
    _check(version, ref)
    owner = str(version.get("modelId", ref.name))
    if ref.name and ref.revision and owner != ref.name:
        raise RequestError(
            f"Civitai version {ref.revision} belongs to model {owner}, not {ref.name}: correct the"
            " reference"
        )
    all_files = version.get("files") or []
    files = [file for file in all_files if _meets(file, ref.query)]
    if ref.query and not files:
        names = [f"{written_query(describe(file))} ({file['name']})" for file in all_files[:8]]
        raise RequestError(
            f"{ref} does not offer such a file: it has {', '.join(names) or 'no file'}."
            " Take one of these"
        )
    if sha:
        files = [file for file in files if _sha(file) in (sha, "")]
    if not files:
        wanted = f"the file with SHA-256 {sha[:12]}…" if sha else "a model file"
        raise RequestError(f"{ref} does not offer {wanted} (any more): take another version")
    safe = [file for file in files if file["name"].lower().endswith(SINGLE)]
    primary = [file for file in safe if file.get("primary")]
    return _published(str(version["id"]), (primary or safe or files)[0], ref)


def _check(version: dict[str, Any], ref: Reference) -> None:
    """Raise RequestError for an answer of another form than the API's, and for a hash or a name
    that no file here can have."""
    try:
        files = _Version.model_validate(version).files or []
    except ValidationError as error:
        raise RequestError(
            f"{ref} cannot be looked up: the answer is not what Civitai's API gives"
            f" ({one_line(error, 120)}). Try again later"
        ) from None
    for file in files:
        sha = _sha(file.model_dump())
        if sha and not SHA256.fullmatch(sha):
            raise RequestError(
                f"{ref} is published with the SHA-256 {shown(sha)}: expected 64 hexadecimal"
                " digits. Take another version, or download the file and give its path"
            )


def _published(version: str, file: dict[str, Any], ref: Reference) -> Published:
    described = f"{civitai_endpoint()}/api/download/models/{version}{written_query(describe(file))}"
    stem = _sha(file) or f"civitai-{version}"
    if not _sha(file) and ref.query:  # several files of a version may lie in the cache
        stem += "-" + hashlib.sha256(written_query(ref.query).encode()).hexdigest()[:8]
    url = file.get("downloadUrl") or described
    if Path(file["name"]).suffix.lower() not in FILES:
        raise RequestError(
            f"{ref} is the file {shown(file['name'])}: expected one of {', '.join(FILES)}"
        )
    return Published(version, file["name"], _sha(file), url, stem)


def describe(file: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """A published file in the words of CIVITAI_QUERY, as far as the site describes it."""
    words = {"type": "Model"} | (file.get("metadata") or {})
    if file.get("type"):
        words["type"] = file["type"]
    return tuple((name, str(words[name])) for name in CIVITAI_QUERY if words.get(name))


def _meets(file: dict[str, Any], query: tuple[tuple[str, str], ...]) -> bool:
    """Whether a file is what the query asks for; a model, where the query names no type."""
    words = dict(describe(file))
    for name, value in query:
        if words.get(name, "").lower() != value.lower():
            return False
    return "type" in dict(query) or words["type"].lower() in ("model", "pruned model")


def _newest(ref: Reference) -> dict[str, Any]:
    versions = _ask(f"models/{ref.name}", ref).get("modelVersions") or []
    if not isinstance(versions, list):
        versions = [{}]  # `_check` refuses it
    if not versions:
        raise RequestError(f"{ref} has no version that can be downloaded: take another model")
    return versions[0] if isinstance(versions[0], dict) else {}


def _sha(file: dict[str, Any]) -> str:
    return str((file.get("hashes") or {}).get("SHA256", "")).lower()


def _ask(path: str, ref: Reference) -> dict[str, Any]:
    """The API's answer, a JSON object."""
    import requests

    from realkit.weights.sources.retries import session

    token = credentials.token("civitai")
    url = f"{civitai_endpoint()}/api/v1/{path}"
    try:
        answer = session().get(url, headers=web.bearer(token), timeout=web.TIMEOUT_S)
        if not answer.ok:
            reason = web.refusal(answer.status_code, token, LOGIN)
            raise RequestError(f"{ref} cannot be looked up: {reason}")
        content = answer.json()
    except requests.JSONDecodeError:
        content = None
    except requests.RequestException as error:
        raise RequestError(
            f"{ref} cannot be looked up: {type(error).__name__}. Turn the internet on, or attach"
            " the file and give its path"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(
            f"{ref} cannot be looked up: the answer is not what Civitai's API gives. Try again"
            " later"
        )
    return content
