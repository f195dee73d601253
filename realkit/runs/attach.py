"""Attaching earlier outputs: verified rows and artifacts of a folder, a zip or a Kaggle notebook's
output are copied into a results folder."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError, shown
from realkit.models import provenance
from realkit.models.identity import ID_VERSION
from realkit.runs import environment
from realkit.runs.store import Store
from realkit.weights.sources import inputs

DEEPEST = 3  # folders below the named one in which an output is looked for
DRAWN = ("denoise", "refine", "decode", "upscale")  # stages that leave a file
SCORED = {"scorer", "prompt", "value", "parent"}  # what a score's row holds


def outputs(source: object) -> list[Traversable]:
    """The results folders in a folder, a .zip or a Kaggle reference (kaggle:OWNER/SLUG, or its path
    below the inputs). Raises RequestError where there is none."""
    called = f"attach {shown(source)}"
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise RequestError(
            f"{called}: expected a results folder, a .zip of one, or a Kaggle notebook's output"
        )
    path = Path(str(source)).expanduser()
    mounted = path if path.exists() else inputs.explicit(str(source))
    if mounted is None or not mounted.exists():
        raise RequestError(
            f"{called}: there is no such folder or file. Attach the notebook's output (Add Input),"
            " or give its path"
        )
    root: Traversable = mounted
    if mounted.is_file():
        if not zipfile.is_zipfile(mounted):
            raise RequestError(
                f"{called}: expected a results folder, or a .zip of one; this file is neither"
            )
        root = zipfile.Path(mounted)  # type: ignore[assignment]
    folders = list(_outputs(root, DEEPEST))
    if not folders:
        raise RequestError(
            f"{called}: no results folder in it, {DEEPEST} folders deep: expected one with"
            " rows.jsonl and runs.jsonl"
        )
    return folders


def _outputs(folder: Traversable, deep: int) -> Iterator[Traversable]:
    if folder.joinpath("rows.jsonl").is_file() and folder.joinpath("runs.jsonl").is_file():
        yield folder
    elif deep:
        for below in sorted(folder.iterdir(), key=lambda item: item.name):
            if below.is_dir():
                yield from _outputs(below, deep - 1)


def take(sources: Iterable[Traversable], store: Store, versions: Mapping[str, Any]) -> int:
    """Copy what the folder lacks; the number of rows added. Left out are failed rows, and rows
    whose file is needed and is missing or damaged.

    Raises RequestError for an output made with other ids, or by library versions that may draw
    differently.
    """
    return sum(_take(source, store, versions) for source in sources)


def _take(source: Traversable, store: Store, versions: Mapping[str, Any]) -> int:
    runs, rows = _lines(source, "runs.jsonl"), _lines(source, "rows.jsonl")
    for run in runs:
        _check_run(run, str(source), versions)
    last = {row["id"]: row for row in rows if _is_row(row)}
    present, fresh = store.ok_rows(), {}
    for name, row in last.items():
        if row.get("status") == "ok" and name not in present:
            fresh[name] = row
    copied = {name for name, row in fresh.items() if _copy(source, store, row)}
    taken = _with_parents(fresh, copied)
    add_rows(taken, runs, store)
    return len(taken)


def add_rows(rows: list[dict[str, Any]], runs: list[dict[str, Any]], store: Store) -> None:
    """Append rows to a folder, and before them those of `runs` that made them."""
    makers = {row.get("run") for row in rows}
    store.add_runs(run for run in runs if run.get("run") in makers)
    if rows:
        store.rows.append(rows)


def _check_run(run: dict[str, Any], source: str, versions: Mapping[str, Any]) -> None:
    """Raise RequestError for a run whose results cannot stand beside those of `versions`."""
    called = f"attach {source!r}"
    if run.get("id_version") != ID_VERSION:
        raise RequestError(
            f"{called}: made with id version {run.get('id_version')}, this is {ID_VERSION}: it"
            " cannot be resumed"
        )
    of_run = run.get("versions") or {}
    if not isinstance(of_run, dict):
        raise RequestError(
            f"{called}: runs.jsonl is damaged (versions {shown(of_run)}). Take another copy of that"
            " output"
        )
    environment.same_versions(of_run, versions, f"{called}: made with")


def _is_row(row: dict[str, Any]) -> bool:
    """Whether a line is a row of this kit, whose id can name no file outside the folder."""
    if not re.fullmatch(r"[0-9a-f]{16}", str(row.get("id"))):
        return False
    stage = row.get("stage")
    return stage in DRAWN or (stage == "score" and row.keys() >= SCORED)


def _with_parents(fresh: dict[str, dict[str, Any]], copied: set[str]) -> list[dict[str, Any]]:
    """The rows whose files were copied, and the rows of their parents: a picture needs the times of
    its latents, but no longer their file."""
    wanted = set(copied)
    for name in copied:
        if fresh[name]["stage"] not in DRAWN:
            continue  # a score stands, whatever became of the picture
        parent = fresh[name].get("parent")
        while parent in fresh:
            wanted.add(parent)
            parent = fresh[parent].get("parent")
    return [row for name, row in fresh.items() if name in wanted]


def _lines(source: Traversable, name: str) -> list[dict[str, Any]]:
    """The whole lines of a file; a last one torn by a kill is left out."""
    data = _bytes(source.joinpath(name))
    called, advice = f"attach {str(source)!r}: {name}", "Take another copy of that output"
    try:
        if data is None:
            raise ValueError
        whole = data[: data.rfind(b"\n") + 1]
        records = [json.loads(line) for line in whole.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise RequestError(f"{called} is damaged. {advice}") from None
    if not all(isinstance(record, dict) for record in records):
        raise RequestError(f"{called} holds no records. {advice}")
    return records


def _copy(source: Traversable, store: Store, row: dict[str, Any]) -> bool:
    """Copy a row's file where it is missing. Whether the row can be taken: its file is there, whole
    and as the row says, or it has none."""
    stage, name = row["stage"], row["id"]
    if stage not in DRAWN or store.has_file(stage, name):
        return True
    path = store.path(stage, name)
    data = _bytes(source.joinpath(path.parent.name).joinpath(path.name))
    if data is None:
        return False
    right = _is_picture(data, row.get("pixels")) if path.suffix == ".png" else _is_latents(data)
    if right:
        store.put(path, data)
    return right


def _bytes(file: Traversable) -> bytes | None:
    """A file's contents; None where it is missing, or cannot be read out of its archive."""
    try:
        return file.read_bytes() if file.is_file() else None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    except (RuntimeError, NotImplementedError):  # zipfile's, of encryption or unknown compression
        return None


def _is_picture(data: bytes, pixels: object) -> bool:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return provenance.pixel_hash(image) == pixels
    except Exception:  # Pillow raises what the bytes provoke
        return False


def _is_latents(data: bytes) -> bool:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return bool(np.isfinite(load(data)["latents"]).all())
    except (SafetensorError, KeyError, ValueError):
        return False
