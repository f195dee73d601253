"""The command line. Exit codes: 0 done; 1 some cells failed, the disk, the cluster or Kaggle
refused, or the doctor found that this machine can make nothing; 2 the request was wrong, and
nothing was started."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from realkit.apps.cli.kaggle import kaggle
from realkit.apps.cli.tables import list_
from realkit.base.errors import RequestError, RunError
from realkit.base.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg")  # formats to write


class _Group(click.Group):
    """Ends every wrong request, click's own findings too, in one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            sys.exit(super().main(*args, **kwargs | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
        except RequestError as error:
            click.echo(f"realkit: {error}", err=True)
            sys.exit(1 if isinstance(error, RunError) else 2)
        except click.ClickException as error:
            click.echo(f"realkit: {error.format_message()}", err=True)
        except click.Abort:
            click.echo("realkit: stopped. What is done is kept: run again to go on", err=True)
            sys.exit(130)
        sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Which model, which sampler, which upscaler gives the best picture for the least time?"""


main.add_command(kaggle)
main.add_command(list_)

DEVICE = click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    help="Where to run (default: the GPU, if torch has kernels for it).",
)
RUNG = click.option(
    "--rung",
    type=click.Choice(["resident", "vae-tiling", "model-offload", "group-offload"]),
    help="Rung of memory to begin on (default: by what is free).",
)


@main.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Results folder; an earlier run in it is gone on with.",
)
@click.option(
    "--batch", type=int, help="Most pictures to denoise together (default: by free memory)."
)
@click.option(
    "--engine",
    default="process",
    show_default=True,
    help="Who does the work: process, ray (all GPUs here) or ray:ADDRESS (a cluster).",
)
@click.option(
    "--attach",
    multiple=True,
    help="An earlier output to take up: a results folder, a .zip, a Kaggle notebook's output.",
)
@click.option("--budget", help="Time after which to stop between two batches, such as 8h or 1h30m.")
@click.option("--until", help="Time of day at which to have stopped, such as 2026-11-21T18:00.")
@DEVICE
@RUNG
def run(
    sweep: Path,
    out: Path,
    batch: int | None,
    engine: str,
    attach: tuple[str, ...],
    budget: str | None,
    until: str | None,
    device: Literal["cuda", "cpu"] | None,
    rung: str | None,
) -> None:
    """Run a sweep file, or go on with it. SIGTERM and Ctrl-C stop it after the batch in work; run
    it again to go on."""
    from realkit.runs import loop

    done = loop.run(
        sweep,
        out,
        batch=batch,
        device=device,
        rung=rung,
        engine=engine,
        budget=budget,
        until=until,
        attach=attach,
    )
    counts = done.table()["status"].value_counts()
    click.echo(
        f"{', '.join(f'{count} cells {status}' for status, count in counts.items())}; table:"
        f" {out / 'table.csv'}"
    )
    if done.stopped:
        click.echo(f"stopped before the end: {done.stopped}; run the same again to go on", err=True)
    if done.failed or done.stopped:
        sys.exit(1)


@main.command()
@click.argument("sweeps", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the entries; what it holds finished is not done again.",
)
@click.option("--budget", help="Time within which to end, such as 8h or 1h30m.")
@click.option("--until", help="Time of day by which to end, such as 2026-11-21T18:00.")
def sweep(sweeps: Path, out: Path, budget: str | None, until: str | None) -> None:
    """Execute a notebook once for each entry of a file, each in a process of its own, and put all
    on one page. Run it again to go on."""
    from realkit.apps.notebooks.sweep import sweep_notebooks

    merged = sweep_notebooks(sweeps, out, budget=budget, until=until)
    states = [record["status"] for record in merged.attrs["entries"].values()]
    counts = ", ".join(f"{states.count(state)} entries {state}" for state in dict.fromkeys(states))
    click.echo(f"{counts}; page: {out / 'index.html'}, table: {out / 'table.csv'}")
    if merged.attrs["stopped"]:
        click.echo(
            f"stopped before the end: {merged.attrs['stopped']}; run the same again to go on",
            err=True,
        )
    if set(states) != {"ok"}:
        sys.exit(1)


@main.command()
@click.argument("sweep", type=click.Path(path_type=Path))
def plan(sweep: Path) -> None:
    """Say what a sweep file would make, without loading anything."""
    from realkit.sweeps import check

    click.echo(check.plan(sweep))


@main.command()
@click.argument("prompt")
@click.option("--model", default="rehearsal/base", show_default=True)
@click.option("--sampler")
@click.option("--steps", type=int)
@click.option("--guidance", type=float)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--negative")
@click.option("--size", help="Native size, e.g. 512 or 768x1024.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Number format (default: by the device).",
)
@DEVICE
@RUNG
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("image.png"), show_default=True
)
def generate(
    prompt: str,
    model: str,
    out: Path,
    size: str | None,
    dtype: str | None,
    device: str | None,
    rung: str | None,
    **settings: Any,
) -> None:
    """Make one picture of PROMPT; what is left out is the model's recommendation."""
    from realkit.models import loading
    from realkit.sweeps.sweep import Sweep

    axes = {
        "samplers": settings["sampler"],
        "steps": settings["steps"],
        "guidance": settings["guidance"],
        "negatives": settings["negative"],
        "size": size,
    }
    Sweep(
        models=model,
        prompts=prompt,
        seeds=[settings["seed"]],
        **{k: v for k, v in axes.items() if v is not None},
    ).cells()
    _writable(out, *PICTURES)
    _save(
        loading.load(model, dtype=dtype, device=device, rung=rung)(prompt, size=size, **settings),
        out,
    )  # type: ignore[arg-type]


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "name",
    required=True,
    help="An upscaler (realkit list upscalers), a weight file, or a chain: 'A + B'.",
)
@click.option("--to", required=True, help="Longer side of the result, or WIDTHxHEIGHT, pixels.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "keep"]),
    default="crop",
    show_default=True,
    help="What WIDTHxHEIGHT does with another aspect.",
)
@click.option("--prompt", help="What the picture shows, where the upscaler draws.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--model", help="The model that redraws.")
@click.option(
    "--strength",
    type=float,
    help="How much of the noise schedule a redraw goes through again, up to 1.",
)
@click.option(
    "--tile", type=int, help="Pixels of the small picture a tile (default: by what memory is free)."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: IMAGE with the size in its name."
)
def upscale(
    image: Path, name: str, to: str, fit: Literal["crop", "keep"], out: Path | None, **settings: Any
) -> None:
    """Enlarge IMAGE to the exact size."""
    from realkit.base.pictures import target_size, written_target
    from realkit.upscalers.upscale import upscale as upscale_picture

    target = written_target(to)
    picture = _picture(image)
    out = out or image.with_name(f"{image.stem}-{to}.png")
    _writable(out, *PICTURES)
    _room(out, target_size(picture.size, target, fit))
    _save(upscale_picture(picture, name, target, fit=fit, **settings), out)


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("--scorer", "names", multiple=True, default=("clip",), show_default=True)
def score(image: Path, prompt: str, names: tuple[str, ...]) -> None:
    """Score IMAGE against PROMPT."""
    from realkit.scorers.score import score as score_picture

    for name, value in score_picture(_picture(image), prompt, names).items():
        click.echo(f"{name} {value:.3f}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--csv", is_flag=True, help="Write the whole table as CSV to standard output.")
@click.option(
    "--parquet", type=click.Path(path_type=Path), help="Write the whole table to this file."
)
def table(folder: Path, csv: bool, parquet: Path | None) -> None:
    """Show the table of a results folder."""
    from realkit.runs.folder import read

    if parquet:
        _writable(parquet)
    frame = read(folder).table()
    if parquet:
        from realkit.base.files import write_atomically

        write_atomically(parquet, lambda file: frame.to_parquet(file, index=False))
        click.echo(parquet)
    elif csv:
        click.echo(frame.to_csv(index=False), nl=False)
    else:
        shown = [
            "model",
            "sampler",
            "prompt",
            "seed",
            "steps",
            "guidance",
            "upscaler",
            "nfe",
            "seconds",
            "status",
        ]
        from realkit.catalog.columns import COLUMNS

        click.echo(
            frame[[*shown, *(name for name in frame.columns if name not in COLUMNS)]].to_string(
                index=False, max_colwidth=44, na_rep=""
            )
        )


@main.command()
def columns() -> None:
    """Print what the table's columns mean."""
    from realkit.runs.table import dictionary

    click.echo(dictionary(), nl=False)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="All facts and findings as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine lacks and how to mend it; exit code 1 where it cannot make pictures."""
    import json
    from dataclasses import asdict

    from realkit.apps.doctor.facts import gather
    from realkit.apps.doctor.findings import findings, passes

    facts = gather()
    found = findings(facts)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "facts": asdict(facts),
                    "findings": [asdict(finding) for finding in found],
                    "ok": passes(found),
                },
                indent=2,
            )
        )
    else:
        for finding in found:
            click.echo(f"{finding.level:<8} {finding.topic:<12} {finding.what}")
            if finding.mend:
                click.echo(f"{'':<9}{finding.mend}")
    if not passes(found):
        sys.exit(1)


def _picture(path: Path) -> Any:
    from PIL import Image

    from realkit.base.errors import one_line

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise RequestError(f"No picture at {str(path)!r}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(
            f"{str(path)!r} is no picture that can be read: {one_line(error)}"
        ) from error


def _room(out: Path, size: tuple[int, int]) -> None:
    """Raise RequestError where a picture of this size does not fit on the disk."""
    from realkit.base import cache
    from realkit.sweeps.cost import BYTES_A_PIXEL

    needed, free = BYTES_A_PIXEL * size[0] * size[1], cache.free_bytes(out.parent)
    if needed > free:
        raise RequestError(
            f"{size[0]}×{size[1]} needs about {needed / 2**20:.1f} MiB in {str(out.parent)!r},"
            f" {free / 2**20:.1f} MiB are free: free some first"
        )


def _writable(path: Path, *suffixes: str) -> None:
    """Raise RequestError, before any work, where a file cannot be written or its name does not end
    in one of `suffixes`."""
    try:
        if path.is_dir():
            raise RequestError(f"Cannot write {str(path)!r}: it is a folder, expected a file")
        if suffixes and path.suffix.lower() not in suffixes:
            raise RequestError(
                f"Cannot write {str(path)!r}: expected a name that ends in {' or '.join(suffixes)}"
            )
        if not path.parent.is_dir():
            raise RequestError(f"Cannot write {str(path)!r}: its folder does not exist")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise RequestError(
            f"Cannot write {str(path)!r}: {error.strerror}. Give another folder"
        ) from error


def _save(picture: Image, path: Path) -> None:
    from realkit.base.files import write_atomically
    from realkit.base.pictures import opaque
    from realkit.models import provenance

    png = path.suffix.lower() == ".png"
    write_atomically(
        path,
        lambda file: (
            provenance.save(picture, file)
            if png
            else opaque(picture).save(file, "JPEG", quality=95)
        ),
    )
    click.echo(path)
