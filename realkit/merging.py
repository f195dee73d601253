"""One results folder merged into another: cells, locks, runs, rows and pictures, each verified, nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

from realkit import attach, hub, models
from realkit.errors import RequestError
from realkit.store import Store, write_atomically
from realkit.sweep import ID_VERSION

OWN = {"cells.jsonl", "rows.jsonl", "runs.jsonl", "sweep.lock.json", "table.csv", "table.parquet"}  # merged, or made anew
LOCK, SWEEP = "sweep.lock.json", "sweep.yaml"


def merge(source: str | Path, out: str | Path) -> int:
    """Merge the results folders that a folder holds, or a Kaggle notebook's mounted output, into `out`, made where it is not there; the number of rows taken up.

    What `out` has stays as it is. Rows count as attach.take counts them, and failed ones come too where `out` knows nothing better. Interrupted, it is done by doing
    it again. Raises RequestError, before anything is written, where the two mean different files by a name, or come from library versions that may draw differently.
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
        store.write_text(LOCK, json.dumps(locks, indent=1, sort_keys=True) + "\n")
        _tables(store)
    return taken


def _locks(stores: Iterable[Store]) -> dict[str, Any]:
    """The locks of all. Raises RequestError where a name means different files."""
    found: dict[str, Any] = {"id_version": ID_VERSION, "models": {}, "upscalers": {}}
    owner: dict[tuple[str, str], Path] = {}
    for path in (store.folder / LOCK for store in stores):
        if not path.is_file():
            continue
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            version = read["id_version"]
            prints = [(kind, name, lock, meaning(name, lock)) for kind, meaning in _MEANINGS.items() for name, lock in read.get(kind, {}).items()]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestError(f"{str(path)!r} is damaged ({type(error).__name__}): take another copy") from error
        if version != ID_VERSION:
            raise RequestError(f"{str(path)!r} was made with id version {version}, this is {ID_VERSION}: they cannot be merged")
        for kind, name, lock, meant in prints:
            if _MEANINGS[kind](name, found[kind].setdefault(name, lock)) != meant:
                raise RequestError(f"{name!r} means other files in {str(path.parent)!r} than in {str(owner[kind, name])!r}: merge it into a folder of its own")
            owner.setdefault((kind, name), path.parent)
    return found


def _model(name: str, lock: Any) -> Any:
    read = models.ModelLock.from_json(name, lock)
    return read.fingerprint, read.vae_fingerprint


def _upscaler(_: str, lock: Any) -> Any:
    return {tool: hub.Lock(**found).fingerprint for tool, found in lock.items()}


_MEANINGS = {"models": _model, "upscalers": _upscaler}


def _versions(stores: Iterable[Store]) -> dict[str, Any]:
    """The library versions that the folder's results come from, or those of the first that is merged into it."""
    runs = next((runs for store in stores if (runs := store.runs.read())), [])
    return dict(runs[0]["versions"]) if runs else {}


def _failed(source: Store, store: Store) -> int:
    """Take up the rows that failed, with their runs, where nothing is known of what they tried to make."""
    have = store.last_rows()
    failed = [row for name, row in source.last_rows().items() if row["status"] != "ok" and name not in have]
    made_by = {row.get("run") for row in failed} - {run["run"] for run in store.runs.read()}
    if fresh := [run for run in source.runs.read() if run["run"] in made_by]:
        store.runs.append(fresh)
    if failed:
        store.rows.append(failed)
    return len(failed)


def _cells(source: Store, store: Store) -> None:
    """Append the cells that are new, in batches of their own numbers; what shares its latents with a cell that is there shares its batch."""
    kept = store.cells.read()
    known = {line["id"] for line in kept}
    batch_of = {line["ids"]["latents"]: line["batch"] for line in kept}
    first = max(batch_of.values(), default=-1) + 1
    if new := [line for line in source.cells.read() if line["id"] not in known]:
        store.cells.append([line | {"batch": batch_of.get(line["ids"]["latents"], first + line["batch"])} for line in new])


def _others(folder: Path, store: Store) -> None:
    """Copy the files beside: plots, the newer of a name; the sweep where there is none yet."""
    for path in sorted(folder.iterdir()):
        there = store.folder / path.name
        if path.is_file() and path.name not in OWN and not path.name.startswith(".") and not (path.name == SWEEP and there.exists()):
            write_atomically(there, partial(_pour, path.read_bytes()))


def _pour(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _tables(store: Store) -> None:
    from realkit.table import build

    frame = build(store)
    write_atomically(store.folder / "table.parquet", lambda file: frame.to_parquet(file, index=False))
    write_atomically(store.folder / "table.csv", lambda file: frame.to_csv(file, index=False))
