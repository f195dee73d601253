"""The plan of a run: locks, ids and batches of a sweep's cells, kept in the folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from realkit.base import cache
from realkit.base.errors import RequestError
from realkit.models import legs
from realkit.models.lock import lock_model
from realkit.models.spec import ModelSpec
from realkit.runs.jobs import Planned
from realkit.runs.locks import Locks, read_locks, write_locks
from realkit.runs.store import SWEEP, Store
from realkit.samplers.table import SAMPLERS
from realkit.scorers.encoders import lock_encoder
from realkit.scorers.score import lock_scorer
from realkit.sweeps import check, cost, photographs
from realkit.sweeps.cell import Cell
from realkit.sweeps.cost import BYTES_A_PIXEL
from realkit.sweeps.ids import Ids, ids, of_cell
from realkit.sweeps.sweep import Sweep
from realkit.upscalers import identity, upscale
from realkit.upscalers.chain import Chain
from realkit.weights import pickles, resolve
from realkit.weights.lock import Lock


def lock_sweep(sweep: Sweep, store: Store, keep: bool = True) -> Locks:
    """The locks of the sweep's models, upscalers and scorers. A lock of the folder is verified; a
    name that it lacks is locked now, and with `keep` written. Raises RequestError."""
    locks = read_locks(store.folder)
    cells = sweep.cells(locks.specs)
    before = locks.to_json()
    for name in dict.fromkeys(cell.model for cell in cells):
        if name in locks.models:
            _verify(locks.models[name].locks)
        else:
            locks.models[name] = lock_model(name)
    for cell in cells:
        legs.check_legs(cell, locks.models[cell.model])
        check.check_redraw(cell, locks.models[cell.model])
    for name in dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler):
        if name in locks.upscalers:
            with pickles.reading_pickles():
                _verify(locks.upscalers[name].values())
        else:
            chain = Chain.parse(name)
            locks.upscalers[name] = identity.lock_upscaler(chain)
            upscale.probe(chain, locks.upscalers[name])
    for name in sweep.scorers:
        locks.scorers[name] = lock_scorer(name, locks.scorers.get(name))
    for name in sweep.encoders:
        locks.encoders[name] = lock_encoder(name, locks.encoders.get(name))
    if folder := sweep.photographs:
        photographs.check_apart(folder, store.folder)
        locks.photographs[folder] = photographs.lock(folder, locks.photographs.get(folder))
    if keep and locks.to_json() != before:
        with store.writing(page_of(sweep, store)):
            write_locks(store, locks)
    return locks


def page_of(sweep: Sweep, store: Store) -> str:
    """The sweep file that a run writes: SWEEP, or "" where the folder's means the same, which stays
    as a person wrote it."""
    path = store.folder / SWEEP
    try:
        same = path.is_file() and Sweep.from_yaml(path).to_yaml() == sweep.to_yaml()
    except RequestError:
        same = False
    return "" if same else SWEEP


def foreseen(sweep: str | Path, folder: Path | None) -> str:
    """What a sweep file would make, and what of it a results folder has already."""
    asked = check.sweep_of(sweep)
    text = check.plan(asked)
    return f"{text}\n{existing(asked, folder)}" if folder else text


def existing(sweep: Sweep, folder: str | Path) -> str:
    """What of a sweep a results folder has already, and how long the rest takes, in one line;
    nothing is written. Raises RequestError as a run would."""
    store, called = Store(folder), repr(str(folder))
    if not (store.folder / "cells.jsonl").is_file():
        return f"in {called}: nothing yet"
    locks = lock_sweep(sweep, store, keep=False)
    cells, rows = sweep.cells(locks.specs), store.ok_rows()
    images: dict[str, Cell] = {}
    for cell in cells:
        images.setdefault(_ids(cell, locks).image, cell)
    there = {name for name in images if name in rows and store.has_file("decode", name)}
    scores = set()
    for row in rows.values():
        if row["stage"] == "score" and row["parent"] in there and row["scorer"] in sweep.scorers:
            scores.add((row["parent"], row["scorer"]))
    missing = [cell for name, cell in images.items() if name not in there]
    line = f"in {called} already: {len(there)} of {len(images)} pictures"
    if sweep.scorers:
        line += f", {len(scores)} of {len(images) * len(sweep.scorers)} scores"
    if not missing:
        return line
    extras = cost.Extras(sweep.scorers, sweep.encoders)
    return f"{line}; the rest about {cost.times(missing, locks.specs, extras, len(locks.specs))}"


def _verify(locks: Iterable[Lock]) -> None:
    for lock in locks:
        resolve.verify(lock)


def whole(cell: Cell) -> Hashable:
    """The part of the sweep that a cell belongs to: all is one."""
    return ()


def planned_cells(
    cells: list[Cell],
    locks: Locks,
    store: Store,
    limit: int,
    part_of: Callable[[Cell], Hashable] = whole,
) -> list[Planned]:
    """The sweep's cells with ids and batches of at most `limit` images, of one part each. Cells new
    to the folder are batched now, and kept. Raises RequestError where their pictures do not fit on
    the disk."""
    cells_ids = [(cell, _ids(cell, locks)) for cell in cells]
    check_room(cells_ids, store)
    batch_of, ready = store.batches(), store.ok_rows()
    # Latents from an attached output form batches of their own: new ones must not remake them.
    attached: dict[str, Cell] = {}
    missing: dict[str, Cell] = {}
    for cell, names in cells_ids:
        if names.latents not in batch_of:
            part = attached if names.latents in ready else missing
            # Latents that cells share are ordered by the last of them, as in every folder before.
            part[names.latents] = part.pop(names.latents, cell)
    number = max(batch_of.values(), default=-1) + 1
    for part in (attached, missing):
        for batch in batches(part, limit, locks.specs, part_of):
            batch_of |= dict.fromkeys(batch, number)
            number += 1
    present = {record["id"] for record in store.cells.read()}
    sizes = Counter(batch_of.values())
    planned, new = [], {}
    for cell, names in cells_ids:
        number = batch_of[names.latents]
        planned.append(item := Planned(cell, names, number, sizes[number]))
        name = item.id
        if name not in present:
            new[name] = {"id": name, "cell": vars(cell), "ids": vars(names), "batch": item.batch}
    if new:
        store.add_cells(new.values())
    return planned


def known_cells(cells: list[Cell], locks: Locks, store: Store) -> list[Planned]:
    """The sweep's cells as the folder has them planned; none where one is new to it."""
    batch_of, present = store.batches(), {record["id"] for record in store.cells.read()}
    planned = []
    for cell in cells:
        names = _ids(cell, locks)
        item = Planned(cell, names, batch_of.get(names.latents, 0))
        if names.latents not in batch_of or item.id not in present:
            return []
        planned.append(item)
    return planned


def _ids(cell: Cell, locks: Locks) -> Ids:
    model = locks.models[cell.model]
    return ids(cell, model, of_cell(cell, locks.upscalers, model))


def check_room(cells_ids: list[tuple[Cell, Ids]], store: Store) -> None:
    """Raise RequestError, with the figures, where the missing pictures do not fit on the disk."""
    sizes: dict[str, tuple[int, int]] = {}
    for cell, names in cells_ids:
        sizes[names.decoded] = cell.size
        sizes.setdefault(names.image, cell.pixels)
    needed = 0.0
    for name, (width, height) in sizes.items():
        if not store.path("upscale", name).exists():
            needed += BYTES_A_PIXEL * width * height
    free = cache.free_bytes(store.folder)
    if needed > free:
        raise RequestError(
            f"The sweep's pictures need about {cache.readable(needed)} more in"
            f" {str(store.folder)!r}, {cache.readable(free)} are free: free some, or ask for less"
        )


def batches(
    fresh: dict[str, Cell],
    limit: int,
    specs: dict[str, ModelSpec],
    part_of: Callable[[Cell], Hashable] = whole,
) -> list[list[str]]:
    """Even batches of latents ids that share model, sampler, steps, guidance, size, number format
    and part, in the order of work.

    A block of seeds goes through all models before the next begins, so that an interrupted sweep
    leaves whole comparisons. Where loading the models again for each block would cost too much,
    each model takes all its blocks at once.
    """
    groups: dict[tuple, list[str]] = {}
    for name, cell in sorted(fresh.items(), key=lambda item: item[1].seed):
        key = (cell.model, cell.sampler, cell.steps, cell.guidance, *cell.size, cell.dtype)
        groups.setdefault((*key, part_of(cell)), []).append(name)
    model_order = list(dict.fromkeys(cell.model for cell in fresh.values()))
    ordered: list[tuple[int, int, list[str]]] = []
    for (model, sampler, *_), names in groups.items():
        # The error that an adaptive sampler controls is that of its whole batch: one image each.
        most = 1 if SAMPLERS[sampler].adaptive else limit
        for block, batch in enumerate(_even(names, most)):
            ordered.append((model_order.index(model), block, batch))
    rounds = max((block + 1 for _, block, _ in ordered), default=1)
    if cost.rounds_pay(fresh.values(), specs, rounds):
        ordered.sort(key=lambda item: (item[1], item[0]))
    else:
        ordered.sort(key=lambda item: item[:2])
    return [batch for *_, batch in ordered]


def _even(names: list[str], limit: int) -> list[list[str]]:
    """The names in as few parts of at most `limit` as there can be, their sizes at most one
    apart."""
    count = -(-len(names) // limit)
    small, extra = divmod(len(names), count)
    parts, start = [], 0
    for part in range(count):
        end = start + small + (part < extra)
        parts.append(names[start:end])
        start = end
    return parts
