"""Does the code still make the same results? Recorded before a change, after it, and compared.

    python -m tests.same_results record BEFORE.json
    python -m tests.same_results record AFTER.json
    python -m tests.same_results compare BEFORE.json AFTER.json

`record` works in a temporary folder. It runs the demo notebook with few seeds and steps, the golden
sweeps that a CPU can run, and single calls. It keeps hashes of pixels and latents, cells, and
tables without times, memory, runs and paths. Record both on one machine: another processor rounds
differently.

Only the public names and the files of a results folder are used. So this file, tests/golden/ and
tests/originals.py, copied into a checkout of older code, record what that code makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tests.golden import materials
from tests.golden.sweeps import BASE, CUBE, RUNNABLE

ROOT = Path(__file__).resolve().parent.parent
DIFFER = {
    "seconds",
    "joules",
    "run",
    "image",
}  # columns that no two runs share, beside times and memory
MACHINE = ("device", "cpu", "python", "versions")
ROW = ("stage", "status", "parent", "scorer", "value", "nfe", "network_passes", "scheduler")


@click.group(help=__doc__.partition("\n")[0])
def main() -> None: ...


@main.command()
@click.argument("out", type=click.Path(dir_okay=False, writable=True, path_type=Path))
def record(out: Path) -> None:
    """Make the results and write what identifies them to OUT."""
    out, home = out.resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        results = {"demo": demo(folder / "demo")}  # first: what follows has a catalogue of its own
        own = folder / "own"
        own.mkdir()
        materials.write(own)
        materials.enter(own)
        try:
            results["kinds"] = kinds(own / "results")
            results["calls"] = calls()
        finally:
            os.chdir(home)
    text = json.dumps(results, indent=1, ensure_ascii=False, default=lambda number: number.item())
    out.write_text(text, encoding="utf-8")
    counts = ", ".join(f"{len(results[name]['images'])} of {name}" for name in results)
    click.echo(f"{out}: pictures: {counts}")


@main.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Print each difference between two records in one line. Exit code 1 where there is any."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    lines = list(differences("", first, second))
    for line in lines:
        click.echo(line)
    if lines:
        raise SystemExit(1)
    click.echo("The results are the same")


def differences(place: str, first: Any, second: Any) -> Iterator[str]:
    """A line for each value that differs or that one side lacks, beginning with its place."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(second.keys() - first.keys())]:
            below = f"{place} · {key}" if place else key
            yield from differences(below, first.get(key, "nothing"), second.get(key, "nothing"))
        if place.endswith("table") and first.keys() == second.keys() and [*first] != [*second]:
            yield f"{place}: the same lines in another order"
    elif first != second:
        yield f"{place}: {json.dumps(first)} → {json.dumps(second)}"


# --- what is made ---------------------------------------------------------------------------------


def demo(out: Path) -> dict[str, Any]:
    """The demo's notebook with fewer seeds and steps, so that it takes a minute or two."""
    import papermill
    from traitlets.config import Config

    os.environ["PYTHONPATH"] = str(ROOT)  # so that the kernel imports this checkout
    transport = "ipc" if os.name == "posix" else "tcp"
    out.mkdir(parents=True)
    papermill.execute_notebook(
        ROOT / "notebooks" / "compare.ipynb",
        out / "compare.ipynb",
        kernel_name="python3",
        parameters={"out": str(out), "seeds": 1, "steps": 8},
        cwd=str(ROOT / "notebooks"),
        progress_bar=False,
        config=Config({"KernelManager": {"transport": transport}}),
    )
    return contents(out)


def kinds(out: Path) -> dict[str, Any]:
    """The golden sweeps, one after another into one folder, which is extended each time."""
    import realkit as rk

    for name, sweep in RUNNABLE.items():
        click.echo(f"{name} …")
        rk.run(rk.Sweep(**sweep), out)
    return contents(out)


def calls() -> dict[str, Any]:
    """Single calls, outside of any sweep: a picture, enlarged, redrawn, scored."""
    import realkit as rk

    images = {"one leg": rk.load(BASE)(CUBE, steps=4, seed=3)}
    images["two legs"] = rk.load("rehearsal/xl+refiner")(CUBE, steps=5, seed=3, size=(128, 64))
    images["enlarged"] = rk.upscale(images["one leg"], "rehearsal/esrgan-x4", to=200)
    redraw = {"prompt": CUBE, "seed": 3, "strength": 0.5, "steps": 4}
    images["redrawn"] = rk.upscale(images["one leg"], "rehearsal/redraw", to=(200, 160), **redraw)
    scores = {}
    for name, image in images.items():
        scores[name] = rk.score(image, CUBE, scorers=["rehearsal/clip", "colour-cast"])
    return {"images": {name: pixels(image) for name, image in images.items()}, "scores": scores}


# --- what identifies it ---------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, Any]:
    """All of a results folder that two runs of the same code share. Raises for a failed cell."""
    import pandas as pd
    from PIL import Image

    import realkit as rk

    table = rk.read(folder).table()
    if bad := table.loc[table["status"] != "ok", "error"].tolist():
        raise click.ClickException(f"{len(bad)} cells are not ok, the first: {bad[0]}")
    shared = [
        name for name in table if name not in DIFFER and not name.endswith(("_s", "_j", "_gib"))
    ]
    records = table[shared].astype(object).where(pd.notna(table[shared]), None)
    rows = {}
    for line in lines_of(folder / "rows.jsonl"):
        rows[line["id"]] = {key: line[key] for key in ROW if key in line}
    images = {}
    for path in sorted((folder / "images").glob("*.png")):
        with Image.open(path) as image:
            images[path.stem] = pixels(image)
    latents = {path.stem: tensors(path) for path in sorted((folder / "latents").iterdir())}
    run = lines_of(folder / "runs.jsonl")[-1]
    return {
        "machine": {key: run.get(key) for key in MACHINE},
        "table": {line["cell"]: line for line in records.to_dict("records")},
        "cells": {line["id"]: line for line in lines_of(folder / "cells.jsonl")},
        "rows": rows,
        "images": images,
        "latents": latents,
    }


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def pixels(image: Any) -> str:
    head = f"{image.mode} {image.width}x{image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()[:16]


def tensors(path: Path) -> str:
    """A hash of what a .safetensors file holds, its metadata and the order of tensors apart."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:start])
    header.pop("__metadata__", None)
    found = hashlib.sha256()
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        found.update(f"{name} {entry['dtype']} {entry['shape']} ".encode())
        found.update(whole[start + begin : start + end])
    return found.hexdigest()[:16]


if __name__ == "__main__":
    main()
