"""Attaching earlier outputs: verified rows and artifacts of a folder, a zip or a Kaggle notebook's
output are copied into a results folder."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from realkit.base.door import expanded
from realkit.base.errors import RequestError, shown
from realkit.base.files import checked_lines
from realkit.models import provenance
from realkit.models.identity import ID_VERSION
from realkit.runs import environment
from realkit.runs.jobs import sha256
from realkit.runs.records import ABOUT, FILED, ROW, RUN, STAGES, last_rows
from realkit.runs.store import Store
from realkit.weights.sources import inputs

DEEPEST = 3  # folders below the named one in which an output is looked for
ADVICE = "Take another copy of that output"
Rows = list[dict[str, Any]]


def outputs(source: object) -> list[Traversable]:
    """The results folders in a folder, a .zip or a Kaggle reference (kaggle:OWNER/SLUG, or its path
    below the inputs). Raises RequestError where there is none."""
    called = f"attach {shown(source)}"
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise RequestError(
            f"{called}: expected a results folder, a .zip of one, or a Kaggle notebook's output"
        )
    path = expanded(str(source))
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
        try:
            inner = sorted(folder.iterdir(), key=lambda item: item.name)
        except OSError:  # not ours to read
            return
        for below in inner:
            with contextlib.suppress(OSError):
                if below.is_dir():
                    yield from _outputs(below, deep - 1)


def take(sources: Iterable[Traversable], store: Store, versions: Mapping[str, Any]) -> int:
    """Copy what the folder lacks; the number of rows added. Left out are failed rows, and rows
    whose file is needed and is missing or damaged. What the runs were asked for stays behind.

    Raises RequestError, before anything is written, for an output made with other ids or by library
    versions that may draw differently, and for a damaged record.
    """
    checked = check(sources, versions)
    return sum(_take(source, runs, rows, store) for source, runs, rows in checked)


def check(
    sources: Iterable[Traversable], versions: Mapping[str, Any]
) -> list[tuple[Traversable, Rows, Rows]]:
    """Each output with its runs and the last row of each of its ids. Raises as `take` does."""
    return [_checked(source, versions) for source in sources]


def _checked(source: Traversable, versions: Mapping[str, Any]) -> tuple[Traversable, Rows, Rows]:
    """An output with its runs and the last row of each of its ids."""
    runs = _lines(source, "runs.jsonl", RUN)
    for run in runs:
        _check_run(run, str(source), versions)
    try:
        last = last_rows(_lines(source, "rows.jsonl", ROW))
    except ValueError as error:
        raise RequestError(f"attach {str(source)!r}: {error}. {ADVICE}") from None
    for row in last.values():
        parent = last.get(str(row.get("parent")))
        if parent and STAGES.index(parent["stage"]) >= STAGES.index(row["stage"]):
            raise RequestError(
                f"attach {str(source)!r}: rows.jsonl is damaged: {row['id']} of the stage"
                f" {row['stage']} was made from {parent['id']} of the stage {parent['stage']}."
                f" {ADVICE}"
            )
    return source, runs, list(last.values())


def _take(source: Traversable, runs: Rows, rows: Rows, store: Store) -> int:
    present, fresh = store.ok_rows(), {}
    for row in rows:
        if row["status"] == "ok" and row["id"] not in present:
            fresh[row["id"]] = row
    copied = {name for name, row in fresh.items() if _copy(source, store, row)}
    taken = _with_parents(fresh, copied)
    add_rows(taken, runs, store)
    return len(taken)


def add_rows(rows: list[dict[str, Any]], runs: list[dict[str, Any]], store: Store) -> None:
    """Append rows to a folder, and before them the machines of those `runs` that made them."""
    makers = {row.get("run") for row in rows}
    machines = []
    for run in runs:
        if run["run"] in makers and "versions" in run:
            machines.append({name: fact for name, fact in run.items() if name != "asked"})
    store.add_runs(machines)
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
    environment.same_versions(run.get("versions", {}), versions, f"{called}: made with")


def _with_parents(fresh: dict[str, dict[str, Any]], copied: set[str]) -> list[dict[str, Any]]:
    """The rows whose files were copied, and the rows of their parents: a picture needs the times of
    its latents, but no longer their file."""
    wanted = set(copied)
    for name in copied:
        if fresh[name]["stage"] in ABOUT:
            continue  # a score stands, whatever became of the picture
        parent = fresh[name].get("parent")
        while parent in fresh:
            wanted.add(parent)
            parent = fresh[parent].get("parent")
    return [row for name, row in fresh.items() if name in wanted]


def _lines(source: Traversable, name: str, schema: TypeAdapter[Any]) -> Rows:
    """The whole lines of a file; a last one torn by a kill is left out."""
    data, called = _bytes(source.joinpath(name)), f"attach {str(source)!r}: {name}"
    if data is None:
        raise RequestError(f"{called} is damaged. {ADVICE}")
    try:
        return checked_lines(data, schema, called)
    except RequestError as error:
        raise RequestError(f"{error}. {ADVICE}") from None


def _copy(source: Traversable, store: Store, row: dict[str, Any]) -> bool:
    """Copy a row's file where it is missing. Whether the row can be taken: its file is there, whole
    and as the row says, or it has none."""
    stage, name = row["stage"], row["id"]
    if stage not in FILED or store.has_file(stage, name):
        return True
    path = store.path(stage, name)
    data = _bytes(source.joinpath(path.parent.name).joinpath(path.name))
    if data is None:
        return False
    if "sha256" in row:
        right = sha256(data) == row["sha256"]
    elif path.suffix == ".png":
        right = is_picture(data, row.get("pixels"))
    else:
        right = _is_latents(data)
    if right:
        store.put(path, data)
    return right


def _bytes(file: Traversable) -> bytes | None:
    """A file's contents; None where it is missing, or cannot be read out of its archive."""
    try:
        return file.read_bytes() if file.is_file() else None
    # zipfile raises RuntimeError for an encrypted member, and for a compression that it lacks.
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError):
        return None


def is_picture(data: bytes, pixels: object) -> bool:
    """Whether these bytes are a picture whose pixels have this hash."""
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
