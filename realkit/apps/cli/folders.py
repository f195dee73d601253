"""`realkit prune`: what takes room in a results folder."""

from __future__ import annotations

from pathlib import Path

import click

import realkit as rk
from realkit.apps.cli.files import PATH


@click.command()
@click.argument("folder", type=PATH)
@click.option("--latents", is_flag=True, help="Delete the latents of finished pictures.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
def prune(folder: Path, latents: bool, dry_run: bool) -> None:
    """Delete what FOLDER needs neither to read, score or compare it, nor to resume it."""
    if not latents:
        raise rk.RequestError("prune: say what to delete: --latents")
    click.echo(rk.read(folder).prune_latents(dry_run))
