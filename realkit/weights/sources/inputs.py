"""Folders of inputs looked through before any network: Kaggle's mounts in their old and new form,
or $REALKIT_INPUTS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from realkit.base.errors import RequestError

INPUTS = "REALKIT_INPUTS"  # folders of inputs, separated as in $PATH
KAGGLE = Path("/kaggle/input")
KINDS = (
    "datasets",
    "models",
    "notebooks",
)  # first folder of the new form: KIND/OWNER/SLUG/…; the old form begins with SLUG
DEEPEST = (
    8  # folders below the inputs: models/owner/slug/framework/variation/version/… and one more
)
SAYING_NOTHING = {
    "model",
    "pytorch_model",
    "diffusion_pytorch_model",
    "pytorch_lora_weights",
    "adapter_model",
}  # names of files in many repositories
HEADS = (
    "model_index.json",
    "config.json",
    "open_clip_config.json",
)  # of a folder that a loader can read


def roots() -> list[Path]:
    """The folders of inputs that exist here."""
    own = os.environ.get(INPUTS)
    return [
        path for path in (map(Path, own.split(os.pathsep)) if own else [KAGGLE]) if path.is_dir()
    ]


def explicit(ref: str) -> Path | None:
    """The path that kaggle:OWNER/SLUG[/…] names, or a path below the inputs written in the other
    form; None for any other reference.

    Raises RequestError with what to attach where such a reference names nothing here.
    """
    if ref.startswith("kaggle:"):
        owner, _, rest = ref.removeprefix("kaggle:").strip("/").partition("/")
        if not owner or not rest:
            raise RequestError(
                f"Kaggle reference {ref!r}: expected kaggle:OWNER/SLUG, for a model"
                " kaggle:OWNER/SLUG/FRAMEWORK/VARIATION/VERSION"
            )
        forms = [*(f"{kind}/{owner}/{rest}" for kind in KINDS), rest]
        wanted = f"{owner}/{rest}"
    else:
        below = next(
            (
                Path(ref).relative_to(root)
                for root in [*roots(), KAGGLE]
                if Path(ref).is_relative_to(root)
            ),
            None,
        )
        if below is None or not below.parts:
            return None
        parts = below.parts
        new = parts[0] in KINDS and len(parts) > 2
        forms = (
            [below.as_posix(), Path(*parts[2:]).as_posix()]
            if new
            else [below.as_posix(), *(f"{kind}/*/{below.as_posix()}" for kind in KINDS)]
        )
        wanted = "/".join(parts[1:]) if new else below.as_posix()
    for root in roots():
        for form in forms:
            if found := sorted(root.glob(form)):
                return found[0]
    raise RequestError(
        f"{ref!r} is not among the inputs: attach {wanted!r} (Add Input in the notebook's side"
        " panel), then run again"
    )


def repository(name: str, revision: str = "") -> Path | None:
    """The folder among the inputs that holds the hub repository OWNER/NAME: below a folder called
    like it, or the hub's own cache.

    Where several do, one whose path bears the owner too comes first, then by path. Of a cache, the
    snapshot of this revision and no other.
    """
    found = []
    for folder, heads in _folders():
        if _bears(folder, name) and _of_revision(folder, revision):
            found.append(
                (
                    not _bears(folder, name, owner=True),
                    HEADS.index(heads[0]),
                    len(folder.parts),
                    folder,
                )
            )
    return min(found)[3] if found else None


def file(name: str, repo: str) -> Path | None:
    """The file of this name among the inputs: below a folder called like its repository OWNER/NAME,
    else the one closest to the top.

    A file whose name is that of many is taken only from such a folder.
    """
    found = [
        Path(folder) / name for root in roots() for folder, _, names in _walk(root) if name in names
    ]
    if Path(name).stem in SAYING_NOTHING:
        found = [path for path in found if _bears(path.parent, repo)]
    return (
        min(found, key=lambda path: (not _bears(path.parent, repo), len(path.parts), path))
        if found
        else None
    )


def _bears(folder: Path, name: str, owner: bool = False) -> bool:
    """Whether a folder's path bears a repository's name, alone or (with `owner`, only) with its
    owner's."""
    whose, _, repo = name.partition("/")
    parts = {_fold(part) for part in folder.parts}
    both = {_fold(f"models--{whose}--{repo}"), _fold(f"{whose}-{repo}")}
    return bool(parts & both) or (_fold(repo) in parts and (not owner or _fold(whose) in parts))


def _of_revision(folder: Path, revision: str) -> bool:
    """Whether a folder is of this revision, as far as it can be told: in the hub's cache,
    models--OWNER--NAME/snapshots/COMMIT."""
    if "snapshots" not in folder.parts:
        return True
    place = folder.parts.index("snapshots")
    main = Path(*folder.parts[:place], "refs", revision or "main")
    wanted = main.read_text(encoding="utf-8").strip() if main.is_file() else revision
    return not wanted or folder.parts[place + 1 : place + 2] == (wanted,)


def holding(*names: str) -> list[Path]:
    """The folders among the inputs that hold files of all these names, in a fixed order."""
    return [
        Path(place)
        for root in roots()
        for place, _, found in _walk(root)
        if set(names) <= set(found)
    ]


def offered() -> str:
    """What is attached, for an error's line; "" where there are no inputs at all."""
    names = sorted({path.name for root in roots() for path in root.iterdir() if path.is_dir()})
    return (
        f"{', '.join(str(root) for root in roots())} ({', '.join(names) or 'empty'})"
        if roots()
        else ""
    )


def model_in(folder: Path) -> Path:
    """What a mounted folder holds to load: itself, the one folder below it that is a pipeline, or
    its one .safetensors file."""
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
    raise RequestError(
        f"{str(folder)!r} holds {len(choices)} models: give the path of one, such as"
        f" {str(folder / sorted(choices)[0])!r}"
    )


def _folders() -> Iterator[tuple[Path, list[str]]]:
    for root in roots():
        for place, _, names in _walk(root):
            if heads := [head for head in HEADS if head in names]:
                yield Path(place), heads


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk in a fixed order, DEEPEST folders down."""
    top = len(root.parts)
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = (
            sorted(name for name in folders if not name.startswith("."))
            if len(Path(place).parts) - top < DEEPEST
            else []
        )
        yield place, folders, names


def _fold(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
