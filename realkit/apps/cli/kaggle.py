"""`realkit kaggle`: run a notebook or a sweep on Kaggle and have the results here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from realkit.base.errors import RequestError


@click.group()
def kaggle() -> None:
    """Run a notebook or a sweep on Kaggle and merge what it made here; kaggle/README.md is the
    guide."""


@kaggle.command()
@click.argument("notebook", type=click.Path(path_type=Path), required=False)
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    help="A sweep file to run: in a notebook of its own, or as what NOTEBOOK takes.",
)
@click.option(
    "-p",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the notebook, its value as YAML; that of a sweep has engine and options.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Results folder here, which the results are merged into.",
)
@click.option(
    "--title",
    default="",
    help=(
        "The notebook's title on Kaggle, which makes its address (default: realkit and the file's"
        " name)."
    ),
)
@click.option(
    "--owner",
    default="",
    help="The account's name (default: the one that the kaggle command is logged in to).",
)
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
    "--model",
    "models",
    multiple=True,
    metavar="OWNER/MODEL/FRAMEWORK/VARIATION/VERSION",
    help="A Kaggle model to attach.",
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="OWNER/SLUG", help="A Kaggle dataset to attach."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Attach the output of its previous version and go on with it.",
)
@click.option("--public", is_flag=True, help="Let everyone see the notebook.")
@click.option(
    "--budget",
    help=(
        "Time after which the run stops by itself (default for --sweep: 11h; Kaggle ends a session"
        " after 12)."
    ),
)
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    show_default=True,
    help="Wait for the end and fetch the results.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only assemble what would be pushed, below OUT/.kaggle."
)
def push(given: tuple[str, ...], out: Path, waits: bool, dry_run: bool, **order: Any) -> None:
    """Run NOTEBOOK, or a sweep, on Kaggle; wait; merge its results into OUT."""
    from realkit.apps.kaggle import client, job
    from realkit.apps.kaggle.job import FOLDER, Order

    ordered = Order(parameters=_parameters(given), **order)
    if dry_run:
        name, digest = job.assemble(ordered, out, ordered.owner or client.owner(), previous=False)
        click.echo(
            f"{name} and its dataset (contents {digest}) are in {out / FOLDER}; nothing was pushed"
        )
        return
    name = job.push(ordered, out, click.echo)
    later = f"realkit kaggle fetch {name} --out {out}"
    if not waits:
        click.echo(f"When it has ended: {later}")
        return
    try:
        job.wait(name, click.echo)
    except KeyboardInterrupt:
        click.echo(f"realkit: it goes on running on Kaggle. When it has ended: {later}", err=True)
        sys.exit(130)
    _fetched(name, out)


@kaggle.command()
@click.argument("kernel", metavar="OWNER/SLUG")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Results folder here, which the results are merged into.",
)
def fetch(kernel: str, out: Path) -> None:
    """Merge into OUT what the last version of a Kaggle notebook made."""
    _fetched(kernel, out)


@kaggle.command()
@click.option(
    "--out",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder to write it to.",
)
def wheel(out: Path) -> None:
    """Write a wheel of this package, to upload by hand."""
    from realkit.apps.kaggle import parcel

    click.echo(parcel.wheel(out))


def _fetched(kernel: str, out: Path) -> None:
    from realkit.apps.kaggle import job

    job.fetch(kernel, out, click.echo)
    click.echo(f"{job.counted(out)}; table: {out / 'table.csv'}")


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise RequestError(f"parameter {text.partition('=')[0]!r}: expected -p NAME=VALUE")
        if name in found:
            raise RequestError(f"parameter {name!r} is given twice: expected each once")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RequestError(
                f"parameter {name!r}: its value is not YAML; put it into quotes"
            ) from None
    return found
