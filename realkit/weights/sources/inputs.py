"""Folders of inputs, searched before any network: Kaggle's mounts, or $REALKIT_INPUTS.

Kaggle mounts an input as KIND/OWNER/SLUG/… or, in older notebooks, as SLUG/…
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from realkit.base.errors import RequestError
from realkit.weights.reference import KAGGLE_KINDS, of_mount, parse

INPUTS = "REALKIT_INPUTS"  # folders of inputs, separated as in $PATH
KAGGLE = Path("/kaggle/input")
KINDS = KAGGLE_KINDS
DEEPEST = 8  # levels searched: models/owner/slug/framework/variation/version/… and one more
GENERIC = {  # stems of files that many repositories have
    "model", "pytorch_model", "diffusion_pytorch_model", "pytorch_lora_weights", "adapter_model",
}  # fmt: skip
HEADS = ("model_index.json", "config.json", "open_clip_config.json")  # of a folder with a model


def roots() -> list[Path]:
    """The folders of inputs that exist here."""
    names = os.environ.get(INPUTS) or str(KAGGLE)
    return [Path(name) for name in names.split(os.pathsep) if Path(name).is_dir()]


def explicit(text: str) -> Path | None:
    """The input that a Kaggle reference names, or a path below the inputs in either form of mount.

    None for any other reference. Raises RequestError with what to attach where it is not here.
    """
    ref = parse(text)
    if ref.kind != "kaggle":
        below = _below_inputs(Path(text))
        if below is None:
            return None
        ref = of_mount(below)
    slug = ref.name.partition("/")[2]
    for root in roots():
        for pattern in (*(f"{kind}/{ref.name}" for kind in KINDS), slug):
            if paths := sorted(root.glob(pattern)):
                return paths[0]
    raise RequestError(
        f"{text!r} is not among the inputs: attach {ref.name.removeprefix('*/')!r} (Add Input in"
        " the notebook's side panel), then run again"
    )


def _below_inputs(path: Path) -> Path | None:
    for root in (*roots(), KAGGLE):
        if path != root and path.is_relative_to(root):
            return path.relative_to(root)
    return None


def repository(name: str, revision: str = "") -> Path | None:
    """The folder among the inputs that holds the hub repository OWNER/NAME, or None.

    It lies below a folder called like the repository, or in a copy of the hub's cache: there, the
    snapshot of this revision alone. Of several, one below a folder called like the owner too comes
    first, then a pipeline, then the one closest to the top.
    """
    choices = []
    for root in roots():
        for folder, _, names in _walk(root):
            heads = [index for index, head in enumerate(HEADS) if head in names]
            if heads and _is_called(folder, name) and _has_revision(folder, revision):
                other_owner = not _is_called(folder, name, owner=True)
                choices.append((other_owner, heads[0], len(folder.parts), folder))
    return min(choices)[3] if choices else None


def file(name: str, repo: str) -> Path | None:
    """The file of this name among the inputs, or None.

    One below a folder called like its repository OWNER/NAME comes first, then the one closest to
    the top. A file with a generic name is taken only from its own repository.
    """
    choices = []
    for root in roots():
        for folder, _, names in _walk(root):
            elsewhere = not _is_called(folder, repo)
            if name in names and not (elsewhere and Path(name).stem in GENERIC):
                choices.append((elsewhere, len(folder.parts), folder / name))
    return min(choices)[2] if choices else None


def _is_called(folder: Path, name: str, owner: bool = False) -> bool:
    """Whether a folder's path holds a repository's name; with `owner`, its owner's too."""
    whose, _, repo = name.partition("/")
    parts = {_fold(part) for part in folder.parts}
    if parts & {_fold(f"models--{whose}--{repo}"), _fold(f"{whose}-{repo}")}:
        return True
    return _fold(repo) in parts and (not owner or _fold(whose) in parts)


def _has_revision(folder: Path, revision: str) -> bool:
    """Whether a folder may be of this revision. Only a copy of the hub's cache tells:
    models--OWNER--NAME/snapshots/COMMIT."""
    if "snapshots" not in folder.parts:
        return True
    place = folder.parts.index("snapshots")
    branch = Path(*folder.parts[:place], "refs", revision or "main")
    commit = revision
    if branch.is_file():
        commit = branch.read_text(encoding="utf-8").strip()
    return not commit or folder.parts[place + 1 : place + 2] == (commit,)


def holding(*names: str) -> list[Path]:
    """The folders among the inputs that hold files of all these names, in a fixed order."""
    folders = []
    for root in roots():
        folders += [folder for folder, _, files in _walk(root) if set(names) <= set(files)]
    return folders


def offered() -> str:
    """What is attached, for an error's line; "" where there are no inputs at all."""
    if not roots():
        return ""
    names: set[str] = set()
    for root in roots():
        names |= {path.name for path in root.iterdir() if path.is_dir()}
    return f"{', '.join(map(str, roots()))} ({', '.join(sorted(names)) or 'empty'})"


def model_in(path: Path) -> Path:
    """What a mount holds to load: itself, the one pipeline below it, or its one .safetensors file.

    Raises RequestError where it holds several.
    """
    if path.is_file() or any((path / head).is_file() for head in HEADS):
        return path
    pipelines, files = [], []
    for folder, _, names in _walk(path):
        if "model_index.json" in names:
            pipelines.append(folder)
        files += [folder / name for name in names if name.lower().endswith(".safetensors")]
    choices = sorted(pipelines or files)
    if len(choices) > 1:
        raise RequestError(
            f"{str(path)!r} holds {len(choices)} models: give the path of one, such as"
            f" {str(choices[0])!r}"
        )
    return next(iter(choices), path)


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk in a fixed order, DEEPEST levels down."""
    top = len(root.parts)
    for name, folders, files in os.walk(root, followlinks=True):
        place = Path(name)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if len(place.parts) - top >= DEEPEST:
            folders.clear()
        yield place, folders, files


def _fold(name: str) -> str:
    """The letters and digits of a name: Kaggle's slugs change the rest."""
    return "".join(c for c in name.lower() if c.isalnum())
