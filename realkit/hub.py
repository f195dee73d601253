"""References: any way to name weights (package, folder, file, hub id) → files on disk, and the lock that fixes which."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from realkit.errors import RequestError
from realkit.lookup import shown

PACKAGE = "package:"
HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<variant>[\w-]+))?$")
WEIGHTS = (".safetensors",)
LOADED = (".safetensors", ".json", ".txt", ".model")  # what a loader reads of a folder
NOT_LOADED = {"figures.json"}
PICKLED = "*pytorch_model*.bin"  # what loaders take where no .safetensors lies beside it
UNUSED = {"safety_checker"}  # folders of a pipeline that are never loaded


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
        return self.digest()

    def digest(self, within: str = "", without: str | None = None) -> str:
        """The fingerprint of a folder's part: of files below `within`, or of those not below `without`. A hub commit or single file is one whole."""
        if self.kind == "hub":
            known: dict[str, Any] = {"revision": self.revision, "variant": self.variant, "id": HUB_ID.match(self.ref)["id"]}  # type: ignore[index]
        else:
            parts = self.kind == "folder"
            left_out = parts and without is not None
            kept = {
                name: sha for name, sha in self.files.items() if not parts or (name.startswith(within) and not (left_out and name.startswith(str(without))))
            }
            known = {"files": kept}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def lock(ref: str, *, weights: bool = False) -> Lock:
    """Resolve a reference; with `weights`, a folder must hold some. Raises RequestError when it names nothing, or when weights are damaged or pickled."""
    if path := local(ref):
        if path.is_file():
            check_safetensors(path)
            return Lock(ref, "file", files={path.suffix: _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)})
        files = sorted(p for p in path.rglob("*") if p.suffix in LOADED and p.name not in NOT_LOADED and p.is_file())
        if (index := path / "model_index.json").is_file():  # of a pipeline's folder, what the pipeline names is loaded
            named = {name for name, value in read_json(Lock(ref, "folder"), index.name).items() if isinstance(value, list)}
            files = [p for p in files if p == index or p.relative_to(path).parts[0] in named]
        heavy = [p for p in files if p.suffix in WEIGHTS]
        if not files or (weights and not heavy):
            raise RequestError(f"Folder {ref!r} holds no weights: expected a diffusers folder with .safetensors files")
        beside = {p.parent for p in heavy}
        for pickled in path.rglob(PICKLED):
            if pickled.parent not in beside and pickled.parent.name not in UNUSED:
                raise RequestError(
                    f"Folder {ref!r} holds {pickled.relative_to(path).as_posix()!r} without a .safetensors file beside it: "
                    "pickled weights can run code when loaded, convert them"
                )
        for file in heavy:
            check_safetensors(file)
        return Lock(ref, "folder", files={p.relative_to(path).as_posix(): _sha256(p, p.stat().st_mtime_ns, p.stat().st_size) for p in files})
    match = HUB_ID.match(ref)
    if not match or ref.startswith((".", "/", "~")) or ref.endswith(WEIGHTS):
        raise RequestError(f"No such file or folder: {shown(ref)}. Give a catalogue name (realkit list models), a hub id, or an existing path")
    return Lock(ref, "hub", revision=_commit(match["id"], match["revision"], match["variant"]), variant=match["variant"] or "")


def verify(locked: Lock) -> None:
    """Raise RequestError when a local reference is gone, or does not hold any more what it held when it was locked."""
    if locked.kind == "hub":
        return
    fetch(locked)
    now = lock(locked.ref).files
    for name in sorted(now.keys() | locked.files.keys()):
        if now.get(name) != locked.files.get(name):
            place = f"{name!r} in {locked.ref!r}" if locked.kind == "folder" else repr(locked.ref)
            raise RequestError(f"{place} has changed since this results folder was made: put the old file back, or use a new results folder")


def local(ref: str) -> Path | None:
    """The path of a package or local reference that exists; None for one that may be a hub id."""
    if ref.startswith(PACKAGE):
        path = Path(str(resources.files("realkit.rehearsal"))) / "weights" / ref.removeprefix(PACKAGE)
        if not path.exists():
            raise RequestError(f"The package ships no {ref!r}: reinstall realkit")
        return path
    try:
        path = Path(ref).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return None


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
        return _object(path) if path.is_file() else {}
    from huggingface_hub import hf_hub_download

    repo = HUB_ID.match(locked.ref)["id"]  # type: ignore[index]
    try:
        path = Path(hf_hub_download(repo, name, revision=locked.revision))
    except Exception as error:
        raise RequestError(f"{name} of hub model {repo!r} cannot be read: {_hub_reason(error)}") from error
    return _object(path)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{str(path)!r} is no JSON that can be read: {error}. Download it again") from error
    if not isinstance(found, dict):
        raise RequestError(f"{str(path)!r} holds {type(found).__name__}, expected a JSON object: download it again")
    return found


def check_safetensors(path: Path) -> None:
    """Raise RequestError when a file is not .safetensors, when its header is not one or does not fit its length, or when it holds no tensor."""
    from safetensors import SafetensorError, safe_open

    if path.suffix not in WEIGHTS:
        raise RequestError(f"Weight file {path.name!r}: expected .safetensors; pickled checkpoints can run code when loaded")
    try:
        with safe_open(path, framework="np") as file:
            empty = not file.keys()
    except (SafetensorError, OSError) as error:
        reason = "it is a folder" if path.is_dir() else " ".join(str(error).split())[:120]
        raise RequestError(f"Weight file {str(path)!r} has no valid safetensors header ({reason}): download it again") from error
    if empty:
        raise RequestError(f"Weight file {str(path)!r} holds no tensor: download it again")


def _commit(name: str, revision: str | None, variant: str | None) -> str:
    """The commit a hub id stands at. Raises RequestError where it cannot be asked, or holds no weights of the variant."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision, timeout=20)
    except Exception as error:
        raise RequestError(f"Hub model {name!r} cannot be reached: {_hub_reason(error)}") from error
    files = [file.rfilename for file in found.siblings or [] if file.rfilename.endswith(WEIGHTS)]
    if not files:
        raise RequestError(f"Hub model {name!r} holds no .safetensors weights: give another repository, or a file of it that is")
    if variant and not any(file.endswith(f".{variant}.safetensors") for file in files):
        kinds = sorted({file.split(".")[-2] for file in files if file.count(".") > 1})
        raise RequestError(f"Hub model {name!r} has no variant {variant!r}: leave it out, or take one of {', '.join(kinds) or 'none'}")
    return found.sha or ""


def _hub_reason(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


@lru_cache(maxsize=4096)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
