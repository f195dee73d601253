"""Which cases of a long table the fast tests run. The rest repeat their code paths and run as slow
tests."""

from collections.abc import Iterable
from typing import Any

import pytest

import realkit as rk


def thinned(cases: Iterable[Any], fast: Iterable[Any]) -> list[Any]:
    """All the cases, of which those outside `fast` are slow tests."""
    marked, fast = [], list(fast)
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if case in fast else pytest.mark.slow))
    return marked


def solvers() -> list[str]:
    """Each solver and each diffusers scheduler once, under its first schedule."""
    first: dict[tuple[Any, ...], str] = {}
    for name, spec in rk.SAMPLERS.items():
        variant = spec.settings.get("heun"), spec.overrides.get("solver_type")
        first.setdefault((spec.solver or spec.scheduler, *variant), name)
    return list(first.values())


def representatives() -> list[str]:
    """Each solver once, and each schedule once by each kind of code that lays it out.

    Euler lays a schedule out plainly. DPM2 drops its last level but one. The schedules of DEIS and
    UniPC are laid out by diffusers.
    """
    names = set(solvers())
    for name, spec in rk.SAMPLERS.items():
        if spec.solver in ("euler", "dpm_2") or not spec.solver:
            names.add(name)
    return [name for name in rk.SAMPLERS if name in names]
