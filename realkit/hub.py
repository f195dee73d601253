"""References: any way to name weights → the lock that fixes their contents, and files on disk that one loader can read.

Where contents come from (package, disk, a mount, the hub, Civitai, an address) is not part of their identity: a lock holds the SHA-256 of what is
loaded, so that a model attached to a Kaggle notebook and the same model from the hub give the same ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from realkit import civitai, downloads, mounts, remote, single_file, tokens
from realkit.errors import RequestError
from realkit.layout import PICKLED, WEIGHTS, canonical, chosen
from realkit.lookup import shown

PACKAGE = "package:"
CONFIG = "config:"  # the shipped configs of a kind of single file
ALLOW_PICKLE = "REALKIT_ALLOW_PICKLE"  # "1": read pickled checkpoints too, by torch's restricted, weights-only unpickler
HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<variant>[\w-]+))?$")
HUB_FILE = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[\w./ +()-]+\.(safetensors|ckpt|pt|pth|bin))$")
HUB_URL = re.compile(r"^https://(www\.)?(huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)(/(tree|blob|resolve)/(?P<revision>[^/]+)(/(?P<file>.+?))?)?/?(\?.*)?$")
_PICKLES = ContextVar("pickles", default=False)
SINGLE = ".safetensors"  # the name in a lock of the one file that it is


@dataclass(frozen=True)
class Lock:
    """What a reference meant when it was first met: the SHA-256 of each file that is loaded.

    `revision` is the hub's commit or Civitai's version, "" where contents came from a disk. A single file stands under the name ".safetensors".
    """

    ref: str
    kind: Literal["folder", "file", "hub", "civitai", "url"]
    revision: str = ""
    variant: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether it is one file, not a folder."""
        return set(self.files) == {SINGLE}

    @property
    def fingerprint(self) -> str:
        """Hash of what determines results: contents, not where they lie."""
        return self.digest()

    def digest(self, within: str = "", without: str | None = None) -> str:
        """The fingerprint of a folder's part: of files below `within`, or of those not below `without`. A single file is one whole."""
        kept = {canonical(name, self.variant): sha for name, sha in self.files.items() if self.single or _concerns(name, within, without)}
        return hashlib.sha256(json.dumps({"files": kept}, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _concerns(name: str, within: str, without: str | None) -> bool:
    return name.startswith(within) and not (without is not None and name.startswith(without))


def lock(ref: str, *, weights: bool = False, variant: str = "", left_out: Collection[str] = ()) -> Lock:
    """Resolve a reference; with `weights`, a folder must hold some. `variant` is taken of a folder that has it and names none itself.

    `left_out` are parts of a pipeline that come from elsewhere or not at all: of these only the configs are kept. Looks on disk, then among the inputs, then in the network. Raises RequestError when it names nothing, or when weights are damaged or pickled.
    """
    found = _lock(plain(ref), weights, variant)
    kept = {name: sha for name, sha in found.files.items() if not (name.split("/")[0] in left_out and PurePosixPath(name).suffix in (*WEIGHTS, *PICKLED))}
    return replace(found, files=kept)


def _lock(ref: str, weights: bool, variant: str) -> Lock:
    if path := local(ref):
        return _of_disk(ref, path, variant, weights)
    if named := civitai.parse(ref):
        found = civitai.published(named)
        allow_pickle(found.name, found.pickled)
        pinned = replace(named, version=found.version)
        sha = found.sha256 or downloads.sha256(_from_civitai(str(pinned), found, ""))
        return Lock(str(pinned), "civitai", found.version, files={SINGLE: sha})
    if ref.startswith(("http://", "https://")):
        allow_pickle(urlsplit(ref).path, _is_pickle(urlsplit(ref).path))
        return Lock(ref, "url", files={SINGLE: downloads.sha256(_from_url(ref))})
    if match := HUB_FILE.match(ref):
        allow_pickle(match["file"], _is_pickle(match["file"]))
        if mounted := mounts.file(Path(match["file"]).name, match["id"]):
            return Lock(ref, "hub", match["revision"] or "", files=_of_disk(str(mounted), mounted, "", True).files)
        commit, files = remote.file(match["id"], match["revision"], match["file"])
        return Lock(ref, "hub", commit, files={SINGLE: files[match["file"]]})
    match = HUB_ID.match(ref)
    if not match or ref.startswith((".", "/", "~")) or Path(ref).suffix in (*WEIGHTS, *PICKLED):
        raise RequestError(f"No such file or folder: {shown(ref)}. Give a catalogue name (realkit list models), a hub id, or an existing path")
    if mounted := mounts.repository(match["id"], match["revision"] or ""):
        found_there = _of_disk(str(mounted), mounted, match["variant"] or variant, weights)
        return Lock(ref, "hub", match["revision"] or "", found_there.variant, found_there.files)
    commit, kept, files = remote.repository(
        match["id"], match["revision"], match["variant"] or variant, pickles=pickles_allowed(), asked=bool(match["variant"])
    )
    return Lock(ref, "hub", commit, kept, files)


def verify(locked: Lock) -> None:
    """Raise RequestError when a reference on disk is gone, or does not hold any more what it held when it was locked."""
    if locked.kind not in ("folder", "file"):
        return
    path = _there(locked)
    now = _of_disk(locked.ref, path, locked.variant, False).files
    heavy = {PurePosixPath(name).parent for name in locked.files if PurePosixPath(name).suffix in WEIGHTS}
    added = {name for name in now if PurePosixPath(name).suffix not in WEIGHTS or PurePosixPath(name).parent in heavy}  # else: weights that are left out
    for name in sorted(added | locked.files.keys()):
        if now.get(name) != locked.files.get(name):
            place = f"{name!r} in {locked.ref!r}" if locked.kind == "folder" else repr(locked.ref)
            raise RequestError(f"{place} has changed since this results folder was made: put the old file back, or use a new results folder")


def local(ref: str) -> Path | None:
    """The path of a package, mount or local reference that exists; None for one that may mean something elsewhere."""
    if ref.startswith(PACKAGE):
        path = Path(str(resources.files("realkit.rehearsal"))) / "weights" / ref.removeprefix(PACKAGE)
        if not path.exists():
            raise RequestError(f"The package ships no {ref!r}: reinstall realkit")
        return path
    if ref.startswith(CONFIG):
        return _shipped_config(ref.removeprefix(CONFIG))
    try:
        path = Path(ref).expanduser()
        if path.exists():
            return mounts.model_in(path) if path.is_dir() and any(path.is_relative_to(root) for root in mounts.roots()) else path
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return None
    if mounted := mounts.explicit(ref):
        return mounts.model_in(mounted) if mounted.is_dir() else mounted
    return None


def fetch(locked: Lock) -> Path:
    """What a lock means, on disk and verified: a folder in the plain layout, or a .safetensors file. Raises RequestError."""
    if (brought := staged(locked)).is_dir():
        return next(brought.iterdir()) if locked.single else brought
    if locked.kind in ("folder", "file"):
        path = _there(locked)
        return _plain_file(path, locked.files[SINGLE]) if path.is_file() else _view(path, locked)
    if locked.single:
        return _plain_file(_single(locked), locked.files[SINGLE])
    mounted = _mounted(locked)
    return _view(mounted or remote.snapshot(_repository(locked), locked.revision, locked.files), locked)


def staged(locked: Lock) -> Path:
    """Where a cluster's driver puts a lock's contents that this machine could not come by."""
    return downloads.root() / "staged" / locked.digest()[:32]


def _repository(locked: Lock) -> str:
    return HUB_ID.match(locked.ref)["id"]  # type: ignore[index]


def _mounted(locked: Lock) -> Path | None:
    """The folder among the inputs that holds a hub lock's files: of its revision, or of another with the same contents."""
    for revision in dict.fromkeys((locked.revision, "")):
        found = mounts.repository(_repository(locked), revision)
        if found and all((found / file).is_file() and downloads.sha256(found / file) == sha for file, sha in locked.files.items()):
            return found
    return None


def _single(locked: Lock) -> Path:
    sha = locked.files[SINGLE]
    if named := civitai.parse(locked.ref):
        kept = [path for name in (sha, f"civitai-{locked.revision}") for path in downloads.folder("files").glob(f"{name}[.-]*")]
        whole = [path for path in kept if path.suffix in (*WEIGHTS, *PICKLED) and downloads.sha256(path) == sha]
        return whole[0] if whole else _from_civitai(locked.ref, civitai.published(named, sha), sha)
    if locked.kind == "url":
        path = _from_url(locked.ref)
        if downloads.sha256(path) != sha:
            raise RequestError(f"{tokens.scrub(locked.ref)!r} is another file than when it was locked: put the old one back, or use a new results folder")
        return path
    match = HUB_FILE.match(locked.ref)
    assert match
    if (mounted := mounts.file(Path(match["file"]).name, match["id"])) and downloads.sha256(mounted) == sha:
        return mounted
    return remote.snapshot(match["id"], locked.revision or match["revision"], {match["file"]: sha}) / match["file"]


def read_json(locked: Lock, name: str) -> dict[str, Any]:
    """A small JSON file of a locked folder, without fetching the weights; {} where it has none."""
    if name not in locked.files and locked.kind == "hub":
        return {}
    if (brought := staged(locked)).is_dir():
        return json_object(brought / name) if (brought / name).is_file() else {}
    if locked.kind == "hub":
        mounted = _mounted(locked)
        path = mounted / name if mounted else remote.small(_repository(locked), locked.revision, name)
    else:
        path = _there(locked) / name
    return json_object(path) if path.is_file() else {}


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises RequestError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{str(path)!r} is no JSON that can be read: {error}. Download it again") from error
    if not isinstance(found, dict):
        raise RequestError(f"{str(path)!r} holds {type(found).__name__}, expected a JSON object: download it again")
    return found


def pickles_allowed() -> bool:
    return _PICKLES.get() or os.environ.get(ALLOW_PICKLE, "") not in ("", "0")


@contextmanager
def reading_pickles() -> Iterator[None]:
    """Within it pickled weights are read, by the restricted unpickler: upscalers are published so, and there is no other file to take."""
    before = _PICKLES.set(True)
    try:
        yield
    finally:
        _PICKLES.reset(before)


def allow_pickle(name: str, pickled: bool) -> None:
    """Raise RequestError for pickled weights, unless they were asked for."""
    if pickled and not pickles_allowed():
        raise RequestError(
            f"Weight file {Path(name).name!r}: expected .safetensors; pickled checkpoints can run code when loaded. "
            f"Take another file, convert it, or set {ALLOW_PICKLE}=1 to read it by the restricted unpickler"
        )


def check_safetensors(path: Path) -> None:
    """Raise RequestError when a file is not .safetensors, when its header is not one or does not fit its length, or when it holds no tensor."""
    from safetensors import SafetensorError, safe_open

    allow_pickle(path.name, path.suffix not in WEIGHTS)
    if path.suffix not in WEIGHTS:
        return
    try:
        with safe_open(path, framework="np") as file:
            empty = not file.keys()
    except (SafetensorError, OSError) as error:
        reason = "it is a folder" if path.is_dir() else " ".join(str(error).split())[:120]
        raise RequestError(f"Weight file {str(path)!r} has no valid safetensors header ({reason}): download it again") from error
    if empty:
        raise RequestError(f"Weight file {str(path)!r} holds no tensor: download it again")


def plain(ref: str) -> str:
    """The hub's web addresses as the references they mean; anything else as it is."""
    if not (url := HUB_URL.match(ref)):
        return ref
    return url["id"] + (f"@{url['revision']}" if url["revision"] not in (None, "main") else "") + (f"/{url['file']}" if url["file"] else "")


def _shipped_config(kind: str) -> Path:
    path = single_file.folder(kind)
    if not kind or not (path / "model_index.json").is_file():
        raise RequestError(f"Configs {kind!r}: expected one of {', '.join(single_file.KINDS)}, or a folder of diffusers configs")
    return path


def _is_pickle(name: str) -> bool:
    return Path(name).suffix not in WEIGHTS


def _of_disk(ref: str, path: Path, variant: str, weights: bool) -> Lock:
    """The lock of a folder or file that is there, its weights' headers checked."""
    if path.is_file():
        check_safetensors(path)
        return Lock(ref, "file", files={SINGLE: downloads.sha256(path)})
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    index = json_object(path / "model_index.json") if "model_index.json" in names else {}
    variant, kept = chosen(names, index, variant)
    heavy = [name for name in kept if Path(name).suffix in (*WEIGHTS, *PICKLED)]
    if not kept or (weights and not heavy):
        raise RequestError(f"Folder {ref!r} holds no weights: expected a diffusers folder with .safetensors files")
    for name in heavy:
        if _is_pickle(name) and not pickles_allowed():
            raise RequestError(
                f"Folder {ref!r} holds {name!r} without a .safetensors file beside it: pickled weights can run code when loaded, convert them, "
                f"or set {ALLOW_PICKLE}=1 to read them by the restricted unpickler"
            )
        check_safetensors(path / name)
    return Lock(ref, "folder", variant=variant, files={name: downloads.sha256(path / name) for name in kept})


def _there(locked: Lock) -> Path:
    path = local(locked.ref)
    if path is None:
        raise RequestError(f"{locked.ref!r} was there when the sweep was locked and is not any more: put it back, or use a new results folder")
    return path


def _from_civitai(ref: str, found: civitai.Published, sha: str) -> Path:
    """A version's file, named by its published SHA-256 or, where it has none, by its version and what was asked of it."""
    path = downloads.folder("files") / f"{found.stem}{Path(found.name).suffix}"
    called = f"{ref} ({found.name})"
    downloads.download(found.url, path, called=called, sha=found.sha256 or sha, token=civitai.token(found.url), login=civitai.LOGIN)
    return path if found.sha256 else _sound(path)


def _from_url(ref: str) -> Path:
    name = hashlib.sha256(ref.encode()).hexdigest()[:32]
    path = downloads.folder("files") / f"{name}{Path(urlsplit(ref).path).suffix or SINGLE}"
    if not path.is_file():
        downloads.download(ref, path, called=tokens.scrub(ref))
    return _sound(path)


def _sound(path: Path) -> Path:
    """A downloaded file without a published hash, its header checked; removed where it is damaged."""
    try:
        check_safetensors(path)
    except RequestError:
        path.unlink()
        raise
    return path


def _plain_file(path: Path, sha: str) -> Path:
    """The file itself, or where it is pickled what the restricted unpickler reads of it, as .safetensors."""
    if not _is_pickle(path.name):
        check_safetensors(path)
        return path
    from realkit.pickled import converted

    allow_pickle(path.name, True)
    return converted(path, sha)


def _view(path: Path, locked: Lock) -> Path:
    """A folder as a loader wants it: itself where nothing needs another name, else links to the chosen files under their plain names."""
    plain = {name: canonical(name, locked.variant) for name in locked.files}
    if all(name == other for name, other in plain.items()):
        return path
    view = downloads.folder("views", locked.digest()[:32])
    for name, other in plain.items():
        link, target = view / other, (_plain_file(path / name, locked.files[name]) if Path(name).suffix in PICKLED else path / name).resolve()
        if link.resolve() == target and link.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            fresh.symlink_to(target)
        except OSError:  # Windows without the right to link
            fresh.hardlink_to(target)
        fresh.replace(link)
    return view
