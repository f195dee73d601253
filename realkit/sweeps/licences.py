"""Licences that restrict what may be done with a sweep's pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from realkit.catalog.suites import PROMPTS, SUITE
from realkit.models.spec import ModelSpec
from realkit.sweeps.cell import Cell
from realkit.upscalers.chain import Chain

RESTRICTING = {"no": "not commercial", "conditions": "commercial on conditions"}


def restricting(cells: Iterable[Cell], specs: Mapping[str, ModelSpec]) -> list[str]:
    """A line that names each model, upscaler and prompt suite of a sweep whose licence forbids
    commercial use or sets conditions; none where there is none."""
    licences = {name: (spec.licence, spec.commercial) for name, spec in specs.items()}
    prompts: dict[str, None] = {}
    upscalers: dict[str, None] = {}
    for cell in cells:
        prompts[cell.prompt] = None
        if cell.upscaler:
            upscalers[cell.upscaler] = None
    for name in upscalers:
        for part in Chain.parse(name).parts:
            licences[part.name] = part.entry.licence, part.entry.commercial
    for name, suite in PROMPTS.items():
        if suite.commercial in RESTRICTING and not prompts.keys().isdisjoint(suite.prompts):
            licences[f"{SUITE}{name}"] = suite.licence, suite.commercial
    named = []
    for name, (licence, commercial) in licences.items():
        if commercial in RESTRICTING:
            named.append(f"{name} ({licence}, {RESTRICTING[commercial]})")
    return [f"licences that restrict: {', '.join(named)}"] if named else []
