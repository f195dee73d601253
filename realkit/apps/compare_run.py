"""`rk.run`: the loop over stages, and races that verdicts decide."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from realkit.analysis import race
from realkit.base.terminal import say
from realkit.runs import loop
from realkit.runs.engines.engine import Engine
from realkit.runs.folder import Run
from realkit.runs.looks import Looks, races
from realkit.sweeps.check import sweep_of
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
    decide: str | None = None,
    by: str | Sequence[str] | None = None,
) -> Run:
    """Make what a sweep asks for and the folder lacks. Run it again to resume.

    `batch` limits the images of a denoising batch; `device` and `rung` (models.ladder.RUNGS) place
    the models. Each follows from the machine where it is left out. A failed batch is a row, and
    the run continues.

    `budget` ("8h", "1h30m", seconds) and `until` (a time, ISO 8601) end the run between two
    batches, in time to write everything. SIGTERM and Ctrl-C do the same; a second Ctrl-C ends it at
    once. A full disk ends it too. `Run.stopped` then says why.

    `attach` names earlier outputs: a results folder, a zip, or a Kaggle notebook's output. Their
    rows and artifacts are verified and copied first.

    `engine` is "process" for this process or "ray" for Ray's workers on all GPUs of this machine.
    "ray:ADDRESS" means the GPUs of a cluster; a `realkit.Ray` sets more. Cells, ids, rows and
    pictures are the same with each.

    `decide` makes it a race: rounds of prompts, and after each a look at which values of `by`, an
    axis or several, are better, worse or equivalent by this metric, a scorer of the sweep or a
    measured column such as "seconds". A value whose pairs are all decided is not run on the prompts
    that remain: those cells are "skipped". Any verdict of a race is false in at most 5 % of races,
    in spite of its looks (base.racing). decisions.jsonl has each look; a race resumes from it, and
    a run without `decide` makes the rest of the grid. At its end a race prints its verdicts, and
    what the full grid would have cost.

    Raises RequestError for a wrong request, before any work.
    """
    raced = None
    if decide is not None or by is not None:
        sweep = sweep_of(sweep)
        raced = race.race_of(sweep, decide, by)
    result = loop.run(
        sweep, out, batch=batch, device=device, rung=rung, engine=engine, budget=budget,
        until=until, attach=attach, race=raced,
    )  # fmt: skip
    if raced:
        say("\n".join(race.answer(result.table(), _looks(result))))
    return result


def _looks(result: Run) -> Looks:
    """The looks of the race that a run was asked for."""
    name = result.store.asked()[-1]["asked"]["race"]
    return races(result.store).get(name, Looks([]))
