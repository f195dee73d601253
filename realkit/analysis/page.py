"""What a page of results shows of a table: a summary with the best values marked, thumbnails."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realkit.analysis.drawing import averaged, number_text, states
from realkit.analysis.metrics import meaning
from realkit.analysis.pairs import CONDITIONS
from realkit.analysis.sentences import counted
from realkit.base.errors import RequestError
from realkit.base.pictures import opaque, opened
from realkit.scorers.likeness import MEASURES
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

PICTURES = 8  # thumbnails of an entry
FIGURES = 4  # of the figures that its notebook saved
FIGURE_FILES = "*.png"
SIDE = 176  # pixels of a thumbnail's longer side; a figure's is twice as long
GROUPS = ("model", "sampler", "upscaler")
SUMMARY_ROWS = 60
ALIKE = (*CONDITIONS, "tile")  # times are pooled only where these are equal


def plain_value(table: pd.DataFrame) -> pd.DataFrame:
    """A copy that the functions below can read, also of a table that a notebook made itself.

    A missing status is "ok"; a time that is not a number is empty.
    """
    import pandas as pd

    table = table.copy()
    if "status" not in table:
        table["status"] = "ok"
    if "seconds" in table:
        table["seconds"] = pd.to_numeric(table["seconds"], errors="coerce").astype("float64")
    return table


def summary(table: pd.DataFrame) -> dict[str, Any] | None:
    """The finished cells of each model, sampler and upscaler: how many, mean scores, median time.

    `heads` holds (name, better is, meaning) of each column; `rows` the group's names, its number of
    cells, and (text, is best) of each figure; `more` is the number of rows left out, `notes` say
    which cells are, and what a row pools. None without finished cells or without a column to group
    by. The median time is empty where a group mixes
    batch sizes, rungs, devices, cards, number formats or tiles.
    """
    groups = [name for name in GROUPS if name in table and table[name].notna().any()]
    done = table[table["status"] == "ok"]
    if not groups or done.empty:
        return None
    names = done[groups].astype("string").fillna("–")
    grouped = done.assign(**names).groupby(groups, sort=False)
    figures: dict[str, pd.Series] = {}
    for name in map(str, done.select_dtypes("number")):
        if (name in MEASURES or name in SCORERS) and done[name].notna().any():
            figures[name] = grouped[name].mean()
    if "seconds" in done:
        median = grouped["seconds"].median()
        for name in ALIKE:
            if name in done:
                median = median.where(grouped[name].nunique(dropna=False) == 1)
        figures["seconds"] = median
    best = {name: _best(name, values.tolist()) for name, values in figures.items()}
    counts = grouped.size()
    places = counts.index.to_frame().to_numpy().tolist()
    rows = []
    for n, labels in enumerate(places[:SUMMARY_ROWS]):
        texts = {name: number_text(values.iloc[n]) for name, values in figures.items()}
        marked = [(text, len(places) > 1 and text == best[name]) for name, text in texts.items()]
        rows.append((labels, int(counts.iloc[n]), marked))
    heads = [(name, *meaning(name)) for name in groups]
    heads.append(("cells", "", "finished cells"))
    for name in figures:
        heads.append(("seconds, median" if name == "seconds" else name, *meaning(name)))
    notes = [*_without(table, list(figures)), *averaged(done, groups, "Each row")]
    return {"heads": heads, "rows": rows, "more": len(places) - len(rows), "notes": notes}


def _without(table: pd.DataFrame, figures: list[str]) -> list[str]:
    """A note of the cells that are not in a summary, and of the scores that finished cells lack."""
    parts = [states(table)]
    done = table[table["status"] == "ok"]
    for name in figures:
        if lacking := int(done[name].isna().sum()):
            parts.append(f"{name} of {counted(lacking, 'finished cell')}")
    parts = list(filter(None, parts))
    return [f"Left out: {'; '.join(parts)}."] * bool(parts)


def not_shown(entries: Sequence[Mapping[str, str]], pictures: int, home: Path) -> str:
    """How many of an entry's pictures and of the figures in `home` its page shows; "" if all."""
    kinds = [entry["kind"] for entry in entries]
    parts = []
    for kind, whole in (("picture", pictures), ("figure", len(list(home.glob(FIGURE_FILES))))):
        if kinds.count(kind) < whole:
            parts.append(f"{kinds.count(kind)} of {counted(whole, kind)}")
    return f"Shown: {', '.join(parts)}." if parts else ""


def _best(column: str, values: list[float]) -> str | None:
    """A column's best value as text, so that equal texts are marked alike; None without a best."""
    numbers = [value for value in values if not math.isnan(value)]
    pick = {"higher": max, "lower": min}.get(meaning(column)[0])
    return number_text(pick(numbers)) if pick and numbers else None


def time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def text_of(value: Any) -> str:
    """A notebook parameter as text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text_of, value))
    return "null" if value is None else str(value)


def thumbnails(table: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """A few pictures of a table in `folder`, of as many groups and prompts as possible."""
    cells = table[(table["status"] == "ok") & table["image"].notna()].drop_duplicates("image")
    groups = [name for name in GROUPS if name in cells]
    # Stable sorts, the last decides: first every group once, then each with another prompt, and
    # only then with another seed.
    for names in ([*groups, "prompt"] if "prompt" in cells else groups, groups):
        if names:
            keys = cells[names].astype("string").fillna("")
            turn = keys.groupby(names, sort=False).cumcount()
            cells = cells.loc[turn.sort_values(kind="stable").index]
    entries = []
    for cell in cells.head(PICTURES).sort_index().to_dict("records"):
        words = [cell[name] for name in GROUPS if isinstance(cell.get(name), str)]
        about = f"{cell.get('prompt', '')} (seed {cell.get('seed', '–')})"
        if picture := _thumbnail(folder, cell["image"], SIDE):
            caption = " · ".join(words)
            entries.append(picture | {"caption": caption, "about": about, "kind": "picture"})
    return entries


def figures(home: Path, folder: Path) -> list[dict[str, str]]:
    """The first figures that a notebook saved in `home`, a folder below `folder`."""
    entries = []
    for path in sorted(home.glob(FIGURE_FILES))[:FIGURES]:
        if picture := _thumbnail(folder, path.relative_to(folder).as_posix(), 2 * SIDE):
            entries.append(picture | {"caption": path.stem, "about": path.name, "kind": "figure"})
    return entries


def _thumbnail(folder: Path, name: str, side: int) -> dict[str, str] | None:
    """The link and the data address of a picture of at most `side` pixels; None if unreadable."""
    from PIL import Image

    try:
        with opened(folder / name) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            opaque(image).save(file, "JPEG", quality=82)
    except RequestError:
        return None
    data = base64.b64encode(file.getvalue()).decode()
    return {"href": quote(name), "data": f"data:image/jpeg;base64,{data}"}
