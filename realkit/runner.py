"""The one loop: what exists is not made again, work is grouped by what it loads, each batch leaves files and rows."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from realkit import attach as attaching
from realkit import cost, downloads, engines, enlarging, filing, hub, measure, models, pipelines, scorers, table, upscalers
from realkit import locks as locking
from realkit.errors import RequestError
from realkit.locks import Locks
from realkit.samplers import SAMPLERS
from realkit.stopping import Stop
from realkit.store import Store
from realkit.sweep import Cell, Ids, Sweep, cell_id, ids

if TYPE_CHECKING:
    import pandas as pd

    from realkit.engines import Engine
    from realkit.stages import Files, Job, Kit, Planned, Stage

PLAN_LIMIT = 8  # images a denoising batch, where no device says otherwise


class Run:
    """A results folder: after a run, the cells that its sweep asked for; read later, all it holds."""

    def __init__(self, folder: str | Path, cells: frozenset[str] | None = None, scorers: tuple[str, ...] | None = None, stopped: str = "") -> None:
        self.stopped = stopped  # why it ended before its work did; "": it did not
        self.folder = Path(folder)
        self.store = Store(folder)
        self._cells, self._scorers = cells, scorers

    def table(self) -> pd.DataFrame:
        """One line a cell: settings, seconds and memory a stage, scores, status."""
        frame = table.build(self.store, self._cells, self._scorers)
        frame.attrs["folder"] = str(self.folder)
        return frame

    @property
    def failed(self) -> int:
        """Cells of which some stage failed."""
        return int((self.table()["status"] == "failed").sum())

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def read(folder: str | Path) -> Run:
    """A results folder as it stands, without torch. Raises RequestError when it is none."""
    if not (Path(folder) / "cells.jsonl").is_file():
        raise RequestError(f"{str(folder)!r} is no results folder: it has no cells.jsonl")
    return Run(folder)


def run(
    sweep: Sweep | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    batch: int | None = None,
    device: Literal["cuda", "cpu"] | None = None,
    rung: str | None = None,
    engine: str | Engine = "process",
    budget: str | float | None = None,
    until: str | datetime.datetime | None = None,
    attach: str | Path | Sequence[str | Path] = (),
) -> Run:
    """Make what a sweep asks for and the folder does not hold yet; run again to go on where it stopped.

    `batch` limits the images of a denoising batch, `device` and `rung` (placement.RUNGS) say where models run and how much of them stays on
    the device; all three follow from what the machine has where they are left out. Raises RequestError before anything is
    loaded when the request is wrong; a failure of one batch is a row, and the rest goes on.

    `budget` ("8h", "1h30m", seconds) and `until` (a time, ISO 8601) end it between two batches in time to write everything; SIGTERM and Ctrl-C do the same, a
    second Ctrl-C ends it at once. `Run.stopped` then says why; so it does where the disk gets full. `attach` names earlier outputs (a results folder, a zip, a Kaggle notebook's output), whose rows
    and artifacts are verified and taken up first.

    `engine` says who does the work: "process" is this one, "ray" Ray's workers on all GPUs of this machine, "ray:ADDRESS" on those of a cluster (realkit.cluster.Ray
    sets more). Cells, ids, rows and pictures are the same.
    """
    sweep, stop, workers = _sweep(sweep), Stop(budget, until), engines.chosen(engine)
    if batch is not None and (type(batch) is not int or batch < 1):
        raise RequestError(f"batch {batch!r}: expected a whole number of images from 1 on")
    earlier = [output for source in ([attach] if isinstance(attach, (str, Path)) else attach) for output in attaching.outputs(source)]
    store = Store(out)
    locks = _lock(sweep, store)
    cells = sweep.cells({name: lock.spec for name, lock in locks.models.items()})
    _memory(cells)
    _distinct(sweep.scorers)
    where = {"device": device, "rung": rung}
    with store.writing(), stop.listening(), contextlib.closing(workers):
        from realkit.stages import Kit

        name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        before = store.runs.read()
        workers.start(name, where, before[0]["versions"] if before else None)
        versions = next(iter(workers.environments.values()))["versions"]
        if before:
            measure.same_versions(before[0]["versions"], versions, f"{str(store.folder)!r} was made with")
        attaching.take(earlier, store, versions)
        planned = _plan(cells, locks, store, batch or workers.batch_limit(cells[0].width * cells[0].height))
        store.write_text("sweep.yaml", sweep.to_yaml())
        _stages(Kit(locks.models, locks.upscalers, {scorer: scorers.lock(scorer) for scorer in sweep.scorers}, where), planned, store, workers, stop)
        table.write(store)
    return Run(out, frozenset(cell_id(item.cell, item.ids) for item in planned), tuple(sweep.scorers), stop.reason)


def plan(sweep: Sweep | dict[str, Any] | str | Path) -> str:
    """What a run of the sweep would do, without doing it: locks references, loads nothing."""
    sweep = _sweep(sweep)
    locks = {name: models.lock(name) for name in {cell.model for cell in sweep.cells()}}
    cells = sweep.cells({name: lock.spec for name, lock in locks.items()})
    for cell in cells:
        pipelines.check(cell, locks[cell.model])
        enlarging.check(cell, locks[cell.model])
    for name in dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler):
        upscalers.lock(name)
    _memory(cells)
    _distinct(sweep.scorers)
    return sweep.describe()


def _sweep(sweep: Sweep | dict[str, Any] | str | Path) -> Sweep:
    if isinstance(sweep, Sweep):
        return sweep
    return Sweep(**sweep) if isinstance(sweep, dict) else Sweep.from_yaml(sweep)


def _lock(sweep: Sweep, store: Store) -> Locks:
    """Locks of the sweep's models and upscalers: the folder's where it has them, else made now and kept."""
    kept = locking.read(store.folder)
    cells = sweep.cells({name: lock.spec for name, lock in kept.models.items()})
    new = {name: models.lock(name) for name in dict.fromkeys(cell.model for cell in cells) if name not in kept.models}
    for lock in {cell.model: kept.models[cell.model] for cell in cells if cell.model in kept.models}.values():
        for part in lock.locks:
            hub.verify(part)
    found = kept.models | new
    for cell in cells:
        pipelines.check(cell, found[cell.model])
        enlarging.check(cell, found[cell.model])
    wanted = dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler)
    more = {name: upscalers.lock(name) for name in wanted if name not in kept.upscalers}
    for name, tools in more.items():
        enlarging.probe(name, tools)
    with hub.reading_pickles():
        for part in [part for name in wanted if name in kept.upscalers for part in kept.upscalers[name].values()]:
            hub.verify(part)
    locks = Locks(found, kept.upscalers | more)
    if new or more:
        with store.writing():
            locking.write(store, locks)
    return locks


def _distinct(names: Sequence[str]) -> None:
    """Raise RequestError where two scorers are one: their numbers would bear one id."""
    known: dict[str, str] = {}
    for name in names:
        if (other := known.setdefault(json.dumps(scorers.determined(name), sort_keys=True), name)) != name:
            raise RequestError(f"Scorers {other!r} and {name!r} are the same by two names: expected different ones, name one of them")


def _memory(cells: list[Cell]) -> None:
    """Raise RequestError, with the figures, where the pictures that upscalers make cannot be held."""
    for name, width, height, size in {(cell.upscaler, cell.width, cell.height, cell.pixels) for cell in cells if cell.upscaler}:
        enlarging.check_memory(name, (width, height), size, [(spec.engine, spec.scale) for _, spec in upscalers.chain(name)])


def _room(made: list[tuple[Cell, Ids]], store: Store) -> None:
    """Raise RequestError, with the figures, where the pictures that are not there yet do not fit on the disk."""
    sides = {got.decoded: (cell.width, cell.height) for cell, got in made} | {got.image: cell.pixels for cell, got in made}
    needed = sum(cost.BYTES_A_PIXEL * width * height for name, (width, height) in sides.items() if not store.path("upscale", name).exists())
    if needed > (free := downloads.free(store.folder)):
        raise RequestError(
            f"The sweep's pictures need about {needed / 2**30:.1f} GiB more in {str(store.folder)!r}, {free / 2**30:.1f} GiB are free: free some, or ask for less"
        )


def _plan(cells: list[Cell], locks: Locks, store: Store, limit: int) -> list[Planned]:
    """The sweep's cells with ids and batches; those new to the folder are batched now and kept."""
    from realkit.stages import Planned

    kept = {line["id"]: line for line in store.cells.read()}
    batch_of = {line["ids"]["latents"]: line["batch"] for line in kept.values()}
    made = [(cell, ids(cell, locks.models[cell.model], upscalers.of_cell(cell, locks.upscalers, locks.models[cell.model]))) for cell in cells]
    _room(made, store)
    fresh = {got.latents: cell for cell, got in reversed(made) if got.latents not in batch_of}
    attached = {
        name for name, row in store.last_rows().items() if row["status"] == "ok"
    } & fresh.keys()  # made elsewhere: not to be made again with what is new
    specs = {name: lock.spec for name, lock in locks.models.items()}
    for kind in (attached, fresh.keys() - attached):
        some = {name: cell for name, cell in reversed(fresh.items()) if name in kind}
        for number, batch in enumerate(_batches(some, limit, specs), max(batch_of.values(), default=-1) + 1):
            batch_of |= dict.fromkeys(batch, number)
    planned = [Planned(cell, got, batch_of[got.latents]) for cell, got in made]
    lines = [{"id": cell_id(p.cell, p.ids), "cell": asdict(p.cell), "ids": asdict(p.ids), "batch": p.batch} for p in planned]
    new = [line for line in {line["id"]: line for line in lines}.values() if line["id"] not in kept]
    if new:
        store.add_cells(new)
    return planned


def _batches(fresh: dict[str, Cell], limit: int, specs: dict[str, models.ModelSpec]) -> list[list[str]]:
    """Even batches of latents ids that share model, sampler, steps, guidance and size: block after block of seeds.

    A block goes through all models before the next begins, so that an interrupted sweep leaves whole comparisons; where reading
    the models again for each block would cost too much, each model takes all its blocks at once.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for artifact, cell in sorted(fresh.items(), key=lambda item: item[1].seed):
        groups.setdefault((cell.model, cell.sampler, cell.steps, cell.guidance, cell.width, cell.height, cell.dtype), []).append(artifact)
    model_order = list(dict.fromkeys(cell.model for cell in fresh.values()))
    ordered: list[tuple[int, int, list[str]]] = []
    for key, artifacts in groups.items():
        count = -(-len(artifacts) // (1 if SAMPLERS[key[1]].adaptive else limit))  # an adaptive sampler's error spans its batch
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


def _pending(stage: Stage, planned: list[Planned], store: Store) -> list[Job]:
    """Jobs of a stage of which something is missing, whose parents are there."""
    rows = store.last_rows()

    def done(artifact: str, kind: str) -> bool:
        return rows.get(artifact, {}).get("status") == "ok" and (kind == "score" or store.has(kind, artifact))

    def ready(job: Job) -> Job | None:
        """The job without what has nothing to begin from: its row says why."""
        parent = engines.PARENTS[stage.name]
        if parent is None:
            return job
        kept = [number for number, item in enumerate(job.planned) if rows.get(getattr(item.ids, parent), {}).get("status") == "ok"]
        makes, items = tuple(job.makes[number] for number in kept), tuple(job.planned[number] for number in kept)
        return replace(job, makes=makes, planned=items, weight=job.weight * len(kept) // len(job.planned)) if kept else None

    needed: set[str] | None = None
    if stage.name in ("denoise", "refine", "decode"):  # what comes before a picture that is there is not made again
        unfinished = [item.ids for item in planned if not done(item.ids.image, "upscale")]
        if stage.name != "decode":
            unfinished = [ids for ids in unfinished if not done(ids.decoded, "decode")]
        if stage.name == "denoise":
            unfinished = [ids for ids in unfinished if not ids.begun or not done(ids.latents, "refine")]
        needed = {ids.decoded if stage.name == "decode" else ids.begun or ids.latents if stage.name == "denoise" else ids.latents for ids in unfinished}

    def lacking(job: Job) -> bool:
        return any(not done(made, stage.name) and (needed is None or made in needed) for made in job.makes)

    return [job for whole in stage.jobs(planned) if (job := ready(whole)) and lacking(job)]


def _stages(kit: Kit, planned: list[Planned], store: Store, workers: Engine, stop: Stop) -> None:
    """One stage after another: what is lacking is done, and filed while the next is in work. A failure is a row."""
    from tqdm import tqdm

    from realkit.stages import stages

    workers.equip(kit)
    terminal = sys.stderr.isatty()
    with filing.Desk(store, workers.environments) as desk:
        for stage in stages(kit):
            if not (jobs := _pending(stage, planned, store)):
                continue
            with tqdm(
                total=sum(job.weight for job in jobs), desc=stage.name, unit="call" if stage.name in ("denoise", "refine") else "picture",
                mininterval=0.5 if terminal else 8, dynamic_ncols=terminal, leave=True, postfix=jobs[0].tool,
                bar_format="{desc:<8} {percentage:3.0f}% {n_fmt}/{total_fmt} {unit}s, {elapsed} gone, {remaining} left{postfix}",
            ) as bar:  # fmt: skip
                left = max(map(_bytes, jobs))
                stop.because(desk.room(left))
                for result in workers.work(stage.name, jobs, partial(_read, stage, store), stop):
                    for damaged in result.damaged:
                        store.path(*damaged).unlink(missing_ok=True)
                    desk.put(stage.name, result)
                    stop.because(desk.room(left))
                    bar.set_postfix_str(result.job.tool, refresh=False)
                    bar.update(result.job.weight)
            desk.settle()
            if stop.reason:
                return


def _read(stage: Stage, store: Store, job: Job) -> Files:
    return {(of, artifact): store.path(of, artifact).read_bytes() for of, artifact in stage.reads(job)}


def _bytes(job: Job) -> int:
    """What filing a job may take on the disk: each picture as it is, which no PNG exceeds by much."""
    return sum(3 * max(item.cell.width * item.cell.height, math.prod(item.cell.pixels)) for item in job.planned)
