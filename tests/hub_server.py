"""A model hub on loopback: what huggingface_hub asks of one, for folders served under any repository id."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """(endpoint, paths asked for so far) of a hub that holds these repositories, each in one revision, "main"."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            for name, folder in repositories.items():
                if path.startswith(f"/api/models/{name}"):
                    return self._api(name, folder, path.removeprefix(f"/api/models/{name}"))
                if path.startswith(f"/{name}/resolve/"):
                    revision, _, file = path.removeprefix(f"/{name}/resolve/").partition("/")
                    return self._file(folder / file, body) if revision in ("main", COMMIT) else self._missing("RevisionNotFound")
            self._missing("RepoNotFound")

        def _api(self, name: str, folder: Path, rest: str) -> None:
            if rest and rest.split("/")[1] in ("revision", "tree") and rest.split("/")[2] not in ("main", COMMIT):
                return self._missing("RevisionNotFound")
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            names = [p.relative_to(folder).as_posix() for p in files]
            if rest.startswith("/tree"):
                found: object = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": _etag(p)} for n, p in zip(names, files, strict=True)]
            else:
                found = {"id": name, "modelId": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names], "private": False, "tags": []}
            self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, True)

        def _file(self, path: Path, body: bool) -> None:
            if not path.is_file():
                return self._missing("EntryNotFound")
            headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            data, status = path.read_bytes(), 200
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                data, status = data[start:], 206
            self._send(status, data, headers, body)

        def _missing(self, code: str) -> None:
            self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": f"{code}: not here"}, False)

        def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
