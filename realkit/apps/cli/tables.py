"""The tables that `realkit list` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from realkit.models.spec import Settings


@click.command("list")
@click.argument(
    "what", type=click.Choice(["models", "samplers", "upscalers", "scorers", "prompts"])
)
def list_(what: str) -> None:
    """List a table of the catalogue."""
    lines = [[str(fact) for fact in line] for line in _LISTS[what]()]
    widths = [min(48, max(map(len, column))) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo(
            "  ".join(f"{fact:<{width}}" for fact, width in zip(line, widths, strict=True)).rstrip()
        )


def _models() -> list[tuple[object, ...]]:
    from realkit.models.spec import MODELS

    def advised(of: Settings) -> str:
        return f"{of.sampler}, {of.steps} steps, CFG {of.guidance:g}"

    return [
        (
            name,
            f"{spec.size}²",
            advised(spec.settings),
            f"commercial: {spec.commercial}",
            spec.licence,
            spec.about,
        )
        for name, spec in MODELS.items()
    ]


def _samplers() -> list[tuple[object, ...]]:
    from realkit.samplers.table import SAMPLERS

    return [
        (
            name,
            f"order {spec.order}",
            f"{spec.calls:<4}",
            "stochastic   " if spec.stochastic else "deterministic",
            spec.paper,
        )
        for name, spec in SAMPLERS.items()
    ]


def _upscalers() -> list[tuple[object, ...]]:
    from realkit.upscalers.table import UPSCALERS, Upscaler

    def kind(spec: Upscaler) -> str:
        return f"{spec.architecture or spec.engine}{f' ×{spec.scale}' if spec.scale > 1 else ''}"

    def got(spec: Upscaler) -> str:
        return f"by hand from {spec.page}" if spec.file else ""

    return [
        (name, kind(spec), f"commercial: {spec.commercial}", spec.licence, spec.about, got(spec))
        for name, spec in UPSCALERS.items()
    ]


def _scorers() -> list[tuple[object, ...]]:
    from realkit.scorers.table import SCORERS

    return [
        (name, spec.unit, f"better: {spec.direction}", spec.about) for name, spec in SCORERS.items()
    ]


def _prompts() -> list[tuple[object, ...]]:
    from realkit.sweeps.prompts import PROMPTS

    return [
        (f"suite:{name}", f"{len(spec.prompts)} prompts", spec.about)
        for name, spec in PROMPTS.items()
    ]


_LISTS = {
    "models": _models,
    "samplers": _samplers,
    "upscalers": _upscalers,
    "scorers": _scorers,
    "prompts": _prompts,
}
