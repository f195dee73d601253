"""References: any way to name weights (package, folder, file, hub id) → files on disk, and the lock that fixes which."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from realkit.errors import RequestError

PACKAGE = "package:"
HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<variant>[\w-]+))?$")
WEIGHTS = (".safetensors",)
LOADED = (".safetensors", ".json", ".txt", ".model")  # what a loader reads of a folder
NOT_LOADED = {"figures.json"}


@dataclass(frozen=True)
class Lock:
    """What a reference meant when it was first met: a hub commit, or the SHA-256 of each file."""

    ref: str
    kind: Literal["folder", "file", "hub"]
    revision: str = ""
    variant: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of what determines results: contents or commit, not where they lie."""
        known = {"revision": self.revision, "variant": self.variant, "id": self.ref.split("@")[0]} if self.kind == "hub" else {"files": self.files}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def lock(ref: str) -> Lock:
    """Resolve a reference. Raises RequestError when it names nothing, or when a weight file is damaged."""
    if path := local(ref):
        if path.is_file():
            check_safetensors(path)
            return Lock(ref, "file", files={path.suffix: _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)})
        files = sorted(p for p in path.rglob("*") if p.suffix in LOADED and p.name not in NOT_LOADED and p.is_file())
        if not files:
            raise RequestError(f"Folder {ref!r} holds no weights: expected a diffusers folder with .safetensors files")
        for weights in files:
            if weights.suffix in WEIGHTS:
                check_safetensors(weights)
        return Lock(ref, "folder", files={p.relative_to(path).as_posix(): _sha256(p, p.stat().st_mtime_ns, p.stat().st_size) for p in files})
    match = HUB_ID.match(ref)
    if not match or ref.startswith((".", "/", "~")) or ref.endswith(WEIGHTS):
        raise RequestError(f"No such file or folder: {ref!r}. Give a catalogue name (realkit list models), a hub id, or an existing path")
    return Lock(ref, "hub", revision=_commit(match["id"], match["revision"]), variant=match["variant"] or "")


def local(ref: str) -> Path | None:
    """The path of a package or local reference that exists; None for one that may be a hub id."""
    if ref.startswith(PACKAGE):
        path = Path(str(resources.files("realkit.rehearsal"))) / "weights" / ref.removeprefix(PACKAGE)
        if not path.exists():
            raise RequestError(f"The package ships no {ref!r}: reinstall realkit")
        return path
    path = Path(ref).expanduser()
    return path if path.exists() else None


def fetch(locked: Lock) -> Path:
    """Files on disk for a lock: a local path as it is, or the hub's snapshot of the locked commit."""
    if locked.kind != "hub":
        path = local(locked.ref)
        if path is None:
            raise RequestError(f"{locked.ref!r} was there when the sweep was locked and is not any more: put it back, or use a new results folder")
        return path
    from huggingface_hub import snapshot_download

    name = HUB_ID.match(locked.ref)["id"]  # type: ignore[index]
    patterns = ["*.json", "*.txt", "*.model", f"*.{locked.variant}.safetensors" if locked.variant else "*.safetensors"]
    try:
        return Path(snapshot_download(name, revision=locked.revision, allow_patterns=patterns))
    except Exception as error:
        raise RequestError(f"Hub model {name!r} cannot be fetched: {_hub_reason(error)}") from error


def read_json(locked: Lock, name: str) -> dict[str, Any]:
    """A small JSON file of a locked reference, without fetching the weights."""
    if locked.kind != "hub":
        path = fetch(locked) / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    from huggingface_hub import hf_hub_download

    repo = HUB_ID.match(locked.ref)["id"]  # type: ignore[index]
    try:
        return json.loads(Path(hf_hub_download(repo, name, revision=locked.revision)).read_text(encoding="utf-8"))
    except Exception as error:
        raise RequestError(f"{name} of hub model {repo!r} cannot be read: {_hub_reason(error)}") from error


def check_safetensors(path: Path) -> None:
    """Raise RequestError when a .safetensors file's header is not one, or its length is not what the header says."""
    if path.suffix not in WEIGHTS:
        raise RequestError(f"Weight file {path.name!r}: expected .safetensors; pickled checkpoints can run code when loaded")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        try:
            header = json.loads(file.read(length)) if length <= size - 8 else None
            end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0) if header else None
        except (ValueError, KeyError, TypeError, AttributeError):
            end = None
    if end is None:
        raise RequestError(f"Weight file {str(path)!r} has no valid safetensors header: download it again")
    if 8 + length + end != size:
        raise RequestError(f"Weight file {str(path)!r} is {size:,} bytes, its header says {8 + length + end:,}: download it again")


def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, revision=revision, timeout=20).sha or ""
    except Exception as error:
        raise RequestError(f"Hub model {name!r} cannot be reached: {_hub_reason(error)}") from error


def _hub_reason(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


@lru_cache(maxsize=4096)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
