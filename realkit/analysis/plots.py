"""Figures: a labelled grid of pictures, the trade-off between two columns, crops side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from realkit.analysis.forest import verdicts as verdicts
from realkit.analysis.metrics import check_columns
from realkit.base.errors import RequestError, one_line
from realkit.base.statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MARKERS = "osD^vP*Xph"  # one for each hue; numbers follow
LEGEND_ROWS = 25

Box = tuple[int, int, int, int]  # (left, top, right, bottom), pixels


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
    that all cells share is the title. A cell that is not ok shows its status. Raises RequestError
    for an empty table, a missing column, and a picture that cannot be read.
    """
    from matplotlib import pyplot as plt

    check_columns(df, rows, cols, "status", "image", "prompt")
    if caption:
        check_columns(df, caption)
        _check_numbers(df, caption)
    home = folder or df.attrs.get("folder")
    if home is None:
        raise RequestError("The table names no results folder: pass folder=")
    cells = _first_cells(df, rows, cols)
    pictures = {
        place: _picture(Path(home) / cell["image"])
        for place, cell in cells.items()
        if cell["status"] == "ok"
    }
    row_labels, col_labels = (list(dict.fromkeys(labels)) for labels in zip(*cells, strict=True))
    width = side * len(col_labels) + 1.0
    height = (side + (0.2 if caption else 0.06)) * len(row_labels) + 0.55
    figure, axes = plt.subplots(
        len(row_labels),
        len(col_labels),
        figsize=(width, height),
        squeeze=False,
        layout="constrained",
    )
    for axis, place in zip(axes.flat, product(row_labels, col_labels), strict=True):
        _draw_cell(axis, cells.get(place), pictures.get(place), caption)
    for axis, label in zip(axes[0], col_labels, strict=True):
        axis.set_title(_text(label, 20), fontsize=9)
    for axis, label in zip(axes[:, 0], row_labels, strict=True):
        axis.set_ylabel(_text(label, 18), fontsize=9, rotation=0, ha="right", va="center")
    if df["prompt"].nunique() == 1:
        figure.suptitle(_text(df["prompt"].iloc[0]), fontsize=10)
    return figure


def _draw_cell(
    axis: Axes, cell: Mapping[str, Any] | None, picture: Image | None, caption: str | None
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
            axis.set_xlabel(f"{cell[caption]:.1f}", fontsize=8)


def pareto(
    df: pd.DataFrame,
    x: str = "seconds",
    y: str = "clip",
    *,
    by: str = "sampler",
    hue: str = "model",
    unit: str = "prompt",
) -> Figure:
    """Mean of `y` over median of `x` for each pair of `by` and `hue`, and the pairs' front.

    Less `x` and more `y` are better; no pair beats the front in both. The mean is that of the means
    of each `unit`; a bar is its 95 % interval (`base.statistics.mean_interval`), absent where there
    is one `unit` only. `hue` may be the same column as `by`. Raises RequestError for a column that
    is missing or holds no numbers, and where times of different batch sizes, devices or number
    formats would be pooled.
    """
    from matplotlib import pyplot as plt

    check_columns(df, x, y, by, hue, "status", unit)
    done = df[df["status"] == "ok"].dropna(subset=[x, y])
    if done.empty:
        raise RequestError(f"No finished cell has both {x!r} and {y!r}")
    _check_numbers(done, x, y)
    if x == "seconds" or x.endswith("_s"):
        _check_times(done, x)
    done = done.assign(**{name: _labels(done, name) for name in (by, hue)})
    colours, markers = _colours(list(dict.fromkeys(done[by]))), _markers(dict.fromkeys(done[hue]))
    legend_cols = 1 + (len(colours) + len(markers)) // LEGEND_ROWS
    figure, axis = plt.subplots(figsize=(7 + 2 * legend_cols, 5), layout="constrained")
    points = []
    for (hue_value, name), group in done.groupby([hue, by], sort=False):
        mean, low, high, _ = mean_interval(group[y], group[unit].astype(str))
        points.append((group[x].median(), mean))
        style = {"color": colours[name], "marker": markers[hue_value]}
        bar = [[mean - low], [high - mean]]
        axis.errorbar(*points[-1], yerr=bar, capsize=2, elinewidth=0.8, **style)
    front = list(zip(*_front(points), strict=True))
    axis.step(*front, "--", where="post", label="front", color="#888888", linewidth=1, zorder=0)
    for name, colour in colours.items():
        marker = markers[name] if hue == by else "s"
        axis.plot([], [], marker=marker, color=colour, label=_text(name), linestyle="")
    if hue != by:
        for name, marker in markers.items():
            (line,) = axis.plot([], [], marker=marker, color="black", linestyle="")
            line.set(markerfacecolor="none", label=_text(name))
    axis.set(xlabel=f"{_text(x)} (median)", ylabel=f"{_text(y)} (mean, 95 % interval over {unit}s)")
    axis.grid(alpha=0.25)
    axis.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=legend_cols
    )
    return figure


def _colours(names: Sequence[Any]) -> dict[Any, Any]:
    from matplotlib import pyplot as plt

    if len(names) > 20:
        wheel = plt.get_cmap("turbo", len(names))
        return {name: wheel(n) for n, name in enumerate(names)}
    # tab20 alternates dark and light shades of ten colours: take the dark ones first.
    wheel = plt.get_cmap("tab20")
    return {name: wheel((2 * n) % 20 + n // 10) for n, name in enumerate(names)}


def _markers(hues: Mapping[Any, None]) -> dict[Any, str]:
    numbers = [f"${n + 1}$" for n in range(len(MARKERS), len(hues))]
    return dict(zip(hues, [*MARKERS, *numbers], strict=False))


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with more y than every point at less x, by ascending x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


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
    scene = next(iter(pictures.values()))
    left, top, right, bottom = box = box or _busiest(scene)
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
    extent = (0, scene.width, scene.height, 0)
    for axis, (name, picture) in zip(axes.flat[1:panels], pictures.items(), strict=True):
        axis.imshow(picture, extent=extent, interpolation="nearest")
        axis.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
        axis.set_xlabel(_text((captions or {}).get(name, "")), fontsize=8)
        axis.set_title(_text(name, 24), fontsize=9)
    return figure


def _draw_scene(axis: Axes, scene: Image, box: Box) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    axis.imshow(scene, extent=(0, scene.width, scene.height, 0), interpolation="lanczos")
    axis.set(xticks=[], yticks=[])
    axis.set_title("the scene", fontsize=9)
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


def _check_numbers(df: pd.DataFrame, *columns: str) -> None:
    from pandas.api.types import is_numeric_dtype

    for name in columns:
        values = df[name].dropna().infer_objects()
        if len(values) and not is_numeric_dtype(values):
            raise RequestError(f"Column {name!r} holds no numbers: expected a score or measurement")


def _check_times(df: pd.DataFrame, x: str) -> None:
    """Raise RequestError where the table holds times that must not be pooled."""
    for name in ("batch", "device", "dtype"):
        if name in df and df[name].nunique() > 1:
            values = ", ".join(map(str, sorted(df[name].unique())))
            raise RequestError(
                f"{x} was measured at different {name}: {values}. Filter the table first"
            )


def _labels(df: pd.DataFrame, name: str) -> list[Any]:
    """A column's values to lay out by; a missing upscaler reads "native", else "none"."""
    missing = "native" if name == "upscaler" else "none"
    return df[name].astype(object).where(df[name].notna(), missing).tolist()


def _first_cells(df: pd.DataFrame, rows: str, cols: str) -> dict[tuple[Any, Any], dict[Any, Any]]:
    """The first cell of each pair of labels."""
    cells: dict[tuple[Any, Any], dict[Any, Any]] = {}
    places = zip(_labels(df, rows), _labels(df, cols), strict=True)
    for place, cell in zip(places, df.to_dict("records"), strict=True):
        cells.setdefault(place, cell)
    return cells


def _picture(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(
            f"Picture {str(path)!r} of the table cannot be read: {one_line(error)}. Give its"
            " results folder, or run the sweep again"
        ) from error


def _text(value: Any, width: int = 1000) -> str:
    """Wrapped text to draw; a dollar sign does not start mathematics."""
    return fill(str(value), width).replace("$", r"\$")
