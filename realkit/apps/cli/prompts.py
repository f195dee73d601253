"""`realkit prompts import`: a published suite of prompts into the user's catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from realkit.apps.cli.files import PATH
from realkit.base.errors import RequestError, shown

COUNT = click.IntRange(min=1)


@click.group()
def prompts() -> None:
    """Suites of prompts; realkit list prompts names them."""


@prompts.command("import")
@click.argument("file", type=PATH)
@click.option("--name", required=True, help="What sweeps call it: suite:NAME.")
@click.option("--licence", required=True, help="Of the prompts, such as Apache-2.0, or unknown.")
@click.option(
    "--commercial",
    type=click.Choice(["yes", "no", "conditions", "unknown"]),
    default="unknown",
    show_default=True,
    help="Whether that licence allows commercial use.",
)
@click.option("--column", help="What holds the prompts (default: the one that is named so).")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Take only these.")
@click.option("--limit", type=COUNT, help="Take the first N.")
@click.option("--sample", type=COUNT, help="Take N at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of --sample.")
@click.option("--replace", is_flag=True, help="Replace the suite of this name.")
def import_(
    file: Path,
    where: tuple[str, ...],
    limit: int | None,
    sample: int | None,
    seed: int,
    **options: Any,
) -> None:
    """Add the prompts of FILE (.tsv, .csv, .jsonl, .json or .txt) to your catalogue,
    $REALKIT_CATALOG, with their licence."""
    from realkit.catalog.importing import Selection, import_suite

    conditions = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--where {shown(text)}: expected COLUMN=VALUE")
        if column in conditions:
            raise RequestError(
                f"--where names {shown(column)} twice, and no prompt has two values: import each"
                " value as a suite of its own"
            )
        conditions[column] = value
    selection = Selection(conditions, limit, sample, seed)
    suite, own = import_suite(file, selection=selection, **options)
    left_out = ", ".join(f"{count} {reason}" for reason, count in suite.left_out.items())
    click.echo(
        f"suite:{options['name']}: {len(suite.prompts)} prompts, licence {suite.licence},"
        f" left out: {left_out or 'none'}; {own}"
    )
