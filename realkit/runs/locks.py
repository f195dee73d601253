"""sweep.lock.json: what each name of a results folder meant when it was first met."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from realkit.base.errors import RequestError
from realkit.base.version import __version__
from realkit.models.identity import ID_VERSION
from realkit.models.lock import ModelLock
from realkit.runs.store import Store
from realkit.weights.lock import Lock

NAME = "sweep.lock.json"


@dataclass
class Locks:
    """The locks of models, and of each upscaler's tools, by name."""

    models: dict[str, ModelLock] = field(default_factory=dict)
    upscalers: dict[str, dict[str, Lock]] = field(default_factory=dict)


def read_locks(folder: Path) -> Locks:
    """A folder's locks; none where it has no such file. Raises RequestError for one that is
    damaged, or of a realkit that means something else by it."""
    path, writer = folder / NAME, None
    if not path.exists():
        return Locks()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version, writer = kept["id_version"], kept.get("realkit")
        if version == ID_VERSION:
            models = {
                name: ModelLock.from_json(name, lock) for name, lock in kept["models"].items()
            }
            tools = {
                name: {tool: Lock(**lock) for tool, lock in found.items()}
                for name, found in kept.get("upscalers", {}).items()
            }
            return Locks(models, tools)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if not _newer(writer):
            raise RequestError(
                f"{str(path)!r} is damaged ({type(error).__name__}): restore it, or use a new"
                " results folder"
            ) from error
        version = "unknown to it"
    by = f" by realkit {writer}" if writer else ""
    raise RequestError(
        f"{str(folder)!r} was made{by} with id version {version}, this is realkit {__version__}"
        f" with {ID_VERSION}: {'update realkit' if _newer(writer) else 'install that one'}, or use"
        " a new folder"
    )


def write_locks(store: Store, locks: Locks) -> None:
    """Keep a folder's locks."""
    models = {name: lock.to_json() for name, lock in locks.models.items()}
    tools = {
        name: {tool: lock.to_json() for tool, lock in found.items()}
        for name, found in locks.upscalers.items()
    }
    kept = {"id_version": ID_VERSION, "realkit": __version__, "models": models, "upscalers": tools}
    store.write_text(NAME, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _newer(version: object) -> bool:
    try:
        return Version(str(version)) > Version(__version__)
    except InvalidVersion:
        return False
