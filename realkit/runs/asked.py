"""What the runs of a results folder were asked for: which cells, and which scores of each; and
which of them races have decided without."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from realkit.base.errors import RequestError
from realkit.models.identity import ID_VERSION
from realkit.runs import looks
from realkit.runs.locks import read_locks
from realkit.runs.store import Store
from realkit.sweeps.sweep import Sweep

EARLIER = "before format 2"  # in place of the name of a run
# Id of a cell → names of the scorers asked for it; None: only races asked for the cell, and each
# has decided without it.
Asked = Mapping[str, Collection[str] | None]


def upgrade(store: Store) -> None:
    """Record what the earlier runs of a folder of before format 2 were asked for, as far as it
    shows. Any other folder stays as it is."""
    store.add_runs(recorded(store))


def merge(source: Store, store: Store) -> None:
    """Add what the runs of another folder were asked for."""
    upgrade(store)
    store.add_runs(recorded(source))


def recorded(store: Store) -> list[dict[str, Any]]:
    """The records of what runs were asked for; of a folder of before format 2, a record that
    stands for its runs."""
    return store.asked() or _of_earlier_runs(before(store))


def of_folder(store: Store) -> Asked:
    """What all runs were asked for, by cell; what the folder shows, where nothing was recorded."""
    records = store.asked()
    return united(records, store) if records else before(store)


def united(records: Iterable[Mapping[str, Any]], store: Store) -> Asked:
    """What these records of runs.jsonl ask for, by cell."""
    spared = looks.spared(store)
    asked: dict[str, set[str] | None] = {}
    for record in records:
        without = spared.get(record["asked"].get("race", ""), ())
        for cell in record["asked"]["cells"]:
            if cell in without:
                asked.setdefault(cell, None)
            else:
                asked[cell] = {*(asked.get(cell) or ()), *record["asked"]["scorers"]}
    return asked


def before(store: Store) -> dict[str, set[str]]:
    """What a folder of before format 2 shows: every cell, the scores there are, and those that its
    sweep.yaml, the last run's, asks of its own cells."""
    records = store.cells.read()
    scored: dict[str, set[str]] = {}
    for row in store.rows.read():
        if row["stage"] == "score":
            scored.setdefault(row["parent"], set()).add(row["scorer"])
    asked = {record["id"]: set(scored.get(record["ids"]["image"], ())) for record in records}
    path = store.folder / "sweep.yaml"
    if not path.is_file():
        return asked
    try:
        sweep = Sweep.from_yaml(path)
        cells = sweep.cells(read_locks(store.folder).specs)
    except RequestError:  # of a later kit, or edited: the rows alone tell
        return asked
    of_sweep = {_settings(vars(cell)) for cell in cells}
    for record in records:
        if _settings(record["cell"]) in of_sweep:
            asked[record["id"]].update(sweep.scorers)
    return asked


def _settings(cell: Mapping[str, Any]) -> str:
    """A cell's settings as text; those that are None may be younger than the record."""
    return json.dumps({name: value for name, value in sorted(cell.items()) if value is not None})


def _of_earlier_runs(asked: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    """A record for each set of scorers, so that each lists its cells once."""
    cells: dict[tuple[str, ...], list[str]] = {}
    for cell, scorers in asked.items():
        cells.setdefault(tuple(sorted(scorers)), []).append(cell)
    records = []
    for scorers, names in cells.items():
        wanted = {"cells": names, "scorers": list(scorers)}
        records.append({"run": EARLIER, "id_version": ID_VERSION, "asked": wanted})
    return records
