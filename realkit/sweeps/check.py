"""Checks of a sweep before anything expensive starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.models import legs
from realkit.models.lock import ModelLock, lock_model
from realkit.scorers.score import determined_score
from realkit.sweeps.cell import Cell
from realkit.sweeps.sweep import Sweep
from realkit.upscalers import identity, redraw, upscale
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import chain


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
    for name in {cell.upscaler for cell in cells} - {None}:
        identity.lock_upscaler(str(name))
    check_pictures(cells)
    check_scorers(sweep.scorers)
    return sweep.describe()


def sweep_of(sweep: Sweep | dict[str, Any] | str | Path) -> Sweep:
    """A sweep from itself, its arguments, or the path of its YAML file."""
    if isinstance(sweep, Sweep):
        return sweep
    return Sweep(**sweep) if isinstance(sweep, dict) else Sweep.from_yaml(sweep)


def check_redraw(cell: Cell, model: ModelLock) -> None:
    """Raise RequestError where a cell's upscaler redraws with a model that cannot redraw."""
    for name, spec in chain(cell.upscaler) if cell.upscaler else ():
        if spec.engine == "redraw":
            lock = identity.redraws_with(name, spec, Settings(), model)
            redraw.check(lock, cell.sampler, cell.steps)


def check_scorers(names: Sequence[str]) -> None:
    """Raise RequestError where two names mean one scorer: their numbers would bear one id."""
    names_by_result: dict[str, str] = {}
    for name in names:
        result = json.dumps(determined_score(name), sort_keys=True)
        other = names_by_result.setdefault(result, name)
        if other != name:
            raise RequestError(f"Scorers {other!r} and {name!r} are one scorer: name one of them")


def check_pictures(cells: list[Cell]) -> None:
    """Raise RequestError, with the figures, where memory cannot hold an upscaler's pictures."""
    upscales = ((cell.upscaler, cell.size, cell.pixels) for cell in cells if cell.upscaler)
    for name, native, size in dict.fromkeys(upscales):
        tools: list[tuple[str, int]] = [(spec.engine, spec.scale) for _, spec in chain(name)]
        upscale.check_memory(name, native, size, tools)
