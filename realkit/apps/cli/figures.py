"""`realkit sets` and `edits`: figures of sets of pictures and of edits, with their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import realkit as rk
from realkit.apps.cli.files import PATH
from realkit.apps.cli.tables import names_in
from realkit.base.spreadsheets import to_csv

if TYPE_CHECKING:
    import pandas as pd

BY = "What to compare: an axis, or several: model,sampler."


@click.command()
@click.argument("folder", type=PATH)
@click.option("--by", required=True, help=BY)
@click.option("--encoder", help="The encoder of the embeddings, where there are several.")
@click.option("--photographs", help="The folder of photographs, where sweeps named several.")
@click.option("--csv", is_flag=True, help="Write a line for each prompt of each set as CSV.")
def sets(folder: Path, by: str, encoder: str | None, photographs: str | None, csv: bool) -> None:
    """Say how near sets of pictures are to photographs, and how various."""
    _print(rk.sets(folder, encoder, photographs), by, None, csv)


@click.command()
@click.argument("folder", type=PATH)
@click.argument("suite")
@click.option("--by", required=True, help=BY)
@click.option("--within", help="Compare in each value by itself, such as attribute.")
@click.option("--encoder", help="The encoder of the embeddings, where there are several.")
@click.option("--csv", is_flag=True, help="Write a line for each edit as CSV.")
def edits(
    folder: Path, suite: str, by: str, within: str | None, encoder: str | None, csv: bool
) -> None:
    """Say how pictures answer to the edits of a suite, such as rehearsal-edits."""
    _print(rk.edits(folder, suite, encoder), by, within, csv)


def _print(figures: pd.DataFrame, by: str, within: str | None, csv: bool) -> None:
    if csv:
        click.echo(to_csv(figures), nl=False)
        return
    names = names_in(by)
    means = rk.aggregate(figures, [within, *names] if within else names)
    click.echo("\n".join(figures.attrs["sentences"]))
    click.echo(means.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
    if len(means) > 1:
        try:
            found = rk.compare(figures, names, within=within).sentences
        except rk.RequestError as error:
            found = [f"No verdict. {error}"]
        click.echo("\n" + "\n".join(found))
