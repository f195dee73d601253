"""`realkit run`, `plan` and `sweep`: sweeps of pictures and of notebooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realkit.apps.cli.files import PATH as PATH
from realkit.apps.cli.tables import names_in

if TYPE_CHECKING:
    import pandas as pd

DEVICE = click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    help="Where to run (default: the GPU, if torch has kernels for it).",
)
RUNG = click.option(
    "--rung",
    type=click.Choice(["resident", "vae-tiling", "model-offload", "group-offload"]),
    help="Rung of memory to begin on (default: by the free memory).",
)
BUDGET = click.option("--budget", help="Time after which to stop, such as 8h or 1h30m.")
UNTIL = click.option("--until", help="Time of day by which to stop, such as 2026-11-21T18:00.")
ENGINE = "Who does the work: process, ray (all GPUs here) or ray:ADDRESS (a cluster)."
ATTACH = "Earlier output to reuse: a results folder, a .zip, a Kaggle notebook's output."


@click.command()
@click.argument("sweep", type=PATH)
@click.option(
    "--out", required=True, type=PATH, help="Results folder. An earlier run in it is resumed."
)
@click.option("--batch", type=int, help="Most pictures a batch (default: by the free memory).")
@click.option("--engine", default="process", show_default=True, help=ENGINE)
@click.option("--attach", multiple=True, help=ATTACH)
@click.option("--decide", help="Race: make only what decides by this metric, such as clip.")
@click.option("--by", help="What a race decides: an axis, or several: model,sampler.")
@BUDGET
@UNTIL
@DEVICE
@RUNG
def run(sweep: Path, out: Path, by: str | None, **options: Any) -> None:
    """Run a sweep file, or resume it. SIGTERM and Ctrl-C stop it after the current batch."""
    from realkit.analysis.headline import headline
    from realkit.apps import compare_run

    result = compare_run.run(sweep, out, by=names_in(by) if by else None, **options)
    table = result.table()
    click.echo(f"{status_counts(table)}; table: {out / 'table.csv'}")
    for error in table["error"].dropna().head(1):
        click.echo(f"the first failure: {error}", err=True)
    if not by:
        click.echo("\n".join(headline(table)))
    if result.stopped:
        click.echo(_stopped(result.stopped), err=True)
    sys.exit(exit_code(table) or int(result.not_embedded > 0))


@click.command()
@click.argument("sweep", type=PATH)
@click.option("--out", type=PATH, help="Results folder: say what it has already.")
def plan(sweep: Path, out: Path | None) -> None:
    """Say what a sweep file would make, without loading anything."""
    from realkit.runs import plan as plans

    click.echo(plans.foreseen(sweep, out))


@click.command()
@click.argument("sweeps", type=PATH)
@click.option(
    "--out", required=True, type=PATH, help="Folder of the entries. Finished entries are skipped."
)
@BUDGET
@UNTIL
def sweep(sweeps: Path, out: Path, budget: str | None, until: str | None) -> None:
    """Execute a notebook once for each entry of a file, each in its own process, and make one page
    of all. Run it again to resume."""
    from realkit.apps.notebooks.sweep import sweep_notebooks

    merged = sweep_notebooks(sweeps, out, budget=budget, until=until)
    states = [record["status"] for record in merged.attrs["entries"].values()]
    counts = ", ".join(f"{states.count(state)} entries {state}" for state in dict.fromkeys(states))
    click.echo(f"{counts}; page: {out / 'index.html'}, table: {out / 'table.csv'}")
    if merged.attrs["stopped"]:
        click.echo(_stopped(merged.attrs["stopped"]), err=True)
    if set(states) != {"ok"}:
        sys.exit(1)


def status_counts(table: pd.DataFrame) -> str:
    """How many cells of a table have which status."""
    counts = table["status"].value_counts()
    return ", ".join(f"{count} cells {status}" for status, count in counts.items())


def exit_code(table: pd.DataFrame) -> int:
    """0 where every cell is ok, or skipped by a race, else 1."""
    return 0 if table["status"].isin(["ok", "skipped"]).all() else 1


def _stopped(reason: str) -> str:
    return f"stopped before the end: {reason}; run the same command again to resume"
