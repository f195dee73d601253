"""The plan of a run: locks, ids and batches of a sweep's cells, kept in the folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from realkit.base import cache
from realkit.base.errors import RequestError
from realkit.models import legs
from realkit.models.lock import lock_model
from realkit.models.spec import ModelSpec
from realkit.runs.locks import Locks, read_locks, write_locks
from realkit.runs.store import Store
from realkit.samplers.table import SAMPLERS
from realkit.sweeps import check, cost
from realkit.sweeps.cell import Cell
from realkit.sweeps.cost import BYTES_A_PIXEL
from realkit.sweeps.ids import Ids, cell_id, ids, of_cell
from realkit.sweeps.sweep import Sweep
from realkit.upscalers import identity, upscale
from realkit.upscalers.chain import Chain
from realkit.weights import pickles, resolve

if TYPE_CHECKING:
    from realkit.runs.jobs import Planned

PLAN_LIMIT = 8  # images a denoising batch, where no device says otherwise


def lock_sweep(sweep: Sweep, store: Store) -> Locks:
    """Locks of the sweep's models and upscalers: the folder's where it has them, else made now and
    kept."""
    kept = read_locks(store.folder)
    cells = sweep.cells({name: lock.spec for name, lock in kept.models.items()})
    new = {
        name: lock_model(name)
        for name in dict.fromkeys(cell.model for cell in cells)
        if name not in kept.models
    }
    for lock in {
        cell.model: kept.models[cell.model] for cell in cells if cell.model in kept.models
    }.values():
        for part in lock.locks:
            resolve.verify(part)
    found = kept.models | new
    for cell in cells:
        legs.check_legs(cell, found[cell.model])
        check.check_redraw(cell, found[cell.model])
    wanted = dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler)
    more = {}
    for name in wanted:
        if name not in kept.upscalers:
            chain = Chain.parse(name)
            more[name] = identity.lock_upscaler(chain)
            upscale.probe(chain, more[name])
    with pickles.reading_pickles():
        for part in [
            part
            for name in wanted
            if name in kept.upscalers
            for part in kept.upscalers[name].values()
        ]:
            resolve.verify(part)
    locks = Locks(found, kept.upscalers | more)
    if new or more:
        with store.writing():
            write_locks(store, locks)
    return locks


def check_room(made: list[tuple[Cell, Ids]], store: Store) -> None:
    """Raise RequestError, with the figures, where the pictures that are not there yet do not fit on
    the disk."""
    sides = {got.decoded: (cell.width, cell.height) for cell, got in made} | {
        got.image: cell.pixels for cell, got in made
    }
    needed = sum(
        BYTES_A_PIXEL * width * height
        for name, (width, height) in sides.items()
        if not store.path("upscale", name).exists()
    )
    if needed > (free := cache.free_bytes(store.folder)):
        raise RequestError(
            f"The sweep's pictures need about {needed / 2**30:.1f} GiB more in"
            f" {str(store.folder)!r}, {free / 2**30:.1f} GiB are free: free some, or ask for less"
        )


def planned_cells(cells: list[Cell], locks: Locks, store: Store, limit: int) -> list[Planned]:
    """The sweep's cells with ids and batches; those new to the folder are batched now and kept."""
    from realkit.runs.jobs import Planned

    kept = {line["id"]: line for line in store.cells.read()}
    batch_of = {line["ids"]["latents"]: line["batch"] for line in kept.values()}
    made = [
        (
            cell,
            ids(
                cell,
                locks.models[cell.model],
                of_cell(cell, locks.upscalers, locks.models[cell.model]),
            ),
        )
        for cell in cells
    ]
    check_room(made, store)
    fresh = {got.latents: cell for cell, got in reversed(made) if got.latents not in batch_of}
    attached = {
        name for name, row in store.last_rows().items() if row["status"] == "ok"
    } & fresh.keys()  # made elsewhere: not to be made again with what is new
    specs = {name: lock.spec for name, lock in locks.models.items()}
    for kind in (attached, fresh.keys() - attached):
        some = {name: cell for name, cell in reversed(fresh.items()) if name in kind}
        for number, batch in enumerate(
            batches(some, limit, specs), max(batch_of.values(), default=-1) + 1
        ):
            batch_of |= dict.fromkeys(batch, number)
    planned = [Planned(cell, got, batch_of[got.latents]) for cell, got in made]
    lines = [
        {
            "id": cell_id(p.cell, p.ids),
            "cell": asdict(p.cell),
            "ids": asdict(p.ids),
            "batch": p.batch,
        }
        for p in planned
    ]
    new = [line for line in {line["id"]: line for line in lines}.values() if line["id"] not in kept]
    if new:
        store.add_cells(new)
    return planned


def batches(fresh: dict[str, Cell], limit: int, specs: dict[str, ModelSpec]) -> list[list[str]]:
    """Even batches of latents ids that share model, sampler, steps, guidance and size: block after
    block of seeds.

    A block goes through all models before the next begins, so that an interrupted sweep leaves
    whole comparisons; where reading the models again for each block would cost too much, each model
    takes all its blocks at once.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for artifact, cell in sorted(fresh.items(), key=lambda item: item[1].seed):
        groups.setdefault(
            (
                cell.model,
                cell.sampler,
                cell.steps,
                cell.guidance,
                cell.width,
                cell.height,
                cell.dtype,
            ),
            [],
        ).append(artifact)
    model_order = list(dict.fromkeys(cell.model for cell in fresh.values()))
    ordered: list[tuple[int, int, list[str]]] = []
    for key, artifacts in groups.items():
        count = -(
            -len(artifacts) // (1 if SAMPLERS[key[1]].adaptive else limit)
        )  # an adaptive sampler's error spans its batch
        small, extra = divmod(len(artifacts), count)
        start = 0
        for block in range(count):
            end = start + small + (block < extra)
            ordered.append((model_order.index(key[0]), block, artifacts[start:end]))
            start = end
    most = max((block + 1 for _, block, _ in ordered), default=1)
    if cost.rounds_pay(fresh.values(), specs, most):
        return [artifacts for *_, artifacts in sorted(ordered, key=lambda item: (item[1], item[0]))]
    return [artifacts for *_, artifacts in sorted(ordered, key=lambda item: item[:2])]
