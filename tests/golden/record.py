"""The golden ids, and how new cells are added to them: `python -m tests.golden.record`.

ID_VERSION stays 1 for ever, so an id once recorded never changes: a sweep may be added to
tests/golden/sweeps.py, and this adds its cells to ids.json. It refuses to change what is there.
One id was replaced by hand: the score `clip`, when its source became ViT-L-14-quickgelu:openai.
Under the old one open_clip ≥ 3 built another activation around the weights: its numbers were wrong.
`--print` writes the ids as the code gives them now to the standard output, and changes nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from tests.golden import materials
from tests.golden.sweeps import SWEEPS

PATH = Path(__file__).with_name("ids.json")
Cells = list[dict[str, Any]]


def planned(sweep: dict[str, Any], folder: Path) -> Cells:
    """The lines that a run of the sweep adds to cells.jsonl, each with the ids of its scores.

    The one place that knows the code's inside: a refactoring adapts this function alone.
    """
    import realkit as rk
    from realkit.models.lock import lock_model
    from realkit.runs import plan
    from realkit.runs.jobs import Kit
    from realkit.runs.locks import Locks
    from realkit.runs.stages.score import Score
    from realkit.runs.store import Store
    from realkit.upscalers.chain import Chain
    from realkit.upscalers.identity import lock_upscaler

    asked = rk.Sweep(**sweep)
    locks, store = Locks(), Store(folder)
    for cell in asked.cells():
        if cell.model not in locks.models:
            locks.models[cell.model] = lock_model(cell.model)
        if cell.upscaler and cell.upscaler not in locks.upscalers:
            locks.upscalers[cell.upscaler] = lock_upscaler(Chain.parse(cell.upscaler))
    cells = asked.cells({name: lock.spec for name, lock in locks.models.items()})
    items = plan.planned_cells(cells, locks, store, limit=8)
    lines = store.cells.read()
    for line, item in zip(lines, items, strict=True):
        kit = Kit({}, {}, dict.fromkeys(asked.scorers), {})
        line["scores"] = {job.tool.name: job.artifacts[0] for job in Score(kit).jobs([item])}
        del line["batch"]  # recorded by a run, no part of what names a result
    return lines


def current() -> dict[str, Cells]:
    """The cells of each sweep as the code plans them now. Changes this process's folder."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place).resolve(), Path.cwd()
        materials.write(folder)
        materials.enter(folder)
        try:
            cells = {}
            for number, (name, sweep) in enumerate(SWEEPS.items()):
                cells[name] = planned(sweep, folder / "plans" / str(number))
            return cells
        finally:
            os.chdir(home)  # Windows removes no folder that a process is in


def stored() -> dict[str, Cells]:
    return json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}


def extended(before: dict[str, Cells], new: dict[str, Cells]) -> dict[str, Cells]:
    """What was recorded, with the sweeps that are new. Raises ClickException for a change."""
    for name, cells in before.items():
        if new.get(name) != cells:
            advice = "restore the code or the sweep, or add a sweep of another name"
            raise click.ClickException(f"Cells of {name!r} differ: ids never change, {advice}")
    return before | new


def written(golden: dict[str, Cells]) -> str:
    """JSON with a line for each cell, so that a difference shows as lines."""
    blocks = []
    for name, cells in golden.items():
        lines = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in cells)
        blocks.append(f"{json.dumps(name)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


@click.command(help=__doc__)
@click.option("--print", "shown", is_flag=True, help="Write the ids of now, change nothing.")
def main(shown: bool) -> None:
    new = json.loads(written(current()))  # as a file holds it: lists for tuples
    if shown:
        click.echo(written(new), nl=False)
        return
    before = stored()
    golden = extended(before, new)
    PATH.write_text(written(golden), encoding="utf-8")
    click.echo(f"{len(new) - len(before)} sweeps added, {len(before)} as they were")


if __name__ == "__main__":
    main()
