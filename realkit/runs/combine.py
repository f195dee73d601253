"""One results folder merged into another: cells, locks, runs, rows and pictures, each verified,
nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.runs import attach
from realkit.runs.locks import NAME, Locks, read_locks, write_locks
from realkit.runs.store import Store
from realkit.runs.table import write

OWN = {
    "cells.jsonl",
    "rows.jsonl",
    "runs.jsonl",
    NAME,
    "table.csv",
    "table.parquet",
}  # merged, or made anew
SWEEP = "sweep.yaml"


def merge(source: str | Path, out: str | Path) -> int:
    """Merge the results folders that a folder holds, or a Kaggle notebook's mounted output, into
    `out`, made where it is not there; the number of rows taken up.

    What `out` has stays as it is. Rows count as attach.take counts them, and failed ones come too
    where `out` knows nothing better. Interrupted, it is done by doing it again. Raises
    RequestError, before anything is written, where the two mean different files by a name, or come
    from library versions that may draw differently.
    """
    found = attach.outputs(source)
    if not all(isinstance(folder, Path) for folder in found):
        raise RequestError(f"{str(source)!r} is packed: unzip it, then merge the folder")
    sources, store = [Store(folder) for folder in found if isinstance(folder, Path)], Store(out)
    locks, versions = _locks([store, *sources]), _versions([store, *sources])
    with store.writing():
        taken = attach.take(found, store, versions)  # refuses other versions before it writes
        for other in sources:
            taken += _failed(other, store)
            _cells(other, store)
            _others(other.folder, store)
        write_locks(store, locks)
        write(store)
    return taken


def _locks(stores: Iterable[Store]) -> Locks:
    """The locks of all. Raises RequestError where a name means different files."""
    found = Locks()
    owner: dict[tuple[str, str], Path] = {}
    for folder in (store.folder for store in stores):
        read = read_locks(folder)
        kinds: list[tuple[str, Any, Any, Any]] = [
            ("model", read.models, found.models, _model),
            ("upscaler", read.upscalers, found.upscalers, _upscaler),
        ]
        for kind, of, known, meaning in kinds:
            for name, lock in of.items():
                if meaning(known.setdefault(name, lock)) != meaning(lock):
                    raise RequestError(
                        f"{name!r} means other files in {str(folder)!r} than in"
                        f" {str(owner[kind, name])!r}: merge it into a folder of its own"
                    )
                owner.setdefault((kind, name), folder)
    return found


def _model(lock: Any) -> Any:
    return lock.fingerprint, lock.vae_fingerprint


def _upscaler(tools: Any) -> Any:
    return {tool: lock.fingerprint for tool, lock in tools.items()}


def _versions(stores: Iterable[Store]) -> dict[str, Any]:
    """The library versions that the folder's results come from, or those of the first that is
    merged into it."""
    runs = next((runs for store in stores if (runs := store.runs.read())), [])
    return dict(runs[0]["versions"]) if runs else {}


def _failed(source: Store, store: Store) -> int:
    """Take up the rows that failed, with their runs, where nothing is known of what they tried to
    make."""
    have = store.last_rows()
    failed = [
        row
        for name, row in source.last_rows().items()
        if row["status"] != "ok" and name not in have
    ]
    made_by = {row.get("run") for row in failed} - {run["run"] for run in store.runs.read()}
    if fresh := [run for run in source.runs.read() if run["run"] in made_by]:
        store.runs.append(fresh)
    if failed:
        store.rows.append(failed)
    return len(failed)


def _cells(source: Store, store: Store) -> None:
    """Append the cells that are new, in batches of their own numbers; what shares its latents with
    a cell that is there shares its batch."""
    kept = store.cells.read()
    known = {line["id"] for line in kept}
    batch_of = {line["ids"]["latents"]: line["batch"] for line in kept}
    first = max(batch_of.values(), default=-1) + 1
    if new := [line for line in source.cells.read() if line["id"] not in known]:
        store.add_cells(
            [
                line | {"batch": batch_of.get(line["ids"]["latents"], first + line["batch"])}
                for line in new
            ]
        )


def _others(folder: Path, store: Store) -> None:
    """Copy the files beside: plots, the newer of a name; the sweep where there is none yet."""
    for path in sorted(folder.iterdir()):
        there = store.folder / path.name
        if (
            path.is_file()
            and path.name not in OWN
            and not path.name.startswith(".")
            and not (path.name == SWEEP and there.exists())
        ):
            store.put(there, path.read_bytes())
