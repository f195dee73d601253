"""What a page of results shows: best cells, sentences, thumbnails."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.scorers.likeness import MEASURES
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

PICTURES = 8  # shown of each entry
FIGURES = 4  # and of the figures that its notebook saved
SIDE = 176  # pixels of a picture's longer side; a figure's is twice as long
GROUPS = ("model", "sampler", "upscaler")
MOST = 60  # lines of a summary
ALIKE = (
    "batch",
    "rung",
    "device",
    "dtype",
    "tile",
)  # times are summed up only where these are the same


def plain_value(table: pd.DataFrame) -> pd.DataFrame:
    """A table as this page reads it, also one that a notebook wrote as it liked: without a status
    all is done, and what is no number is no time."""
    import pandas as pd

    table = table.copy()
    if "status" not in table:
        table["status"] = "ok"
    if "seconds" in table:
        table["seconds"] = pd.to_numeric(table["seconds"], errors="coerce").astype("float64")
    return table


def meaning(column: str) -> tuple[str, str]:
    """(better is, meaning) of a column of a table; empty where it is not known."""
    if column in COLUMNS:
        return COLUMNS[column].better, COLUMNS[column].meaning
    if column in MEASURES:
        return MEASURES[column].better, MEASURES[column].about
    if column in SCORERS:
        spec = SCORERS[find(SCORERS, column)]
        return spec.direction, f"{spec.about}; {spec.unit}"
    return "", ""


def summary(table: pd.DataFrame) -> dict[str, Any] | None:
    """Per model, sampler and upscaler, as far as the table tells them apart: cells, means of the
    scores, median of the seconds. Best values are marked.

    None where the table has none of those columns. The median is empty where the group's batch
    sizes, rungs or devices differ: those are never pooled.
    """
    groups = [name for name in GROUPS if name in table and table[name].notna().any()]
    if not groups:
        return None
    done = table[table["status"] == "ok"] if "status" in table else table
    if done.empty:
        return None
    scores = [
        name
        for name in done.select_dtypes("number").columns
        if (name in MEASURES or name in SCORERS) and done[name].notna().any()
    ]
    keys = done[groups].astype("string").fillna("–")
    rows: list[tuple[list[str], dict[str, float], int]] = []
    for _, part in done.groupby([keys[name] for name in groups], sort=False):
        alike = all(part[name].nunique(dropna=False) == 1 for name in ALIKE if name in part)
        figures = {name: float(part[name].mean()) for name in scores} | (
            {"seconds": float(part["seconds"].median()) if alike else float("nan")}
            if "seconds" in part
            else {}
        )
        rows.append(([str(keys.loc[part.index[0], name]) for name in groups], figures, len(part)))
    best = {name: _best(name, [figures[name] for _, figures, _ in rows]) for name in rows[0][1]}
    return {
        "heads": (
            [(name, *meaning(name)) for name in groups]
            + [("cells", "", "cells that are done")]
            + [
                (f"{name}" if name != "seconds" else "seconds, median", *meaning(name))
                for name in rows[0][1]
            ]
        ),
        "rows": [
            (
                keyed,
                count,
                [
                    (_number(value), len(rows) > 1 and _number(value) == best[name])
                    for name, value in figures.items()
                ],
            )
            for keyed, figures, count in rows[:MOST]
        ],
        "more": max(0, len(rows) - MOST),
    }


def _best(column: str, values: list[float]) -> str | None:
    """The best of a column as it is written, so that what reads the same is marked alike; None
    where there is no better."""
    known = [value for value in values if not math.isnan(value)]
    pick = {"higher": max, "lower": min}.get(meaning(column)[0])
    return _number(pick(known)) if pick and known else None


def _number(value: float) -> str:
    return (
        "–"
        if math.isnan(value)
        else (
            f"{value:.0f}"
            if abs(value) >= 1000
            else f"{value:.3g}"
            if abs(value) < 10
            else f"{value:.1f}"
        )
    )


def time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else (
            f"{minutes} min {rest:02d} s"
            if minutes < 60
            else f"{minutes // 60} h {minutes % 60:02d} min"
        )
    )


def text_of(value: Any) -> str:
    return (
        ", ".join(map(text_of, value))
        if isinstance(value, (list, tuple))
        else "null"
        if value is None
        else str(value)
    )


def thumbnails(table: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """A few pictures of a table, of as many models, samplers, upscalers and prompts as there are
    places, small enough to stand in the page."""
    there = table[(table["status"] == "ok") & table["image"].notna()].drop_duplicates("image")
    groups = [there[name].astype("string").fillna("") for name in GROUPS if name in there]
    for keys in (
        [*groups, there["prompt"]] if "prompt" in there else groups,
        groups,
    ):  # first another prompt, then another seed
        if keys:
            turn = there.groupby([key.loc[there.index] for key in keys], sort=False).cumcount()
            there = there.loc[turn.sort_values(kind="stable").index]
    found = []
    for line in there.head(PICTURES).sort_index().to_dict("records"):
        if (data := _jpeg(folder / line["image"], SIDE)) is not None:
            words = " · ".join(
                str(line[name]) for name in GROUPS if isinstance(line.get(name), str)
            )
            about = f"{line.get('prompt', '')} (seed {line.get('seed', '–')})"
            found.append(
                {
                    "data": data,
                    "href": quote(line["image"]),
                    "caption": words,
                    "about": about,
                    "kind": "picture",
                }
            )
    return found


def figures(home: Path, folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(home.glob("*.png"))[:FIGURES]:
        if (data := _jpeg(path, 2 * SIDE)) is not None:
            found.append(
                {
                    "data": data,
                    "href": quote(path.relative_to(folder).as_posix()),
                    "caption": path.stem,
                    "about": path.name,
                    "kind": "figure",
                }
            )
    return found


def _jpeg(path: Path, side: int) -> str | None:
    """A data address of a copy of at most `side` pixels; None where the picture cannot be read."""
    from PIL import Image

    from realkit.base.pictures import opaque

    try:
        with Image.open(path) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            opaque(image).save(file, "JPEG", quality=82)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
