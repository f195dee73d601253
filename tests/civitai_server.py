"""Civitai on loopback: its API, and downloads that redirect to another host, here the same address
on another port, where no token may arrive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub_server import Answering, Asked, Hub, Manners, running


@dataclass(frozen=True)
class File:
    """A file of a version: what is served is `path`."""

    path: Path
    name: str
    primary: bool = True
    hashed: bool = True  # whether its SHA-256 is published
    kind: str = "Model"
    size: str = "pruned"
    fp: str = "fp16"


@dataclass(frozen=True)
class Version:
    """A version of a model, the newest first among its model's."""

    model: int
    number: int
    files: Sequence[File]


@contextmanager
def serving(
    versions: Sequence[Version], manners: Mapping[str, Manners] | None = None
) -> Iterator[Hub]:
    """The site with these versions. `manners` are of "api", "download" (a Manners.status of 200 is
    the page that asks to log in) and of files by name."""
    site = Hub(manners=dict(manners or {}))

    class Site(Answering):
        def answer(self, path: str) -> None:
            site.requests.append(
                Asked(
                    self.command,
                    self.path,
                    self.headers.get("Range", ""),
                    self.headers.get("Authorization", ""),
                )
            )
            place, _, number = path.removeprefix("/api/").rpartition("/")
            own = site.manners.get("api" if place.startswith("v1/") else "download", Manners())
            mine = self.headers.get("Authorization", "") == f"Bearer {own.token}"
            if own.waits and site.due(place, "wait", own.waits):
                self.error(429, "", {"Retry-After": "1"})
            elif own.status == 200:
                self.send(
                    200, b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"}
                )
            elif own.status or (own.token and not mine):
                self.error(own.status or (403 if self.headers.get("Authorization") else 401), "")
            elif place == "v1/models":
                self._json(
                    {
                        "id": int(number),
                        "modelVersions": [
                            _version(site, found)
                            for found in versions
                            if found.model == int(number)
                        ],
                    },
                    number,
                )
            elif found := next(
                (version for version in versions if str(version.number) == number), None
            ):
                (
                    self._json(_version(site, found), number)
                    if place == "v1/model-versions"
                    else self._redirect(found)
                )
            else:
                self.error(404, "")

        def _json(self, found: dict[str, Any], number: str) -> None:
            known = any(number in (str(version.model), str(version.number)) for version in versions)
            self.send(
                200 if known else 404,
                json.dumps(found).encode(),
                {"Content-Type": "application/json"},
            )

        def _redirect(self, version: Version) -> None:
            wanted = self.path.partition("?file=")[2] or next(
                file.name for file in version.files if file.primary
            )
            self.send(
                307,
                b"",
                {"Location": f"{site.store}/{version.number}/{wanted}?signature=of-this-hour"},
            )

    class Store(Answering):
        def answer(self, path: str) -> None:
            site.requests.append(
                Asked(
                    self.command,
                    path,
                    self.headers.get("Range", ""),
                    self.headers.get("Authorization", ""),
                    store=True,
                )
            )
            _, number, name = path.split("/")
            file = next(
                file
                for version in versions
                if str(version.number) == number
                for file in version.files
                if file.name == name
            )
            own, data = site.manners.get(name, Manners()), file.path.read_bytes()
            if own.status:
                return self.error(own.status, "")
            self.contents(
                data,
                {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Accept-Ranges": "bytes"},
                site,
                name,
                own,
            )

    with running(Site) as site.endpoint, running(Store) as site.store:
        yield site


def _version(site: Hub, version: Version) -> dict[str, Any]:
    """A version as the site's API describes it."""
    return {
        "id": version.number,
        "modelId": version.model,
        "name": f"v{version.number}",
        "files": [_file(site, version, file) for file in version.files],
    }


def _file(site: Hub, version: Version, file: File) -> dict[str, Any]:
    data = file.path.read_bytes()
    address = f"{site.endpoint}/api/download/models/{version.number}" + (
        "" if file.primary else f"?file={file.name}"
    )
    kind = "SafeTensor" if file.name.endswith(".safetensors") else "PickleTensor"
    hashes = (
        {"SHA256": hashlib.sha256(data).hexdigest().upper(), "CRC32": "00000000"}
        if file.hashed
        else {}
    )
    found = {
        "id": 1,
        "name": file.name,
        "type": file.kind,
        "sizeKB": len(data) / 1024,
        "metadata": {"format": kind, "fp": file.fp, "size": file.size},
    }
    return (
        found
        | {"hashes": hashes, "downloadUrl": address}
        | ({"primary": True} if file.primary else {})
    )
