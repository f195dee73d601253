"""The grammar of references: every way to name weights, parsed into a value.

| written | kind |
|---|---|
| `package:FOLDER` | package: weights that ship with realkit |
| `config:KIND` | config: the configs that realkit ships for a kind of single file |
| `kaggle:OWNER/SLUG[/…]` | kaggle: an input attached to a Kaggle notebook |
| `civitai:MODEL`, `civitai:MODEL@VERSION[?type=VAE]`, the site's web addresses | civitai |
| `OWNER/NAME[@REVISION][:VARIANT]`, `OWNER/NAME[@REVISION]/FILE`, the hub's addresses | hub |
| `https://…` to anything else | url |
| `/…`, `./…`, `~/…`, or the name of a weight file | path |
| any other text | name: of the catalogue, or of a file or folder here |

A file or folder that exists under the text comes before the hub: see `sources/disk.py`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

from realkit.base import credentials
from realkit.base.door import expanded
from realkit.base.errors import RequestError

Kind = Literal["package", "config", "kaggle", "civitai", "url", "hub", "path", "name"]
PACKAGE = "package:"
CONFIG = "config:"
PREFIXES: dict[str, str] = {
    "package": PACKAGE, "config": CONFIG, "kaggle": "kaggle:", "civitai": "civitai:",
}  # fmt: skip
FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # suffixes of weight files
HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<variant>[\w-]+))?$")
HUB_FILE = re.compile(
    r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?"
    r"/(?P<file>[\w./ +()-]+\.(?i:safetensors|ckpt|pt|pth|bin))$"
)
HUB_URL = re.compile(
    r"^(https://(www\.)?)?(huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)"
    r"(/(tree|blob|resolve)/(?P<revision>[^/]+)(/(?P<file>.+?))?)?/?(\?.*)?$"
)
CIVITAI_ENDPOINT = "CIVITAI_ENDPOINT"  # environment: another address of the service, for mirrors
CIVITAI_HOSTS = re.compile(r"(www\.)?civitai\.(com|green|red)")
CIVITAI_ID = re.compile(r"(?P<model>[0-9]+)?(@(?P<version>[0-9]+))?(\?(?P<query>.+))?")
CIVITAI_QUERY = ("type", "format", "size", "fp")  # tells the files of a version apart
KAGGLE_KINDS = ("datasets", "models", "notebooks")  # first folder of a mount KIND/OWNER/SLUG/…


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `str` writes it in its canonical form.

    `name` is OWNER/NAME on the hub, the model's number on Civitai, OWNER/SLUG/… on Kaggle,
    and the text without its prefix for every other kind. Fields that do not apply are "".
    """

    kind: Kind
    name: str = ""
    revision: str = ""  # the hub's branch, tag or commit; Civitai's version number
    file: str = ""  # the path of one file in a hub repository
    variant: str = ""
    query: tuple[tuple[str, str], ...] = ()  # of CIVITAI_QUERY, what the file must be

    def __str__(self) -> str:
        text = PREFIXES.get(self.kind, "") + self.name
        for separator, part in (("@", self.revision), ("/", self.file), (":", self.variant)):
            if part:
                text += separator + part
        return text + written_query(self.query)

    @property
    def suffix(self) -> str:
        """The suffix of the file that the reference names, in lower case."""
        path = urlsplit(self.name).path if self.kind == "url" else self.file or self.name
        return PurePosixPath(path).suffix.lower()

    @property
    def single(self) -> bool:
        """Whether the text alone shows that the reference names one weight file."""
        return self.kind == "civitai" or self.suffix in FILES


def parse(text: str) -> Reference:
    """The reference that a text means; looks at no disk and asks no network.

    Raises RequestError for a Civitai or Kaggle reference without its parts, and for a malformed
    web address.
    """
    text = _without_hub_address(text)
    scheme, _, rest = text.partition(":")
    if scheme == "package":
        return Reference("package", rest)
    if scheme == "config":
        return Reference("config", rest)
    if scheme == "kaggle":
        return _parse_kaggle(text, rest)
    if scheme.lower() == "civitai":
        return _parse_civitai(text, rest)
    if text.startswith(("http://", "https://")):
        return _parse_address(text)
    if text.startswith(("/", ".", "~")):
        return Reference("path", text)
    if match := HUB_FILE.match(text):
        return Reference("hub", match["id"], match["revision"] or "", match["file"])
    if PurePosixPath(text).suffix.lower() in FILES:
        return Reference("path", text)
    if match := HUB_ID.match(text):
        variant = match["variant"] or ""
        return Reference("hub", match["id"], match["revision"] or "", variant=variant)
    return Reference("name", text)


def existing_path(text: str) -> Path | None:
    """The file or folder of this path; None where it does not exist or cannot be a path."""
    try:
        path = expanded(text)
        return path if text.strip() and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, a null byte
        return None


def with_variant_last(text: str) -> str:
    """OWNER/NAME:VARIANT@REVISION with revision and variant swapped; "" for any other text."""
    swapped = re.sub(r"^(.+?)(:[\w-]+)(@.+)$", r"\1\3\2", text)
    return swapped if swapped != text and HUB_ID.match(swapped) else ""


def of_mount(below: PurePath) -> Reference:
    """The Kaggle reference of a path below the inputs: KIND/OWNER/SLUG/…, or SLUG/… (owner *)."""
    if below.parts[0] in KAGGLE_KINDS and len(below.parts) > 2:
        return Reference("kaggle", "/".join(below.parts[1:]))
    return Reference("kaggle", f"*/{below.as_posix()}")


def civitai_endpoint() -> str:
    return os.environ.get(CIVITAI_ENDPOINT, "https://civitai.com").rstrip("/")


def written_query(query: tuple[tuple[str, str], ...]) -> str:
    return "?" + urlencode(query, quote_via=quote) if query else ""


def _without_hub_address(text: str) -> str:
    """The hub's web addresses as OWNER/NAME[@REVISION][/FILE]; any other text unchanged."""
    if not (url := HUB_URL.match(text)):
        return text
    text = url["id"]
    if url["revision"] not in (None, "main"):
        text += f"@{url['revision']}"
    return f"{text}/{url['file']}" if url["file"] else text


def _parse_kaggle(text: str, rest: str) -> Reference:
    name = rest.strip("/")
    if not all(name.partition("/")):
        raise RequestError(
            f"Kaggle reference {text!r}: expected kaggle:OWNER/SLUG, for a model"
            " kaggle:OWNER/SLUG/FRAMEWORK/VARIATION/VERSION"
        )
    return Reference("kaggle", name)


def _parse_civitai(text: str, rest: str) -> Reference:
    match = CIVITAI_ID.fullmatch(rest)
    if not match or not (match["model"] or match["version"]):
        raise RequestError(
            f"Civitai reference {text!r}: expected civitai:MODEL or civitai:MODEL@VERSION, both"
            " numbers, such as civitai:4201@245598"
        )
    settings = parse_qs(match["query"] or "", keep_blank_values=True)
    for name in settings:
        if name not in CIVITAI_QUERY:
            raise RequestError(
                f"Civitai reference {credentials.scrub(text)!r} asks for {name!r}: expected some"
                f" of {', '.join(CIVITAI_QUERY)}, such as ?type=VAE"
            )
    query = _civitai_query(settings)
    return Reference("civitai", match["model"] or "", match["version"] or "", query=query)


def _parse_address(text: str) -> Reference:
    """A web address: of a model, a version or a download of Civitai, else a plain URL."""
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise RequestError(
            f"Cannot parse the address {credentials.scrub(text)!r} ({error}): correct it"
        ) from None
    if not CIVITAI_HOSTS.fullmatch(url.hostname or "") and not _of_endpoint(url):
        return Reference("url", text)
    settings = parse_qs(url.query, keep_blank_values=True)
    if match := re.match(r"/models/([0-9]+)(/|$)", url.path):
        version = settings.get("modelVersionId", [None])[0]
        if version is None or re.fullmatch("[0-9]+", version):
            return Reference("civitai", match[1], version or "")
    if match := re.match(r"/api/download/models/([0-9]+)/?$", url.path):
        return Reference("civitai", revision=match[1], query=_civitai_query(settings))
    if match := re.match(r"/api/v1/model-versions/([0-9]+)/?$", url.path):
        return Reference("civitai", revision=match[1])
    raise RequestError(
        f"Civitai address {credentials.scrub(text)!r}: expected …/models/NUMBER, with"
        " ?modelVersionId=NUMBER for one version"
    )


def opens_with_civitai_token(address: str) -> bool:
    """Whether an address belongs to Civitai itself: no other address may get its token."""
    url = urlsplit(address)
    secure = url.scheme == "https" and CIVITAI_HOSTS.fullmatch(url.hostname or "")
    return bool(secure) or _of_endpoint(url)


def _of_endpoint(url: SplitResult) -> bool:
    return f"{url.scheme}://{url.netloc}" == civitai_endpoint()


def _civitai_query(settings: dict[str, list[str]]) -> tuple[tuple[str, str], ...]:
    """The settings that choose a file, in the order of CIVITAI_QUERY; other ones are dropped."""
    query = []
    for name in CIVITAI_QUERY:
        if value := settings.get(name, [""])[0]:
            query.append((name, value))
    return tuple(query)
