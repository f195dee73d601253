"""The one loop over stages: skip what exists, group the rest by tool, and file each batch's files
and rows."""

from __future__ import annotations

import contextlib
import datetime
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from realkit.base import libraries
from realkit.base.errors import RequestError
from realkit.runs import asked, environment, photographs
from realkit.runs.attach import outputs, take
from realkit.runs.engines import choose
from realkit.runs.engines.engine import Engine, Result
from realkit.runs.folder import Run
from realkit.runs.jobs import SOURCES, FileKey, Files, Job, Kit, Planned, Stage, Stored, sha256
from realkit.runs.locks import Locks
from realkit.runs.pending import pending
from realkit.runs.plan import known_cells, lock_sweep, page_of, planned_cells, whole
from realkit.runs.records import FILED
from realkit.runs.rounds import Race, Rounds
from realkit.runs.stages import stages
from realkit.runs.stages.embed import Embed
from realkit.runs.stopping import Stop
from realkit.runs.store import Row, Store
from realkit.runs.table import write
from realkit.runs.writer import Desk
from realkit.scorers.encoders import space_of
from realkit.sweeps import notices
from realkit.sweeps.cell import Cell
from realkit.sweeps.check import check_pictures, check_scorers, sweep_of
from realkit.sweeps.sweep import Sweep


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
    race: Race | None = None,
) -> Run:
    """Make what a sweep asks for and the folder lacks, as apps.compare_run.run says; of a `race`,
    what its contrasts need."""
    sweep, stop, workers = sweep_of(sweep), Stop(budget, until), choose.engine_for(engine)
    if batch is not None and (type(batch) is not int or batch < 1):
        raise RequestError(f"batch {batch!r}: expected a whole number of images from 1 on")
    sources, store = _attached(attach), Store(out)
    locks = lock_sweep(sweep, store)
    cells = sweep.cells(locks.specs)
    check_pictures(cells)
    where = {"device": device, "rung": rung}
    kit = _kit(sweep, locks, where)
    check_scorers(kit.scorers)
    for line in notices.unread(cells, locks.models, kit.scorers):
        print(line, file=sys.stderr)
    rounds = Rounds(race, cells, locks.specs, store) if race else None
    page = page_of(sweep, store)
    with store.writing(page), stop.listening(), contextlib.closing(workers):
        again = not (sources or race or batch or device or rung or sweep.photographs)
        planned = _finished(cells, locks, kit, store) if again else []
        name, machine = _new_name(), dict[str, Any]()
        if not planned:
            take(sources, store, _start(workers, name, where, store))
        asked.upgrade(store)
        if not planned:
            limit = batch or workers.batch_limit(cells[0].width * cells[0].height)
            planned = planned_cells(cells, locks, store, limit, rounds.part if rounds else whole)
            name, machine = next(iter(workers.environments.items()))
            workers.equip(kit)
        record = environment.run_record(name, machine) | {"asked": _asked(planned, sweep, kit)}
        if rounds:
            record["asked"]["race"] = rounds.name
        store.runs.append([record])
        if page:
            store.write_text(page, sweep.to_yaml())
        do = partial(_do_stages, kit, store=store, workers=workers, stop=stop)
        if rounds:
            rounds.run(planned, do, stop, name)
        elif machine:
            do(planned)
        if sweep.photographs and not stop.reason:
            hashes = locks.photographs[sweep.photographs]
            embed = partial(photographs.embed, sweep.photographs, hashes, kit=kit, stop=stop)
            sizes = [item.cell.pixels for item in planned]
            embed(sizes, store=store, environments=workers.environments, run=name)
        write(store)
        lacking = _not_embedded(kit, planned, store)
    return Run(out, asked.united([record], store), stop.reason, lacking)


def _not_embedded(kit: Kit, planned: list[Planned], store: Store) -> int:
    """The embeddings that pictures lack, said with the first reason."""
    if not kit.encoders:
        return 0
    rows, lacking, why = store.last_rows(), set(), ""
    for job in Embed(kit).jobs(planned):
        for artifact, item in zip(job.artifacts, job.planned, strict=True):
            made = rows.get(str(item.parent("embed")), {}).get("status") == "ok"
            if made and rows.get(artifact, {}).get("status") != "ok":
                lacking.add(artifact)
                why = why or rows.get(artifact, {}).get("error", "")
    if lacking:
        why = why or "the run ended before"
        print(f"Pictures not embedded: {len(lacking)}; {why}. Run again for them", file=sys.stderr)
    return len(lacking)


def _attached(attach: str | Path | Sequence[str | Path]) -> list[Traversable]:
    folders: list[Traversable] = []
    for source in [attach] if isinstance(attach, (str, Path)) else attach:
        folders += outputs(source)
    return folders


def _kit(sweep: Sweep, locks: Locks, where: dict[str, Any]) -> Kit:
    scorers = {name: locks.scorers[name] for name in sweep.scorers}
    encoders = {name: locks.encoders[name] for name in sweep.encoders}
    return Kit(locks.models, locks.upscalers, scorers, where, encoders)


def _asked(planned: list[Planned], sweep: Sweep, kit: Kit) -> dict[str, Any]:
    """What a run is asked for, as runs.jsonl records it."""
    asked: dict[str, Any] = {"cells": list(dict.fromkeys(item.id for item in planned))}
    asked["scorers"] = list(sweep.scorers)
    if kit.encoders:
        asked["encoders"] = {name: space_of(name, lock) for name, lock in kit.encoders.items()}
    return asked


def _start(workers: Engine, name: str, where: dict[str, Any], store: Store) -> dict[str, Any]:
    """Start the engine under a new run's name; the library versions of its first machine. Raises
    RequestError where the folder was made with others."""
    before = _versions(store)
    workers.start(name, where, before)
    versions = next(iter(workers.environments.values()))["versions"]
    if before:
        environment.same_versions(before, versions, f"{str(store.folder)!r} was made with")
    return versions


def _new_name() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def _versions(store: Store) -> dict[str, Any] | None:
    """The library versions that a folder was made with; None where it is empty."""
    makers = {row["run"] for row in store.rows.read() if "run" in row}
    for run in store.machines():
        if run["run"] in makers:
            return dict(run["versions"])
    return None


def _finished(cells: list[Cell], locks: Locks, kit: Kit, store: Store) -> list[Planned]:
    """The sweep's cells where the folder has all that they ask for, else none: then no engine is
    needed, nor torch, which takes seconds to load. Raises RequestError where the folder was made
    with other library versions."""
    planned = known_cells(cells, locks, store)
    if not planned or any(pending(stage, planned, store) for stage in stages(kit)):
        return []
    if before := _versions(store):
        now = libraries.versions()
        environment.same_versions(before, now, f"{str(store.folder)!r} was made with")
    return planned


def _do_stages(kit: Kit, planned: list[Planned], store: Store, workers: Engine, stop: Stop) -> None:
    """Do the pending jobs of one stage after another; while a batch is in work, the results before
    it are filed."""
    with Desk(store, workers.environments) as desk:
        for stage in stages(kit):
            if jobs := pending(stage, planned, store):
                _do_jobs(stage, jobs, desk, store, workers, stop)
            desk.settle()
            if stop.reason:
                return


def _do_jobs(
    stage: Stage, jobs: list[Job], desk: Desk, store: Store, workers: Engine, stop: Stop
) -> None:
    from tqdm import tqdm

    rows = store.last_rows() if stage.name in SOURCES else {}

    def read(job: Job) -> Files:
        files: dict[FileKey, Stored] = {}
        for item in job.planned if stage.name in SOURCES else ():
            source = item.source(stage.name)
            if source not in files:
                files[source] = _stored(store.path(*source), rows[source[1]], desk)
        return files

    most = max(map(_bytes, jobs))
    terminal = sys.stderr.isatty()
    with tqdm(
        total=sum(job.weight for job in jobs),
        desc=stage.name,
        unit="call" if jobs[0].tool.kind == "model" else "picture",
        mininterval=0.5 if terminal else 8,
        dynamic_ncols=terminal,
        postfix=str(jobs[0].tool),
        bar_format="{desc:<8} {percentage:3.0f}% {n_fmt}/{total_fmt} {unit}s, {elapsed} gone,"
        " {remaining} left{postfix}",
    ) as bar:
        stop.because(desk.room(most))
        for result in workers.work(stage.name, jobs, read, stop):
            for damaged in result.damaged:
                store.path(*damaged).unlink(missing_ok=True)
            desk.put(
                stage.name, _lacking(stage.name, result, rows, store) if stage.separable else result
            )
            stop.because(desk.room(most))
            bar.set_postfix_str(str(result.job.tool), refresh=False)
            bar.update(result.job.weight)


def _lacking(stage: str, result: Result, rows: dict[str, Row], store: Store) -> Result:
    """The result without what the folder has: a batch is done whole, for its numbers must not
    depend on what was lost of it."""
    outputs = []
    for output in result.outputs:
        name = str(output.row["id"])
        before = rows.get(name, {})
        whole = stage not in FILED or store.has_file(stage, name)
        same = before.get("status") == "ok" and before.get("parent") == output.row["parent"]
        if not (whole and same):
            outputs.append(output)
    return replace(result, outputs=outputs)


def _stored(path: Path, row: Row, desk: Desk) -> Stored:
    """An artifact's file with the hash in its row, which the stage that reads it compares.

    Latents of before folder format 2 have no hash: they are believed, and their hash recorded.
    """
    try:
        file = path.read_bytes()
    except OSError as error:
        return Stored(error)
    if path.suffix == ".png":
        return Stored(file, row.get("pixels"))
    if "sha256" not in row:
        row["sha256"] = sha256(file)
        desk.append([row])
    return Stored(file, row["sha256"])


def _bytes(job: Job) -> int:
    """Bytes that a job's files may take on the disk: uncompressed pictures, which no PNG exceeds by
    much."""
    total = 0
    for item in job.planned:
        total += 3 * max(item.cell.width * item.cell.height, math.prod(item.cell.pixels))
    return total
