"""Checks of a sweep before anything expensive starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.models import legs
from realkit.models.lock import ModelLock, lock_model
from realkit.scorers.encoders import lock_encoder
from realkit.scorers.references import Locks
from realkit.scorers.score import determined_score, lock_scorer
from realkit.sweeps import notices, photographs
from realkit.sweeps.cell import Cell
from realkit.sweeps.ids import settings_of
from realkit.sweeps.sweep import Sweep
from realkit.upscalers import upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.identity import lock_upscaler, redraws_with


def plan(sweep: Sweep | dict[str, Any] | str | Path) -> str:
    """Check a sweep as a run would, and describe it. Locks references, loads no weights."""
    sweep = sweep_of(sweep)
    locks: dict[str, ModelLock] = {}
    for cell in sweep.cells():
        if cell.model not in locks:
            locks[cell.model] = lock_model(cell.model)
    cells = sweep.cells({name: lock.spec for name, lock in locks.items()})
    for cell in cells:
        legs.check_legs(cell, locks[cell.model])
        check_redraw(cell, locks[cell.model])
    for name in dict.fromkeys(cell.upscaler for cell in cells if cell.upscaler):
        lock_upscaler(Chain.parse(name))
    check_pictures(cells)
    scorers = {name: lock_scorer(name) for name in sweep.scorers}
    check_scorers(scorers)
    for name in sweep.encoders:
        lock_encoder(name)
    if sweep.photographs:
        photographs.lock(sweep.photographs)
    return "\n".join([sweep.describe(), *notices.unread(cells, locks, scorers)])


def sweep_of(sweep: Sweep | dict[str, Any] | str | Path) -> Sweep:
    """A sweep from itself, its arguments, or the path of its YAML file."""
    if isinstance(sweep, Sweep):
        return sweep
    if not isinstance(sweep, dict):
        return Sweep.from_yaml(sweep)
    return Sweep(**{str(key): value for key, value in sweep.items()})


def check_redraw(cell: Cell, model: ModelLock) -> None:
    """Raise RequestError where a cell's upscaler redraws, and its model, sampler or another
    setting cannot."""
    if cell.upscaler is None or not (chain := Chain.parse(cell.upscaler)).redraws:
        return
    from realkit.upscalers import redraw  # loads numpy

    settings_of(cell, chain)
    for part in chain.parts:
        if part.engine.redraws:
            redraw.check(redraws_with(part, model), cell.sampler, cell.steps)


def check_scorers(scorers: Mapping[str, Locks]) -> None:
    """Raise RequestError where two names mean one scorer: their numbers would bear one id."""
    names_by_result: dict[str, str] = {}
    for name, locks in scorers.items():
        result = json.dumps(determined_score(name, locks), sort_keys=True)
        other = names_by_result.setdefault(result, name)
        if other != name:
            raise RequestError(f"Scorers {other!r} and {name!r} are one scorer: name one of them")


def check_pictures(cells: list[Cell]) -> None:
    """Raise RequestError, with the figures, where memory cannot hold an upscaler's pictures."""
    upscales = ((cell.upscaler, cell.size, cell.pixels) for cell in cells if cell.upscaler)
    for name, native, size in dict.fromkeys(upscales):
        chain = Chain.parse(name)
        scales = [part.entry.scale for part in chain.parts]
        upscale.check_memory(chain, native, size, scales)
