"""Figures: a labelled grid of pictures, the trade-off between two columns, crops side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.analysis.drawing import check_numbers, filtered, number_text, states, unseen
from realkit.analysis.forest import verdicts as verdicts
from realkit.analysis.lettering import Lettering
from realkit.analysis.metrics import check_columns, meaning, table_of
from realkit.analysis.pareto import pareto as pareto
from realkit.analysis.sentences import counted
from realkit.base.door import check_kind, door
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import check_picture, opaque, opened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOST_INCHES = 100
Place = tuple[Any, Any]  # a label of the rows and of the columns
Box = tuple[int, int, int, int]  # (left, top, right, bottom), pixels


@door
def grid(
    df: pd.DataFrame,
    rows: str = "model",
    cols: str = "sampler",
    *,
    folder: str | Path | None = None,
    caption: str | None = None,
    side: float = 1.5,
) -> Figure:
    """Pictures of a table laid out by two columns; each place shows its first cell.

    `side` is a picture's side in inches. `folder` is the results folder; `Run.table` keeps it in
    `df.attrs["folder"]`. `caption` names a score to print under each picture that has it. A prompt
    that all cells share is the title. A cell that is not ok shows its status. Notes below say what
    the numbers are, which settings the first cells have, and how many cells are not shown. Raises
    RequestError for an empty table, a missing column, and a picture that cannot be read.
    """
    from matplotlib import pyplot as plt

    home, given, df = folder or getattr(df, "attrs", {}).get("folder"), df, table_of(df)
    _check_size("side", side)
    check_columns(df, rows, cols, "status", "image", "prompt")
    if caption:
        check_columns(df, caption)
        check_numbers(df, caption)
    if home is None:
        raise RequestError("The table names no results folder: pass folder=")
    first, places = _first_cells(df, rows, cols)
    pictures: dict[Place, Image] = {}
    for place, cell in places.items():
        if cell["status"] == "ok" and isinstance(cell["image"], str):
            pictures[place] = _picture(Path(home) / cell["image"])
    row_labels, col_labels = (list(dict.fromkeys(labels)) for labels in zip(*places, strict=True))
    figure, axes = plt.subplots(
        len(row_labels),
        len(col_labels),
        figsize=(
            side * len(col_labels) + 1.0,
            (side + (0.2 if caption else 0.06)) * len(row_labels) + 0.55,
        ),
        squeeze=False,
        layout="constrained",
    )
    for axis, place in zip(axes.flat, product(row_labels, col_labels), strict=True):
        _draw_cell(axis, places.get(place), pictures.get(place), caption)
    lettering = Lettering()
    _draw_headers(axes, lettering, {rows: row_labels, cols: col_labels}, (rows, cols), side)
    if df["prompt"].nunique() == 1:
        lettering.title(figure, df["prompt"].iloc[0])
    notes = _caption_notes(first, caption)
    notes += _word_notes(first, len(row_labels) * len(col_labels))
    notes += [*unseen(df, first, (rows, cols)), *filtered(given)]
    return lettering.finish(figure, notes)


def _draw_headers(
    axes: np.ndarray,
    lettering: Lettering,
    labels: Mapping[str, list[Any]],
    names: tuple[str, str],
    side: float,
) -> None:
    """The values of both columns beside the pictures, their names in the corner. No header is
    longer than a picture's side."""
    rows, cols = names
    letters, lines = max(10, int(13 * side)), max(2, int(5.5 * side))
    for axis, label in zip(axes[0], lettering.labels(labels[cols], letters, lines), strict=True):
        axis.set_title(label, fontsize=9)
    heads = lettering.labels(labels[rows], 18, lines)
    for axis, label in zip(axes[:, 0], heads, strict=True):
        axis.set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center")
    corner = f"{lettering(cols, 18, 1)} →\n{lettering(rows, 18, 1)} ↓"
    axes[0, 0].annotate(
        corner,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(-5, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7.5,
        color="#666666",
    )


def _caption_notes(first: pd.DataFrame, caption: str | None) -> list[str]:
    """What the number under a picture is, and how many pictures have none."""
    if not caption:
        return []
    better, _ = meaning(caption)
    direction = f" ({better} is better)" if better in ("higher", "lower") else ""
    lacking = int(first.loc[first["status"] == "ok", caption].isna().sum())
    without = f"; {counted(lacking, 'picture')} without" if lacking else ""
    return [f"Under each picture: {caption}{direction}{without}."]


def _word_notes(first: pd.DataFrame, places: int) -> list[str]:
    """What places without a picture are."""
    parts = []
    if words := states(first):
        parts.append(f"No picture: {words}.")
    if places > len(first):
        parts.append(f"Grey: no cell in {counted(places - len(first), 'place')}.")
    return [" ".join(parts)] * bool(parts)


def _check_size(name: str, number: float) -> None:
    """Raise RequestError for inches or panels that no figure has."""
    check_kind(name, number, float)
    if not 0 < number <= MOST_INCHES:
        raise RequestError(
            f"{name} {shown(number)}: expected a number from above 0 to {MOST_INCHES}"
        )


def _draw_cell(
    axis: Axes, cell: Mapping[Any, Any] | None, picture: Image | None, caption: str | None
) -> None:
    """Draw a cell's picture with its caption, else its status; grey where there is no cell."""
    import pandas as pd

    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if cell is None:
        axis.set_facecolor("#eeeeee")
    elif picture is None:
        status = axis.text(0.5, 0.5, cell["status"], transform=axis.transAxes, color="#b00020")
        status.set(ha="center", va="center")
    else:
        axis.imshow(picture, interpolation="lanczos")
        if caption and pd.notna(cell[caption]):
            axis.set_xlabel(number_text(cell[caption]), fontsize=8)


@door
def crops(
    pictures: Mapping[str, Image],
    box: Box | None = None,
    *,
    captions: Mapping[str, str] | None = None,
    side: float = 2.2,
    across: int = 4,
) -> Figure:
    """One region of several pictures of a scene, enlarged, after the first picture as a whole.

    `box` is (left, top, right, bottom) in pixels of the first picture, framed there; by default its
    busiest square of a quarter side. Pictures of other sizes show the same part of the scene.
    `captions` are printed under the pictures they name; `side` is a panel's side in inches,
    `across` the panels of a row. Raises RequestError for a box outside the picture.
    """
    from matplotlib import pyplot as plt

    if not pictures:
        raise RequestError("No pictures to show: expected one or more, by name")
    for picture in pictures.values():
        check_picture(picture)
    _check_size("side", side)
    _check_size("across", across)
    check_kind("across", across, int)
    scene = next(iter(pictures.values()))
    edges = tuple(box or _busiest(scene))
    if len(edges) != 4:
        raise RequestError(f"Box {shown(edges)}: expected (left, top, right, bottom)")
    left, top, right, bottom = box = edges
    if not (0 <= left < right <= scene.width and 0 <= top < bottom <= scene.height):
        raise RequestError(
            f"Box {box}: expected (left, top, right, bottom) within {scene.width}×{scene.height}"
        )
    panels = 1 + len(pictures)
    down, across = -(-panels // across), min(across, panels)
    size = side * across, (side + (0.45 if captions else 0.25)) * down
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[panels:]:
        axis.set_axis_off()
    _draw_scene(axes.flat[0], scene, box)
    lettering = Lettering()
    extent = (0, scene.width, scene.height, 0)
    for axis, (name, picture) in zip(axes.flat[1:panels], pictures.items(), strict=True):
        axis.imshow(opaque(picture), extent=extent, interpolation="nearest")
        axis.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
        axis.set_xlabel(lettering((captions or {}).get(name, ""), 34, 2), fontsize=8)
    names = lettering.labels(list(pictures), max(12, int(11 * side)), 3)
    for axis, label in zip(axes.flat[1:panels], names, strict=True):
        axis.set_title(label, fontsize=9)
    return lettering.finish(figure)


def _draw_scene(axis: Axes, scene: Image, box: Box) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    extent = (0, scene.width, scene.height, 0)
    axis.imshow(opaque(scene), extent=extent, interpolation="lanczos")
    axis.set(xticks=[], yticks=[])
    axis.set_title("the scene", fontsize=9)
    part = f"{right - left}×{bottom - top} of {scene.width}×{scene.height} pixels"
    axis.set_xlabel(f"framed: {part}", fontsize=8)
    for colour, width in (("white", 2), ("#d00000", 1)):  # seen on dark and on light ground
        frame = Rectangle((left, top), right - left, bottom - top, fill=False)
        frame.set(color=colour, linewidth=width)
        axis.add_patch(frame)


def _busiest(picture: Image) -> Box:
    """The square of a quarter of the shorter side whose neighbouring pixels differ most."""
    import numpy as np

    side = max(1, min(picture.size) // 4)
    luma = np.asarray(picture.convert("L"), float)
    down = np.abs(np.diff(luma, axis=0, append=luma[-1:]))
    along = np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    sums = np.pad(down + along, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    # Four corners of the summed-area table give the sum of each square.
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = divmod(int(squares.argmax()), squares.shape[1])
    return left, top, left + side, top + side


def _labels(df: pd.DataFrame, name: str) -> list[Any]:
    """A column's values to lay out by; a missing upscaler reads "native", else "none"."""
    missing = "native" if name == "upscaler" else "none"
    return df[name].astype(object).where(df[name].notna(), missing).tolist()


def _first_cells(
    df: pd.DataFrame, rows: str, cols: str
) -> tuple[pd.DataFrame, dict[Place, dict[Any, Any]]]:
    """(the rows of the first cell of each place, the cells by place)."""
    places = list(zip(_labels(df, rows), _labels(df, cols), strict=True))
    first: dict[Place, int] = {}
    for number, place in enumerate(places):
        first.setdefault(place, number)
    part = df.iloc[list(first.values())]
    return part, dict(zip(first, part.to_dict("records"), strict=True))


def _picture(path: Path) -> Image:
    try:
        with opened(path, f"Picture {str(path)!r} of the table cannot be read") as image:
            return image.convert("RGB")
    except RequestError as error:
        raise RequestError(f"{error}. Give its results folder, or run the sweep again") from error
