"""The one loop: what exists is not made again, work is grouped by what it loads, each batch leaves
files and rows."""

from __future__ import annotations

import contextlib
import datetime
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from realkit.base.errors import RequestError
from realkit.runs import environment
from realkit.runs.attach import outputs, take
from realkit.runs.engines import choose
from realkit.runs.engines.batch import PARENTS
from realkit.runs.folder import Run
from realkit.runs.plan import lock_sweep, planned_cells
from realkit.runs.stopping import Stop
from realkit.runs.store import Store
from realkit.runs.table import write
from realkit.runs.writer import Desk
from realkit.scorers.score import lock_scorer
from realkit.sweeps.check import check_pictures, check_scorers, sweep_of
from realkit.sweeps.ids import cell_id
from realkit.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from realkit.runs.engines.batch import Engine
    from realkit.runs.jobs import Files, Job, Kit, Planned, Stage


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
    """Make what a sweep asks for and the folder does not hold yet; run again to go on where it
    stopped.

    `batch` limits the images of a denoising batch, `device` and `rung` (placement.RUNGS) say where
    models run and how much of them stays on the device; all three follow from what the machine has
    where they are left out. Raises RequestError before anything is loaded when the request is
    wrong; a failure of one batch is a row, and the rest goes on.

    `budget` ("8h", "1h30m", seconds) and `until` (a time, ISO 8601) end it between two batches in
    time to write everything; SIGTERM and Ctrl-C do the same, a second Ctrl-C ends it at once.
    `Run.stopped` then says why; so it does where the disk gets full. `attach` names earlier outputs
    (a results folder, a zip, a Kaggle notebook's output), whose rows and artifacts are verified and
    taken up first.

    `engine` says who does the work: "process" is this one, "ray" Ray's workers on all GPUs of this
    machine, "ray:ADDRESS" on those of a cluster (realkit.runs.engines.ray.Ray sets more). Cells,
    ids, rows and pictures are the same.
    """
    sweep, stop, workers = sweep_of(sweep), Stop(budget, until), choose.engine_for(engine)
    if batch is not None and (type(batch) is not int or batch < 1):
        raise RequestError(f"batch {batch!r}: expected a whole number of images from 1 on")
    earlier = [
        output
        for source in ([attach] if isinstance(attach, (str, Path)) else attach)
        for output in outputs(source)
    ]
    store = Store(out)
    locks = lock_sweep(sweep, store)
    cells = sweep.cells({name: lock.spec for name, lock in locks.models.items()})
    check_pictures(cells)
    check_scorers(sweep.scorers)
    where = {"device": device, "rung": rung}
    with store.writing(), stop.listening(), contextlib.closing(workers):
        from realkit.runs.jobs import Kit

        name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        before = store.runs.read()
        workers.start(name, where, before[0]["versions"] if before else None)
        versions = next(iter(workers.environments.values()))["versions"]
        if before:
            environment.same_versions(
                before[0]["versions"], versions, f"{str(store.folder)!r} was made with"
            )
        take(earlier, store, versions)
        planned = planned_cells(
            cells, locks, store, batch or workers.batch_limit(cells[0].width * cells[0].height)
        )
        store.write_text("sweep.yaml", sweep.to_yaml())
        _stages(
            Kit(
                locks.models,
                locks.upscalers,
                {scorer: lock_scorer(scorer) for scorer in sweep.scorers},
                where,
            ),
            planned,
            store,
            workers,
            stop,
        )
        write(store)
    return Run(
        out,
        frozenset(cell_id(item.cell, item.ids) for item in planned),
        tuple(sweep.scorers),
        stop.reason,
    )


def _pending(stage: Stage, planned: list[Planned], store: Store) -> list[Job]:
    """Jobs of a stage of which something is missing, whose parents are there."""
    rows = store.last_rows()

    def done(artifact: str, kind: str) -> bool:
        return rows.get(artifact, {}).get("status") == "ok" and (
            kind == "score" or store.has(kind, artifact)
        )

    def ready(job: Job) -> Job | None:
        """The job without what has nothing to begin from: its row says why."""
        parent = PARENTS[stage.name]
        if parent is None:
            return job
        kept = [
            number
            for number, item in enumerate(job.planned)
            if rows.get(getattr(item.ids, parent), {}).get("status") == "ok"
        ]
        makes, items = (
            tuple(job.makes[number] for number in kept),
            tuple(job.planned[number] for number in kept),
        )
        return (
            replace(
                job, makes=makes, planned=items, weight=job.weight * len(kept) // len(job.planned)
            )
            if kept
            else None
        )

    needed: set[str] | None = None
    if stage.name in (
        "denoise",
        "refine",
        "decode",
    ):  # what comes before a picture that is there is not made again
        unfinished = [item.ids for item in planned if not done(item.ids.image, "upscale")]
        if stage.name != "decode":
            unfinished = [ids for ids in unfinished if not done(ids.decoded, "decode")]
        if stage.name == "denoise":
            unfinished = [
                ids for ids in unfinished if not ids.begun or not done(ids.latents, "refine")
            ]
        needed = {
            (
                ids.decoded
                if stage.name == "decode"
                else ids.begun or ids.latents
                if stage.name == "denoise"
                else ids.latents
            )
            for ids in unfinished
        }

    def lacking(job: Job) -> bool:
        return any(
            not done(made, stage.name) and (needed is None or made in needed) for made in job.makes
        )

    return [job for whole in stage.jobs(planned) if (job := ready(whole)) and lacking(job)]


def _stages(kit: Kit, planned: list[Planned], store: Store, workers: Engine, stop: Stop) -> None:
    """One stage after another: what is lacking is done, and filed while the next is in work. A
    failure is a row."""
    from tqdm import tqdm

    from realkit.runs.stages import stages

    workers.equip(kit)
    terminal = sys.stderr.isatty()
    with Desk(store, workers.environments) as desk:
        for stage in stages(kit):
            if not (jobs := _pending(stage, planned, store)):
                continue
            with tqdm(
                total=sum(job.weight for job in jobs),
                desc=stage.name,
                unit="call" if stage.name in ("denoise", "refine") else "picture",
                mininterval=0.5 if terminal else 8,
                dynamic_ncols=terminal,
                leave=True,
                postfix=jobs[0].tool,
                bar_format=(
                    "{desc:<8} {percentage:3.0f}% {n_fmt}/{total_fmt} {unit}s, {elapsed} gone,"
                    " {remaining} left{postfix}"
                ),
            ) as bar:
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
    return {
        (of, artifact): store.path(of, artifact).read_bytes() for of, artifact in stage.reads(job)
    }


def _bytes(job: Job) -> int:
    """What filing a job may take on the disk: each picture as it is, which no PNG exceeds by
    much."""
    return sum(
        3 * max(item.cell.width * item.cell.height, math.prod(item.cell.pixels))
        for item in job.planned
    )
