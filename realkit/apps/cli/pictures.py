"""`realkit generate`, `upscale`, `score` and `info`: one picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import realkit as rk
from realkit.apps.cli.files import (
    PATH,
    PICTURES,
    check_room,
    check_writable,
    read_picture,
    save_picture,
    unused,
)
from realkit.apps.cli.sweeps import DEVICE, RUNG

LONGEST = 2_000  # characters of a value on a terminal

if TYPE_CHECKING:
    from realkit.models.request import Request

IMAGE = Path("image.png")  # what `generate` writes where no name is given


@click.command()
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
@click.option("--out", type=PATH, help="Default: image.png, or image-2.png, … where that exists.")
def generate(
    prompt: str,
    model: str,
    out: Path | None,
    dtype: str | None,
    device: Literal["cuda", "cpu"] | None,
    rung: str | None,
    **settings: Any,
) -> None:
    """Make one picture of PROMPT. A setting that is left out is the model's recommendation."""
    from realkit.models import loading, request, spec

    # Settings and file are checked first: loading a model takes a minute.
    values = {"prompt": prompt, **settings}
    model_name, entry = spec.identify(model)
    settings_checked = {name: request.checked(name, values[name]) for name in values}
    asked = request.completed(model_name, entry, settings_checked)
    check_writable(out or IMAGE, *PICTURES)
    out = unused(out or IMAGE, given=out is not None)
    loaded = loading.load(model, dtype=dtype, device=device, rung=rung)
    click.echo(_settings(asked), err=True)
    save_picture(loaded(prompt, **settings), out)


def _settings(request: Request) -> str:
    """What makes a picture again, in one line."""
    negative = f", without {request.negative!r}" if request.negative else ""
    return (
        f"{request.model}, {request.sampler}, {request.steps} steps, guidance {request.guidance:g},"
        f" seed {request.seed}, {request.width}×{request.height}{negative}"
    )


@click.command()
@click.argument("image", type=PATH)
@click.option(
    "--with",
    "name",
    required=True,
    help="An upscaler (realkit list upscalers), a weight file, or a chain: 'A + B'.",
)
@click.option("--to", required=True, help="Longer side of the result, or WIDTHxHEIGHT, in pixels.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "keep"]),
    default="crop",
    show_default=True,
    help="What WIDTHxHEIGHT does with another aspect.",
)
@click.option("--prompt", help="What the picture shows, for upscalers that redraw.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--model", help="The model that redraws.")
@click.option("--strength", type=float, help="Share of the noise schedule that a redraw repeats.")
@click.option("--tile", type=int, help="Side of a tile, source pixels (default: by free memory).")
@click.option("--out", type=PATH, help="Default: IMAGE with the size in its name.")
def upscale(
    image: Path, name: str, to: str, fit: Literal["crop", "keep"], out: Path | None, **settings: Any
) -> None:
    """Enlarge IMAGE to the exact size."""
    from realkit.base.pictures import target_size, written_target
    from realkit.upscalers.upscale import upscale as upscale_picture

    target = written_target(to)
    picture = read_picture(image)
    given, out = out is not None, out or image.with_name(f"{image.stem}-{to}.png")
    check_writable(out, *PICTURES)
    out = unused(out, given)
    check_room(out, target_size(picture.size, target, fit))
    save_picture(upscale_picture(picture, name, target, fit=fit, **settings), out)


@click.command()
@click.argument("image", type=PATH)
@click.argument("prompt")
@click.option("--scorer", "names", multiple=True, default=("clip",), show_default=True)
def score(image: Path, prompt: str, names: tuple[str, ...]) -> None:
    """Score IMAGE against PROMPT."""
    from realkit.scorers.score import score as score_picture

    for name, value in score_picture(read_picture(image), prompt, names).items():
        click.echo(f"{name} {value:.3f}")


@click.command()
@click.argument("image", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def info(image: Path, as_json: bool) -> None:
    """Say what IMAGE says of itself: realkit's record, the web interfaces', a camera's."""
    facts = rk.info(image)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    size = f"{facts['width']}×{facts['height']}"
    click.echo(f"{image}: {facts['format']}, {size}, made by {_shown(facts['made_by'])}")
    for key in ("prompt", "negative"):
        if facts[key]:
            click.echo(f"{key}: {_shown(facts[key])}")
    _echo_all("", facts["settings"])
    for key in ("unchanged", "dpi", "profile", "comment"):
        if key in facts:
            click.echo(f"{key}: {_shown(facts[key])}")
    for name, graph in facts.get("comfyui", {}).items():
        nodes = graph.get("nodes", graph)
        count = len(nodes) if isinstance(nodes, (dict, list)) else "no"
        click.echo(f"ComfyUI's {name}: {count} nodes")
    _echo_all("EXIF ", facts.get("exif", {}))
    _echo_all("text ", facts.get("texts", {}))
    for what in facts["lost"]:
        click.echo(f"not read: {what}")


def _echo_all(before: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is not None:
            click.echo(f"{before}{_shown(key)}: {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in one line that no terminal takes as a command, shortened where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
