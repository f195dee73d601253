"""Merging results folders: cells, locks, runs, rows and pictures, each verified, each once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.runs import asked, attach
from realkit.runs.locks import NAME, Locks, read_locks, write_locks
from realkit.runs.looks import races
from realkit.runs.store import Store
from realkit.runs.table import write

# Files that are merged or derived; any other file is copied.
OWN = {
    "cells.jsonl", "rows.jsonl", "runs.jsonl", "votes.jsonl", "decisions.jsonl", NAME, "table.csv",
    "table.parquet",
}  # fmt: skip
SWEEP = "sweep.yaml"


def merge(source: str | Path, out: str | Path) -> int:
    """Merge the results folders in a folder, or in a Kaggle notebook's mounted output, into `out`;
    the number of rows added.

    What `out` has stays as it is. Failed rows come too where `out` has none of that id. An
    interrupted merge is completed by merging again. Raises RequestError, before anything is
    written, where a name means different files in two folders, or where library versions differ
    that may draw differently.
    """
    folders = attach.outputs(source)
    sources = [Store(folder) for folder in folders if isinstance(folder, Path)]
    if len(sources) < len(folders):
        raise RequestError(f"{str(source)!r} is packed: unzip it, then merge the folder")
    store = Store(out)
    locks = united_locks([store, *sources], "merge it into a folder of its own")
    versions = versions_of([store, *sources])
    for other in sources:  # a damaged record is found before anything is written
        other.cells.read()
        other.votes.read()
        other.looks.read()
    with store.writing(""):  # a sweep file that is there stays
        attach.check(folders, versions)
        for other in sources:
            asked.merge(other, store)
            store.add_votes(other.votes.read())
        count = attach.take(folders, store, versions)
        for other in sources:
            count += _add_failures(other, store)
            _add_cells(other, store)
            _add_looks(other, store)
            _copy_others(other.folder, store)
        write_locks(store, locks)
        write(store)
    return count


def united_locks(stores: Iterable[Store], advice: str) -> Locks:
    """The locks of all folders. Raises RequestError, with this advice, where a name means different
    files."""
    merged = Locks()
    meanings: dict[tuple[str, str], tuple[Any, Path]] = {}
    for store in stores:
        locks = read_locks(store.folder)
        for key, prints in _fingerprints(locks).items():
            others, folder = meanings.setdefault(key, (prints, store.folder))
            if prints != others:
                raise RequestError(
                    f"{key[1]!r} means other files in {str(store.folder)!r} than in"
                    f" {str(folder)!r}: {advice}"
                )
        for kind in fields(Locks):
            setattr(merged, kind.name, getattr(locks, kind.name) | getattr(merged, kind.name))
    return merged


def _fingerprints(locks: Locks) -> dict[tuple[str, str], Any]:
    """What each name means, by kind and name."""
    prints: dict[tuple[str, str], Any] = {}
    for name, model in locks.models.items():
        prints["model", name] = model.fingerprint, model.vae_fingerprint
    for name, tools in locks.upscalers.items():
        prints["upscaler", name] = {tool: lock.fingerprint for tool, lock in tools.items()}
    for name, parts in locks.scorers.items():
        prints["scorer", name] = {part: lock.fingerprint for part, lock in parts.items()}
    for name, encoder in locks.encoders.items():
        prints["encoder", name] = encoder.fingerprint if encoder else ""
    for name, hashes in locks.photographs.items():
        prints["photographs", name] = set(hashes.values())
    return prints


def versions_of(stores: Iterable[Store]) -> dict[str, Any]:
    """The library versions of the first folder that has runs."""
    for store in stores:
        if runs := store.machines():
            return dict(runs[0]["versions"])
    return {}


def _add_failures(source: Store, store: Store) -> int:
    """Add the failed rows whose ids the folder has no row of, with their runs."""
    rows = store.last_rows()
    failures = []
    for name, row in source.last_rows().items():
        if row["status"] != "ok" and name not in rows:
            failures.append(row)
    attach.add_rows(failures, source.runs.read(), store)
    return len(failures)


def _add_cells(source: Store, store: Store) -> None:
    """Add the cells that are new. Their batches get new numbers; a cell whose latents exist already
    takes the batch of those latents."""
    if new := new_cells(source, store):
        store.add_cells(new)


def new_cells(source: Store, store: Store) -> list[dict[str, Any]]:
    """The cells of a folder that another lacks, with the batches that they have there."""
    ids = {record["id"] for record in store.cells.read()}
    batch_of = store.batches()
    first = max(batch_of.values(), default=-1) + 1
    new = []
    for record in source.cells.read():
        if record["id"] not in ids:
            batch = batch_of.get(record["ids"]["latents"], first + record["batch"])
            new.append(record | {"batch": batch})
    return new


def _add_looks(source: Store, store: Store) -> None:
    if new := new_looks(source, store):
        store.looks.append(new)


def new_looks(source: Store, store: Store) -> list[dict[str, Any]]:
    """The looks of races that continue those that a folder has. Where two folders raced apart, the
    looks of the first stay, whose decisions hang together."""
    new = []
    for race, looks in races(source).items():
        records = [record for record in store.looks.read() if record["race"] == race]
        if records == looks.records[: len(records)]:
            new += looks.records[len(records) :]
    return new


def _copy_others(folder: Path, store: Store) -> None:
    """Copy the other files, such as plots, over those of their names; the sweep only where there is
    none yet."""
    for path in sorted(folder.iterdir()):
        target = store.folder / path.name
        if not path.is_file() or path.name in OWN or path.name.startswith("."):
            continue
        if path.name != SWEEP or not target.exists():
            store.put(target, path.read_bytes())
