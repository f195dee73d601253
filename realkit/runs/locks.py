"""sweep.lock.json: what each name of a results folder meant when it was first met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from realkit.base.errors import RequestError
from realkit.base.files import json_value
from realkit.base.version import __version__
from realkit.models.identity import ID_VERSION
from realkit.models.lock import ModelLock
from realkit.models.spec import ModelSpec
from realkit.runs.store import Store
from realkit.weights.lock import Lock

NAME = "sweep.lock.json"


@dataclass
class Locks:
    """The locks of models, of each upscaler's tools, of each scorer's parts and of encoders, by
    name; the SHA-256 of each photograph, by folder."""

    models: dict[str, ModelLock] = field(default_factory=dict)
    upscalers: dict[str, dict[str, Lock]] = field(default_factory=dict)
    scorers: dict[str, dict[str, Lock]] = field(default_factory=dict)
    encoders: dict[str, Lock | None] = field(default_factory=dict)
    photographs: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The models' entries as they were locked."""
        return {name: lock.spec for name, lock in self.models.items()}

    def to_json(self) -> dict[str, Any]:
        upscalers: dict[str, Any] = {}
        for name, tools in self.upscalers.items():
            upscalers[name] = {tool: lock.to_json() for tool, lock in tools.items()}
        models = {name: lock.to_json() for name, lock in self.models.items()}
        scorers = {name: _of_a_network(parts) for name, parts in self.scorers.items()}
        more = {
            "scorers": {name: parts for name, parts in scorers.items() if parts},
            "encoders": _of_a_network(self.encoders),
            "photographs": dict(self.photographs),
        }
        data = {"models": models, "upscalers": upscalers}
        return data | {key: value for key, value in more.items() if value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Locks:
        locks = cls()
        for name, lock in data["models"].items():
            locks.models[name] = ModelLock.from_json(name, lock)
        for name, tools in data.get("upscalers", {}).items():
            locks.upscalers[name] = {tool: Lock.from_json(lock) for tool, lock in tools.items()}
        for name, parts in data.get("scorers", {}).items():
            locks.scorers[name] = {part: Lock.from_json(lock) for part, lock in parts.items()}
        for name, lock in data.get("encoders", {}).items():
            locks.encoders[name] = Lock.from_json(lock)
        for folder, hashes in data.get("photographs", {}).items():
            locks.photographs[folder] = {str(path): str(sha) for path, sha in hashes.items()}
        return locks


def _of_a_network(locks: Mapping[str, Lock | None]) -> dict[str, Any]:
    """What is kept of the locks of scorers and encoders. What lies on a disk is hashed by each run,
    and a change of it is another scorer."""
    kept = {}
    for name, lock in locks.items():
        if lock and lock.kind not in ("folder", "file"):
            kept[name] = lock.to_json()
    return kept


def read_locks(folder: Path) -> Locks:
    """A folder's locks; empty where it has no such file. Raises RequestError for a damaged file,
    and for the file of a realkit with other ids."""
    path, writer = folder / NAME, None
    if not path.exists():
        return Locks()
    try:
        data = json_value(path.read_text(encoding="utf-8"))
        version, writer = data["id_version"], data.get("realkit")
        if version == ID_VERSION:
            return Locks.from_json(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if not _newer(writer):
            raise RequestError(
                f"{str(path)!r} is damaged ({type(error).__name__}): restore it, or use a new"
                " results folder"
            ) from error
        version = "unknown to it"
    by = f" by realkit {writer}" if writer else ""
    advice = "update realkit" if _newer(writer) else "install that one"
    raise RequestError(
        f"{str(folder)!r} was made{by} with id version {version}, this is realkit {__version__}"
        f" with {ID_VERSION}: {advice}, or use a new folder"
    )


def write_locks(store: Store, locks: Locks) -> None:
    """Write a folder's locks."""
    data = {"id_version": ID_VERSION, "realkit": __version__} | locks.to_json()
    store.write_text(NAME, json.dumps(data, indent=1, sort_keys=True) + "\n")


def _newer(version: object) -> bool:
    try:
        return Version(str(version)) > Version(__version__)
    except InvalidVersion:
        return False
