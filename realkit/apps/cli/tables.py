"""`realkit table`, `compare`, `columns` and `list`: tables of results, verdicts, the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from realkit.apps.cli.files import PATH, check_derived
from realkit.base.errors import RequestError, shown
from realkit.base.files import write_atomically
from realkit.base.spreadsheets import to_csv
from realkit.catalog import omissions

# The columns of a results table that a terminal has room for; the scores follow.
SHOWN = (
    "model", "sampler", "prompt", "seed", "steps", "guidance", "upscaler", "nfe", "seconds",
    "status",
)  # fmt: skip
WIDEST = 48  # characters of a catalogue column
Line = tuple[object, ...]


@click.command()
@click.argument("folder", type=PATH)
@click.option("--csv", is_flag=True, help="Write the whole table as CSV to standard output.")
@click.option("--parquet", type=PATH, help="Write the whole table to this .parquet file.")
@click.option("--by", help="Group it by these columns, such as model,sampler.")
def table(folder: Path, csv: bool, parquet: Path | None, by: str | None) -> None:
    """Show the table of a results folder."""
    from realkit.catalog.columns import COLUMNS
    from realkit.runs.folder import read

    if parquet and csv:
        raise RequestError("--csv and --parquet: give one of them")
    if parquet:
        check_derived(parquet, ".parquet", b"PAR1")
    frame = read(folder).table()
    if by:
        from realkit.analysis.aggregate import aggregate

        frame = aggregate(frame, names_in(by))
    if parquet:
        write_atomically(parquet, lambda file: frame.to_parquet(file, index=False))
        click.echo(parquet)
    elif csv:
        click.echo(to_csv(frame), nl=False)
    elif by:
        click.echo(frame.to_string(index=False, float_format=_number, na_rep=""))
    else:
        scores = [name for name in frame.columns if name not in COLUMNS]
        text = frame[[*SHOWN, *scores]].to_string(index=False, max_colwidth=44, na_rep="")
        click.echo("the table has no cells" if frame.empty else text)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@click.command()
@click.argument("folder", type=PATH)
@click.option("--by", required=True, help="What to compare: an axis, or several: model,sampler.")
@click.option("--metric", help="Scores, seconds, … (default: all scores, and seconds).")
@click.option("--within", help="Compare in each value of this axis by itself.")
@click.option("--baseline", help="Compare with this value alone.")
@click.option("--margin", type=float, help="What does not matter, in the metric's unit or %.")
@click.option("--confidence", type=float, default=0.95, show_default=True)
@click.option(
    "--at-equal", "cost", metavar="COST", help="At the steps of equal cost: seconds, nfe, …"
)
@click.option("--most", type=float, help="The cost allowed (default: the largest all reach).")
@click.option("--csv", is_flag=True, help="Write the verdicts as CSV to standard output.")
def compare(
    folder: Path,
    by: str,
    metric: str | None,
    cost: str | None,
    most: float | None,
    csv: bool,
    **options: Any,
) -> None:
    """Say what is better, worse or equivalent in a results folder, and how sure that is."""
    from realkit.analysis import at_equal, compare

    rows: Any = folder
    if cost:
        rows = at_equal.at_equal(folder, names_in(by), cost, most)
        click.echo("\n".join(rows.sentences), err=csv)
    elif most is not None:
        raise RequestError("--most bounds a cost: give it with --at-equal seconds, or nfe")
    metrics = names_in(metric) if metric else None
    found = compare.compare(rows, names_in(by), metrics, **options)
    click.echo(to_csv(found) if csv else str(found), nl=not csv)


def names_in(text: str) -> list[str]:
    """The names in a text that separates them by commas. Raises RequestError where it has none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise RequestError(f"{shown(text)}: expected a name, or several, such as model,sampler")
    return names


@click.command()
def columns() -> None:
    """Print what the table's columns mean."""
    from realkit.runs.table import dictionary

    click.echo(dictionary(), nl=False)


def _models() -> Iterator[Line]:
    from realkit.models.spec import MODELS

    for name, spec in MODELS.items():
        advice = spec.settings
        settings = f"{advice.sampler}, {advice.steps} steps, CFG {advice.guidance:g}"
        commercial = f"commercial: {spec.commercial}"
        yield (
            name, f"{spec.size}²", settings, commercial, spec.licence,
            _unverified(spec.unverified) + spec.about,
        )  # fmt: skip


def _samplers() -> Iterator[Line]:
    from realkit.samplers.table import SAMPLERS

    for name, spec in SAMPLERS.items():
        kind = "stochastic" if spec.stochastic else "deterministic"
        yield name, f"order {spec.order}", spec.calls, kind, spec.paper


def _upscalers() -> Iterator[Line]:
    from realkit.upscalers.table import UPSCALERS

    for name, spec in UPSCALERS.items():
        kind = spec.architecture or spec.engine
        if spec.scale > 1:
            kind = f"{kind} ×{spec.scale}"
        source = f"by hand from {spec.page}" if spec.file else ""
        about = _unverified(spec.unverified) + spec.about
        yield name, kind, f"commercial: {spec.commercial}", spec.licence, about, source


def _scorers() -> Iterator[Line]:
    from realkit.scorers.table import SCORERS

    for name, spec in SCORERS.items():
        seen = f"sees {spec.tokens} tokens" if spec.tokens else ""
        licence = "" if spec.licence == "none" else spec.licence
        resize = f"resize: {spec.resize}"
        about = _unverified(spec.unverified) + spec.about
        yield name, spec.unit, f"better: {spec.direction}", seen, licence, resize, about


def _unverified(what: str) -> str:
    """What of an entry could not be looked up, before what the entry is."""
    return f"(unverified: {what}) " if what else ""


def _encoders() -> Iterator[Line]:
    from realkit.scorers.encoders import ENCODERS

    for name, spec in ENCODERS.items():
        yield name, spec.engine, spec.licence, f"resize: {spec.resize}", spec.about


def _prompts() -> Iterator[Line]:
    from realkit.catalog.suites import PROMPTS, SUITE

    for name, suite in PROMPTS.items():
        count, commercial = f"{len(suite.prompts)} prompts", f"commercial: {suite.commercial}"
        yield f"{SUITE}{name}", count, commercial, suite.licence, suite.about


_LISTS = {
    "models": _models,
    "samplers": _samplers,
    "upscalers": _upscalers,
    "scorers": _scorers,
    "encoders": _encoders,
    "prompts": _prompts,
}


class _Listed(click.Choice):
    """The name of a list; what the kit leaves out is told why when it is asked for."""

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        omissions.check(str(value))
        return super().convert(value, param, context)


@click.command("list")
@click.argument("what", type=_Listed(list(_LISTS)))
def list_(what: str) -> None:
    """List a table of the catalogue."""
    lines = [tuple(map(str, line)) for line in _LISTS[what]()]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
