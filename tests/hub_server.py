"""A model hub on loopback: what huggingface_hub asks of one, for folders served under any
repository id; and a child process that reaches nothing else.

As the real one does, it lists large files with their SHA-256 and sends whoever asks for one to
another host, here the same address on another port.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (
    ".safetensors",
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".msgpack",
    ".onnx",
)  # kept in LFS: their SHA-256 is published
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Manners:
    """How a repository, or one file of it, behaves where it does not simply answer. What is counted
    is counted for each file."""

    token: str = (
        ""  # opens it; without one it is as if it were not there (401), as private repositories are
    )
    gated: bool = (
        False  # it is listed for all; its files want the token: 401 without one, 403 with another
    )
    status: int = 0  # the answer to every request
    refused: int = 0  # the answer to every request of a file's contents: the listing is given
    waits: int = 0  # times that 429 with Retry-After comes first
    cuts: int = 0  # times that the connection ends half-way; -1: always
    hangs: int = 0  # times that nothing more comes half-way, until the hub is released
    altered: bool = False  # the contents are others than those listed, and as long
    whole: bool = False  # everything is sent, whatever range is asked for


@dataclass(frozen=True)
class Asked:
    """A request that was made."""

    method: str
    path: str
    range: str = ""
    authorization: str = ""
    store: bool = False  # of the other host, where large files lie


@dataclass
class Hub:
    """A running server. `manners` may be changed while it runs."""

    endpoint: str = ""
    store: str = ""
    manners: dict[str, Manners] = field(
        default_factory=dict
    )  # by repository id, or by id/path of a file
    requests: list[Asked] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    hanging: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str]:
        """The Range of each request for contents, "" where all of them were asked for."""
        return [request.range for request in self.requests if request.method == "GET"]

    @property
    def asked(self) -> list[str]:
        """Paths asked for so far, of the hub itself."""
        return [request.path for request in self.requests if not request.store]

    @property
    def fetched(self) -> list[str]:
        """ID/PATH of each file whose contents were sent, in order, as often as they were."""
        got = [
            request.path.split("/resolve/")
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        ]
        return [f"{name.strip('/')}/{rest.split('/', 1)[1]}" for name, rest in got]

    def due(self, what: str, kind: str, times: int) -> bool:
        """Whether this file's misbehaviour of a kind is still to come; each call counts."""
        self.counted[f"{kind} {what}"] += 1
        return times < 0 or self.counted[f"{kind} {what}"] <= times


@contextmanager
def serving(
    repositories: Mapping[str, Path], manners: Mapping[str, Manners] | None = None
) -> Iterator[Hub]:
    """A hub that holds these repositories, each in one revision, "main"."""
    hub = Hub(manners=dict(manners or {}))

    class Handler(Answering):
        def answer(self, path: str) -> None:
            hub.requests.append(
                Asked(
                    self.command,
                    path,
                    self.headers.get("Range", ""),
                    self.headers.get("Authorization", ""),
                )
            )
            for name, folder in repositories.items():
                if path == f"/api/models/{name}" or path.startswith(f"/api/models/{name}/"):
                    return self._listing(name, folder, path.removeprefix(f"/api/models/{name}"))
                if path.startswith(f"/{name}/resolve/"):
                    revision, _, file = path.removeprefix(f"/{name}/resolve/").partition("/")
                    return (
                        self._file(name, folder, file, _commit(revision))
                        if _commit(revision)
                        else self.error(404, "RevisionNotFound")
                    )
            self.error(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")

        def _refused(self, name: str, manners: Manners, contents: bool) -> bool:
            mine = self.headers.get("Authorization", "") == f"Bearer {manners.token}"
            if manners.status:
                self.error(manners.status, "")
            elif manners.token and not mine and not manners.gated:
                self.error(401, "RepoNotFound")
            elif manners.gated and not mine and contents:
                self.error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            elif contents and manners.refused:
                self.error(manners.refused, "EntryNotFound" if manners.refused == 404 else "")
            elif manners.waits and hub.due(name, "wait", manners.waits):
                self.error(429, "", {"Retry-After": "1"})
            else:
                return False
            return True

        def _listing(self, name: str, folder: Path, rest: str) -> None:
            if self._refused(name, hub.manners.get(name, Manners()), contents=False):
                return None
            if (
                rest
                and rest.split("/")[1] in ("revision", "tree")
                and not _commit(rest.split("/")[2])
            ):
                return self.error(404, "RevisionNotFound")
            files = {
                path.relative_to(folder).as_posix(): path
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            tree = rest.startswith("/tree")
            entries = [_entry(file, path, tree) for file, path in files.items()]
            found: object = (
                entries
                if tree
                else {
                    "id": name,
                    "modelId": name,
                    "sha": _commit(rest.split("/")[2]) if "/revision/" in rest else COMMIT,
                    "siblings": entries,
                    "private": False,
                    "tags": [],
                }
            )
            self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str, folder: Path, file: str, commit: str) -> None:
            own = hub.manners.get(f"{name}/{file}") or hub.manners.get(name, Manners())
            if self._refused(f"{name}/{file}", own, contents=True):
                return None
            if not (folder / file).is_file():
                return self.error(404, "EntryNotFound", {"X-Repo-Commit": commit})
            headers = {
                "ETag": f'"{etag(folder / file)}"',
                "X-Repo-Commit": commit,
                "Accept-Ranges": "bytes",
            }
            if file.endswith(LARGE):
                size = (folder / file).stat().st_size
                place = f"{hub.store}/{quote(name)}/{quote(file)}"
                return self.send(
                    302,
                    b"",
                    {
                        **headers,
                        "Location": place,
                        "X-Linked-Size": str(size),
                        "X-Linked-Etag": headers["ETag"],
                    },
                )
            self.contents((folder / file).read_bytes(), headers, hub, f"{name}/{file}", own)

    class Store(Answering):
        def answer(self, path: str) -> None:
            hub.requests.append(
                Asked(
                    self.command,
                    path,
                    self.headers.get("Range", ""),
                    self.headers.get("Authorization", ""),
                    store=True,
                )
            )
            for name, folder in repositories.items():
                file = path.removeprefix(f"/{name}/")
                if path.startswith(f"/{name}/") and (folder / file).is_file():
                    own = hub.manners.get(f"{name}/{file}") or hub.manners.get(name, Manners())
                    headers = {"ETag": f'"{etag(folder / file)}"', "Accept-Ranges": "bytes"}
                    return self.contents(
                        (folder / file).read_bytes(), headers, hub, f"{name}/{file}", own
                    )
            self.error(404, "")

    with running(Handler) as hub.endpoint, running(Store) as hub.store:
        yield hub


@contextmanager
def files(folder: Path, manners: Mapping[str, Manners] | None = None) -> Iterator[Hub]:
    """A plain server of a folder's files, without redirects."""
    hub = Hub(manners=dict(manners or {}))

    class Handler(Answering):
        def answer(self, path: str) -> None:
            hub.requests.append(
                Asked(
                    self.command,
                    path,
                    self.headers.get("Range", ""),
                    self.headers.get("Authorization", ""),
                )
            )
            name = path.lstrip("/")
            own = hub.manners.get(name, Manners())
            if own.waits and hub.due(name, "wait", own.waits):
                return self.error(429, "", {"Retry-After": "1"})
            if own.status or not (folder / name).is_file():
                return self.error(own.status or 404, "")
            self.contents(
                (folder / name).read_bytes(),
                {"ETag": f'"{etag(folder / name)}"', "Accept-Ranges": "bytes"},
                hub,
                name,
                own,
            )

    with running(Handler) as hub.endpoint:
        yield hub


class Answering(BaseHTTPRequestHandler):
    """A request handler that says nothing on the terminal, and has nothing but what a kind of it
    answers."""

    def answer(self, path: str) -> None:
        self.error(404, "")

    def do_HEAD(self) -> None:
        self.answer(unquote(urlsplit(self.path).path))

    do_GET = do_HEAD

    def error(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        said = {"X-Error-Code": code, "X-Error-Message": f"{code}: not for you"} if code else {}
        self.send(status, b"", {**said, **(headers or {})})

    def contents(
        self, data: bytes, headers: dict[str, str], hub: Hub, name: str, manners: Manners
    ) -> None:
        """Send a file, from where it is asked for, with the misbehaviour that is due."""
        if manners.altered:
            data = bytes([data[0] ^ 1]) + data[1:-1] + bytes([data[-1] ^ 1])
        status, whole = 200, len(data)
        if (wanted := self.headers.get("Range")) and not manners.whole:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= whole:
                return self.send(416, b"", {"Content-Range": f"bytes */{whole}"})
            headers = {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
            data, status = data[start:], 206
        cut = bool(manners.cuts) and self.command == "GET" and hub.due(name, "cut", manners.cuts)
        hang = self.command == "GET" and hub.due(name, "hang", manners.hangs)
        self.send(status, data, headers, sent=len(data) // 2 if cut or hang else len(data))
        if hang:
            hub.hanging.set()
            hub.released.wait(60)

    def send(
        self, status: int, data: bytes, headers: Mapping[str, str], sent: int | None = None
    ) -> None:
        """Answer, with the first `sent` bytes only of what is announced."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:sent])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _commit(revision: str) -> str:
    """The commit of a revision, "" where there is none: a repository is the same at "main" and at
    any commit."""
    return COMMIT if revision == "main" else "".join(re.findall(r"\A[0-9a-f]{40}\Z", revision))


def etag(path: Path) -> str:
    """SHA-256 of a large file, git's name of another."""
    state = path.stat()
    return _etag(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _etag(path: Path, _: int, size: int) -> str:
    data = path.read_bytes()
    return (
        hashlib.sha256(data).hexdigest()
        if path.name.endswith(LARGE)
        else hashlib.sha1(f"blob {size}\0".encode() + data).hexdigest()
    )


def _entry(file: str, path: Path, tree: bool) -> dict[str, Any]:
    """A file in the hub's listing of a tree, or of a model's siblings with blobs=true."""
    size, found = path.stat().st_size, etag(path)
    own: dict[str, Any] = (
        {"type": "file", "path": file, "oid": found[:40]}
        if tree
        else {"rfilename": file, "blobId": found[:40]}
    )
    large = (
        {"lfs": {"oid" if tree else "sha256": found, "size": size, "pointerSize": 134}}
        if file.endswith(LARGE)
        else {}
    )
    return own | {"size": size} | large


# --- a child process that reaches loopback alone
# --------------------------------------------------------------------

GUARD = """
import os, socket

def _guarded(real):
    def call(self, address, *rest):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost"):
            with open(os.environ["REACHED"], "a") as file:
                file.write(f"{address!r}\\n")
            raise PermissionError(f"a test reached for {address!r}")
        return real(self, address, *rest)
    return call

def _named(real):
    def call(host, *rest, **options):
        if host not in ("127.0.0.1", "localhost", None, ""):
            with open(os.environ["REACHED"], "a") as file:
                file.write(f"{host!r}\\n")
            raise socket.gaierror(f"a test asked for {host!r}")
        return real(host, *rest, **options)
    return call

socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
socket.getaddrinfo = _named(socket.getaddrinfo)
"""
OTHERS = ("HF_", "HUGGING", "REALKIT_", "CIVITAI_", "XDG_CACHE")


def child(
    command: list[str], home: Path, *, timeout: int = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, its caches and its home below `home`. The test fails where
    it reached for another address than loopback."""
    made, reached = _environment(home), home / "reached"
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=made | environment,
        timeout=timeout,
        cwd=home,
    )
    assert not reached.exists(), f"reached for {reached.read_text()}\n{done.stderr[-2000:]}"
    return done


def _environment(home: Path) -> dict[str, str]:
    guard = home / "guard"
    guard.mkdir(parents=True, exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(OTHERS) and not key.lower().endswith("_proxy")
    }
    own = {
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "REALKIT_CACHE": str(home / "cache"),
        "REALKIT_INPUTS": str(home / "no-inputs"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        "REACHED": str(home / "reached"),
        "PYTHONPATH": os.pathsep.join([str(guard), str(ROOT)]),
    }
    return kept | own


def killed(code: str, home: Path, hub: Hub, **environment: str) -> None:
    """Run a program and kill it while a download hangs half-way."""
    environment = _environment(home) | {"HF_ENDPOINT": hub.endpoint} | environment
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, cwd=home
    ) as process:
        assert hub.hanging.wait(60), "nothing was asked for"
        time.sleep(0.5)  # until what was sent has been read
        process.kill()
    hub.released.set()


def python(
    code: str, home: Path, endpoint: str, *, timeout: int = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program against a hub."""
    return child(
        ["-c", textwrap.dedent(code)], home, timeout=timeout, HF_ENDPOINT=endpoint, **environment
    )


def realkit(
    arguments: list[str], home: Path, endpoint: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line against a hub."""
    return child(["-m", "realkit", *arguments], home, HF_ENDPOINT=endpoint, **environment)


def nowhere() -> str:
    """An address on loopback where nobody listens: a machine whose internet is cut."""
    with running(BaseHTTPRequestHandler) as address:
        return address
