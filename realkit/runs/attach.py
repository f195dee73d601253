"""What an earlier output holds taken up into a results folder: rows and artifacts of a folder, a
zip or a Kaggle notebook's output, each verified."""

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

DEEPEST = 3  # folders below the one named in which an output is looked for
DRAWN = ("denoise", "refine", "decode", "upscale")  # stages that leave a file


def outputs(source: object) -> list[Traversable]:
    """The results folders that a folder, a .zip or a Kaggle reference (kaggle:OWNER/SLUG, or its
    path below the inputs) holds. Raises RequestError where there is none."""
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise RequestError(
            f"attach {shown(source)}: expected a results folder, a .zip of one, or a Kaggle"
            " notebook's output"
        )
    path = Path(str(source)).expanduser()
    there = path if path.exists() else inputs.explicit(str(source))
    if there is None or not there.exists():
        raise RequestError(
            f"attach {shown(source)}: there is no such folder or file. Attach the notebook's output"
            " (Add Input), or give its path"
        )
    root: Traversable = there
    if there.is_file():
        if not zipfile.is_zipfile(there):
            raise RequestError(
                f"attach {shown(source)}: expected a results folder, or a .zip of one; this file is"
                " neither"
            )
        root = zipfile.Path(there)  # type: ignore[assignment]
    found = list(_outputs(root, DEEPEST))
    if not found:
        raise RequestError(
            f"attach {shown(source)}: no results folder in it, {DEEPEST} folders deep: expected one"
            " with rows.jsonl and runs.jsonl"
        )
    return found


def _outputs(folder: Traversable, deep: int) -> Iterator[Traversable]:
    if folder.joinpath("rows.jsonl").is_file() and folder.joinpath("runs.jsonl").is_file():
        yield folder
    elif deep:
        for below in sorted(folder.iterdir(), key=lambda item: item.name):
            if below.is_dir():
                yield from _outputs(below, deep - 1)


def take(sources: Iterable[Traversable], store: Store, versions: Mapping[str, Any]) -> int:
    """Copy what is not there yet; the number of rows taken up. Left out are rows that failed, and
    those whose file is missing or damaged and still needed.

    Raises RequestError for an output made with other ids, or by library versions that may draw
    differently.
    """
    return sum(_take(source, store, versions) for source in sources)


def _take(source: Traversable, store: Store, versions: Mapping[str, Any]) -> int:
    runs, rows = (_lines(source, name) for name in ("runs.jsonl", "rows.jsonl"))
    for run in runs:
        if run.get("id_version") != ID_VERSION:
            raise RequestError(
                f"attach {str(source)!r}: made with id version {run.get('id_version')}, this is"
                f" {ID_VERSION}: it cannot be gone on with"
            )
        made = run.get("versions") or {}
        if not isinstance(made, dict):
            raise RequestError(
                f"attach {str(source)!r}: runs.jsonl is damaged (versions {shown(made)}). Take"
                " another copy of that output"
            )
        environment.same_versions(made, versions, f"attach {str(source)!r}: made with")
    have = {name for name, row in store.last_rows().items() if row["status"] == "ok"}
    last = {row["id"]: row for row in rows if _is_row(row)}
    fine = {
        name: row for name, row in last.items() if row.get("status") == "ok" and name not in have
    }
    taken = _with_parents(fine, {name for name, row in fine.items() if _copied(source, store, row)})
    known = {run["run"] for run in store.runs.read()}
    made_by = {row.get("run") for row in taken}
    if fresh := [run for run in runs if run.get("run") in made_by - known]:
        store.runs.append(fresh)
    if taken:
        store.rows.append(taken)
    return len(taken)


def _is_row(row: dict[str, Any]) -> bool:
    """Whether a line is a row as this kit writes it, whose id names a file in the folder and
    nothing elsewhere."""
    score = {"scorer", "prompt", "value", "parent"} <= row.keys()
    return bool(re.fullmatch(r"[0-9a-f]{16}", str(row.get("id")))) and (
        row.get("stage") in DRAWN or (row.get("stage") == "score" and score)
    )


def _with_parents(fine: dict[str, dict[str, Any]], copied: set[str]) -> list[dict[str, Any]]:
    """The rows whose files are here, and those of what these were made from: a picture needs its
    latents no more, but their times."""
    wanted = set(copied)
    for name in copied:
        if fine[name]["stage"] not in DRAWN:  # a score stands, whatever became of the picture
            continue
        parent = fine[name].get("parent")
        while parent in fine:
            wanted.add(parent)
            parent = fine[parent].get("parent")
    return [row for name, row in fine.items() if name in wanted]


def _lines(source: Traversable, name: str) -> list[dict[str, Any]]:
    """The whole lines of a file; a last one torn by a kill is left out."""
    data = _bytes(source.joinpath(name))
    try:
        if data is None:
            raise ValueError
        found = [
            json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines() if line.strip()
        ]
    except (ValueError, RecursionError):
        raise RequestError(
            f"attach {str(source)!r}: {name} is damaged. Take another copy of that output"
        ) from None
    if not all(isinstance(line, dict) for line in found):
        raise RequestError(
            f"attach {str(source)!r}: {name} holds no records. Take another copy of that output"
        )
    return found


def _copied(source: Traversable, store: Store, row: dict[str, Any]) -> bool:
    """Whether a row's file is here now, whole and as the row says; True for one that has none."""
    if row.get("stage") not in DRAWN:
        return True
    path = store.path(row["stage"], row["id"])
    if store.has(row["stage"], row["id"]):
        return True
    data = _bytes(source.joinpath(path.parent.name).joinpath(path.name))
    if data is None or not (
        _is_picture(data, row.get("pixels")) if path.suffix == ".png" else _is_latents(data)
    ):
        return False
    store.put(path, data)
    return True


def _bytes(file: Traversable) -> bytes | None:
    """What a file holds; None where it is not there, or cannot be read out of its archive."""
    try:
        return file.read_bytes() if file.is_file() else None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    except (
        RuntimeError,
        NotImplementedError,
    ):  # zipfile's, of an encrypted member and of a compression that it does not know
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
