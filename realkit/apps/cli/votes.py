"""`realkit vote` and `votes`: blind votes on a page, and what they say."""

from __future__ import annotations

from pathlib import Path

import click

from realkit.apps.cli.files import PATH, check_writable
from realkit.apps.cli.tables import names_in

FOLDER = click.argument("folder", type=PATH)
BY = click.option("--by", default="sampler", show_default=True, help="An axis, or model,sampler.")


@click.command()
@FOLDER
@BY
@click.option("--count", type=click.IntRange(1, 500), default=60, show_default=True)
@click.option("--photographs", type=PATH, help="A folder of real ones, as one more arm.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another gives other pairs.")
@click.option("--out", type=PATH, help="Default: vote.html in FOLDER.")
@click.option("--merge", multiple=True, type=PATH, help="Saved votes to add to FOLDER.")
def vote(
    folder: Path,
    by: str,
    count: int,
    photographs: Path | None,
    seed: int,
    out: Path | None,
    merge: tuple[Path, ...],
) -> None:
    """Make a page of blind pairs of FOLDER's pictures, for any number of voters; or, with --merge,
    add the votes that they saved."""
    if merge:
        from realkit.runs.folder import read

        added = read(folder).store.merge_votes(merge)
        click.echo(f"{added} votes added; to see what they say: realkit votes {folder}")
        return
    from realkit.analysis.vote_page import write

    out = out or folder / "vote.html"
    if folder.is_dir():
        check_writable(out, ".html")
    write(folder, names_in(by), out, count, photographs, seed)
    click.echo(out)


@click.command()
@FOLDER
@BY
def votes(folder: Path, by: str) -> None:
    """Say what the blind votes on FOLDER's pictures found."""
    from realkit.analysis.votes import votes as said

    click.echo(said(folder, names_in(by)))
