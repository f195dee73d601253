"""`realkit kaggle`: run a notebook or a sweep on Kaggle and fetch its results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from realkit.apps.cli.files import PATH, Place
from realkit.apps.cli.sweeps import exit_code, status_counts

OUT = click.option(
    "--out", required=True, type=PATH, help="Local results folder that the results join."
)
NOBODY = "your-account"  # stands in a dry run for the account that nobody is logged in to
MODEL_FORM = "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"


@click.group()
def kaggle() -> None:
    """Run a notebook or a sweep on Kaggle and fetch its results. Guide: kaggle/README.md."""


@kaggle.command()
@click.argument("notebook", type=PATH, required=False)
@click.option(
    "--sweep", type=PATH, help="A sweep file: runs in our own notebook, or parameterises NOTEBOOK."
)
@click.option(
    "-p",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A notebook parameter, its value as YAML. A sweep's notebook has engine and options.",
)
@OUT
@click.option(
    "--title",
    default="",
    help="Title on Kaggle; makes its address (default: realkit and the file's name).",
)
@click.option("--owner", default="", help="Account (default: the kaggle command's login).")
@click.option(
    "--accelerator",
    default="NvidiaTeslaT4",
    show_default=True,
    help="NvidiaTeslaT4 is two T4; none: no GPU.",
)
@click.option(
    "--internet/--no-internet",
    default=True,
    show_default=True,
    help="Whether the run may reach the internet.",
)
@click.option(
    "--model", "models", multiple=True, metavar=MODEL_FORM, help="A Kaggle model to attach."
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="OWNER/SLUG", help="A Kaggle dataset to attach."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Attach the output of the previous version and resume it.",
)
@click.option("--public", is_flag=True, help="Let everyone see the notebook.")
@click.option("--budget", help="Time after which the run stops (default for --sweep: 11h).")
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    show_default=True,
    help="Wait for the end and fetch the results.",
)
@click.option("--dry-run", is_flag=True, help="Assemble only, below OUT/.kaggle; push nothing.")
def push(
    assignments: tuple[str, ...], out: Path, waits: bool, dry_run: bool, **settings: Any
) -> None:
    """Run NOTEBOOK, or a sweep, on Kaggle; wait; merge its results into OUT."""
    from realkit.apps.kaggle import client
    from realkit.apps.kaggle import push as kaggle_push

    order = kaggle_push.Order(parameters=kaggle_push.written_parameters(assignments), **settings)
    if dry_run:
        owner = order.owner or client.owner_here() or NOBODY
        kernel, digest = kaggle_push.assemble(order, out, owner, previous=False)
        if owner == NOBODY:
            click.echo(f"No account is known here: {NOBODY} stands for yours", err=True)
        click.echo(
            f"{kernel} and its dataset (contents {digest}) are in {out / kaggle_push.FOLDER};"
            " nothing was pushed"
        )
        return
    kernel = kaggle_push.push(order, out, click.echo)
    hint = f"When it has ended: realkit kaggle fetch {kernel} --out {out}"
    if not waits:
        click.echo(hint)
        return
    try:
        kaggle_push.wait(kernel, click.echo)
    except KeyboardInterrupt:
        click.echo(f"realkit: the run continues on Kaggle. {hint}", err=True)
        sys.exit(130)
    _fetch(kernel, out)


@kaggle.command()
@click.argument("kernel", metavar="OWNER/SLUG")
@OUT
def fetch(kernel: str, out: Path) -> None:
    """Merge the output of a Kaggle notebook's last version into OUT."""
    _fetch(kernel, out)


@kaggle.command()
@click.option(
    "--out",
    default=".",
    show_default=True,
    type=Place(file_okay=False, exists=True),
    help="Folder to write it to.",
)
def wheel(out: Path) -> None:
    """Write a wheel of this package, to upload by hand."""
    from realkit.apps.kaggle import wheels

    click.echo(wheels.wheel(out))


def _fetch(kernel: str, out: Path) -> None:
    from realkit.apps.kaggle import push as kaggle_push
    from realkit.runs.folder import read

    kaggle_push.fetch(kernel, out, click.echo)
    table = read(out).table()
    click.echo(f"{status_counts(table)}; table: {out / 'table.csv'}")
    sys.exit(exit_code(table))
