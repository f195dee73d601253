"""Folders of inputs looked through before any network: Kaggle's mounts in their old and new form, or $REALKIT_INPUTS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from realkit.errors import RequestError

INPUTS = "REALKIT_INPUTS"  # folders of inputs, separated as in $PATH
KAGGLE = Path("/kaggle/input")
KINDS = ("datasets", "models", "notebooks")  # first folder of the new form: KIND/OWNER/SLUG/…; the old form begins with SLUG
DEEPEST = 8  # folders below the inputs: models/owner/slug/framework/variation/version/… and one more
HEADS = ("model_index.json", "config.json", "open_clip_config.json")  # of a folder that a loader can read


def roots() -> list[Path]:
    """The folders of inputs that exist here."""
    own = os.environ.get(INPUTS)
    return [path for path in (map(Path, own.split(os.pathsep)) if own else [KAGGLE]) if path.is_dir()]


def explicit(ref: str) -> Path | None:
    """The path that kaggle:OWNER/SLUG[/…] names, or a path below the inputs written in the other form; None for any other reference.

    Raises RequestError with what to attach where such a reference names nothing here.
    """
    if ref.startswith("kaggle:"):
        owner, _, rest = ref.removeprefix("kaggle:").strip("/").partition("/")
        if not owner or not rest:
            raise RequestError(f"Kaggle reference {ref!r}: expected kaggle:OWNER/SLUG, for a model kaggle:OWNER/SLUG/FRAMEWORK/VARIATION/VERSION")
        forms = [*(f"{kind}/{owner}/{rest}" for kind in KINDS), rest]
        wanted = f"{owner}/{rest}"
    else:
        below = next((Path(ref).relative_to(root) for root in [*roots(), KAGGLE] if Path(ref).is_relative_to(root)), None)
        if below is None or not below.parts:
            return None
        parts = below.parts
        new = parts[0] in KINDS and len(parts) > 2
        forms = [below.as_posix(), Path(*parts[2:]).as_posix()] if new else [below.as_posix(), *(f"{kind}/*/{below.as_posix()}" for kind in KINDS)]
        wanted = "/".join(parts[1:]) if new else below.as_posix()
    for root in roots():
        for form in forms:
            if found := sorted(root.glob(form)):
                return found[0]
    raise RequestError(f"{ref!r} is not among the inputs: attach {wanted!r} (Add Input in the notebook's side panel), then run again")


def repository(name: str) -> Path | None:
    """The folder among the inputs that holds the hub repository OWNER/NAME: below a folder called like it, or the hub's own cache.

    Where several do, one whose path bears the owner too comes first, then by path.
    """
    owner, _, repo = name.partition("/")
    found = []
    for folder, heads in _folders():
        parts = [_fold(part) for part in folder.parts]
        if _fold(f"models--{owner}--{repo}") in parts or _fold(repo) in parts or _fold(f"{owner}-{repo}") in parts:
            found.append((_fold(owner) not in parts, HEADS.index(heads[0]), len(parts), folder))
    return min(found)[3] if found else None


def file(name: str) -> Path | None:
    """The file of this name among the inputs; the one closest to the top where several bear it."""
    found = [Path(folder) / name for root in roots() for folder, _, names in _walk(root) if name in names]
    return min(found, key=lambda path: (len(path.parts), path)) if found else None


def offered() -> str:
    """What is attached, for an error's line; "" where there are no inputs at all."""
    names = sorted({path.name for root in roots() for path in root.iterdir() if path.is_dir()})
    return f"{', '.join(str(root) for root in roots())} ({', '.join(names) or 'empty'})" if roots() else ""


def model_in(folder: Path) -> Path:
    """What a mounted folder holds to load: itself, the one folder below it that is a pipeline, or its one .safetensors file."""
    if any((folder / head).is_file() for head in HEADS):
        return folder
    pipelines, files = [], []
    for place, _, names in _walk(folder):
        pipelines += [Path(place)] if "model_index.json" in names else []
        files += [Path(place) / name for name in names if name.endswith(".safetensors")]
    if len(pipelines) == 1:
        return pipelines[0]
    if not pipelines and len(files) == 1:
        return files[0]
    if not pipelines and not files:
        return folder
    choices = [path.relative_to(folder).as_posix() for path in pipelines or files]
    raise RequestError(f"{str(folder)!r} holds {len(choices)} models: give the path of one, such as {str(folder / sorted(choices)[0])!r}")


def _folders() -> Iterator[tuple[Path, list[str]]]:
    for root in roots():
        for place, _, names in _walk(root):
            if heads := [head for head in HEADS if head in names]:
                yield Path(place), heads


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk in a fixed order, DEEPEST folders down."""
    top = len(root.parts)
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if len(Path(place).parts) - top < DEEPEST else []
        yield place, folders, names


def _fold(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
