"""Pictures of a table: the labelled grid, the trade-off between two columns; and of one region as
many tools made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.analysis.verdicts import interval
from realkit.base.errors import RequestError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

SHAPES = "osD^vP*Xph"  # of pareto's points; numbers go on where they end


def grid(
    df: pd.DataFrame,
    rows: str = "model",
    cols: str = "sampler",
    *,
    folder: str | Path | None = None,
    caption: str | None = None,
    side: float = 1.5,
) -> Figure:
    """Pictures of a table laid out by two columns; the first of each place is shown. `side` is a
    picture's side in inches.

    `folder` is the results folder (kept in `df.attrs["folder"]` by `Run.table`); `caption` a score
    to print under each picture that has it. Where every cell shares a prompt, it is the title.
    Failed cells say so. Raises RequestError for an empty table, a column it lacks, and a picture
    that is not there.
    """
    import pandas as pd
    from matplotlib import pyplot as plt

    _need(df, rows, cols, "status", "image", "prompt", *([caption] if caption else []))
    if caption:
        _numbers(df, caption)
    home = folder or df.attrs.get("folder")
    if home is None:
        raise RequestError(
            "The table does not say where its pictures lie: give folder=, the results folder"
        )
    places = _places(df, rows, cols)
    down, across = (list(dict.fromkeys(place[n] for place in places)) for n in (0, 1))
    pictures = {
        place: _picture(Path(home) / cell["image"])
        for place, cell in places.items()
        if cell["status"] == "ok"
    }
    figure, axes = plt.subplots(
        len(down),
        len(across),
        figsize=(side * len(across) + 1.0, (side + (0.2 if caption else 0.06)) * len(down) + 0.55),
        squeeze=False,
        layout="constrained",
    )
    for i, row in enumerate(down):
        for j, col in enumerate(across):
            axis, cell = axes[i][j], places.get((row, col))
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if i == 0:
                axis.set_title(_text(col, 20), fontsize=9)
            if j == 0:
                axis.set_ylabel(_text(row, 18), fontsize=9, rotation=0, ha="right", va="center")
            if cell is None:
                axis.set_facecolor("#eeeeee")
            elif (row, col) not in pictures:
                axis.text(
                    0.5,
                    0.5,
                    cell["status"],
                    ha="center",
                    va="center",
                    transform=axis.transAxes,
                    color="#b00020",
                )
            else:
                axis.imshow(pictures[row, col], interpolation="lanczos")
                if caption and pd.notna(cell[caption]):
                    axis.set_xlabel(f"{cell[caption]:.1f}", fontsize=8)
    if df["prompt"].nunique() == 1:
        figure.suptitle(_text(df["prompt"].iloc[0]), fontsize=10)
    return figure


def pareto(
    df: pd.DataFrame,
    x: str = "seconds",
    y: str = "clip",
    *,
    by: str = "sampler",
    hue: str = "model",
    unit: str = "prompt",
) -> Figure:
    """Mean of `y` over median of `x` (less is better) for each pair of `by` and `hue`, with the
    front no pair beats in both.

    Bars are 95 % intervals of the mean, from a bootstrap over the values of `unit`. `hue` may be
    the same column as `by`. Raises RequestError for a column the table lacks or that holds no
    numbers, and where times of different batch sizes or devices would be pooled.
    """
    from matplotlib import pyplot as plt

    _need(df, x, y, by, hue, "status", unit)
    done = df[df["status"] == "ok"].dropna(subset=[x, y])
    if done.empty:
        raise RequestError(f"No finished cell has both {x!r} and {y!r}")
    _numbers(done, x, y)
    done = done.assign(**{name: _labels(done, name) for name in (by, hue)})
    if x.endswith("_s") or x == "seconds":
        mixed = [
            name
            for name in ("batch", "device", "dtype")
            if name in done and done[name].nunique() > 1
        ]
        if mixed:
            raise RequestError(
                f"{x} was measured at different {mixed[0]}:"
                f" {', '.join(map(str, sorted(done[mixed[0]].unique())))}. Filter the table first"
            )
    names, hues = list(dict.fromkeys(done[by])), list(dict.fromkeys(done[hue]))
    legends = 1 + (len(names) + len(hues)) // 25  # columns of the legend
    figure, axis = plt.subplots(figsize=(7 + 2 * legends, 5), layout="constrained")
    wheel = plt.get_cmap("tab20") if len(names) <= 20 else plt.get_cmap("turbo", len(names))
    colours = {
        name: wheel((2 * n) % 20 + n // 10 if len(names) <= 20 else n)
        for n, name in enumerate(names)
    }
    markers = {name: SHAPES[n] if n < len(SHAPES) else f"${n + 1}$" for n, name in enumerate(hues)}
    points = []
    for (model, name), group in done.groupby([hue, by], sort=False):
        at, mean, (low, high) = group[x].median(), group[y].mean(), interval(group, y, unit)
        points.append((at, mean))
        axis.errorbar(
            at,
            mean,
            yerr=[[mean - low], [high - mean]],
            color=colours[name],
            marker=markers[model],
            capsize=2,
            elinewidth=0.8,
        )
    front: list[tuple[float, float]] = []
    for at, mean in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or mean > front[-1][1]:
            front.append((at, mean))
    axis.step(
        *zip(*front, strict=True),
        where="post",
        color="#888888",
        linewidth=1,
        linestyle="--",
        label="front",
        zorder=0,
    )
    for name, colour in colours.items():
        axis.plot(
            [],
            [],
            linestyle="",
            marker=markers[name] if hue == by else "s",
            color=colour,
            label=_text(name),
        )
    for name, marker in markers.items() if hue != by else ():
        axis.plot(
            [],
            [],
            linestyle="",
            marker=marker,
            color="black",
            markerfacecolor="none",
            label=_text(name),
        )
    axis.set(xlabel=f"{_text(x)} (median)", ylabel=f"{_text(y)} (mean, 95 % interval over {unit}s)")
    axis.grid(alpha=0.25)
    axis.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=legends
    )
    return figure


def crops(
    pictures: Mapping[str, Image],
    box: tuple[int, int, int, int] | None = None,
    *,
    captions: Mapping[str, str] | None = None,
    side: float = 2.2,
    across: int = 4,
) -> Figure:
    """The same region of several pictures of one scene, zoomed; before them all of the first, the
    region framed. `side` is a picture's side in inches.

    `box` is (left, top, right, bottom) in pixels of the first picture, by default the busiest
    quarter of its side; pictures of other sizes show the same part of the scene. `captions` are
    printed under the pictures they name. Raises RequestError for a box outside.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    if not pictures:
        raise RequestError("No pictures to show: expected one or more, by name")
    first = next(iter(pictures.values()))
    left, top, right, bottom = box or _busiest(first)
    if not (0 <= left < right <= first.width and 0 <= top < bottom <= first.height):
        raise RequestError(
            f"Box {(left, top, right, bottom)}: expected (left, top, right, bottom) within"
            f" {first.width}×{first.height}"
        )
    panels = [("", first), *pictures.items()]
    down, across = -(-len(panels) // across), min(across, len(panels))
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(side * across, (side + (0.45 if captions else 0.25)) * down),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, picture) in zip(axes.flat, panels, strict=False):
        axis.imshow(
            picture,
            extent=(0, first.width, first.height, 0),
            interpolation="nearest" if name else "lanczos",
        )
        axis.set(xticks=[], yticks=[])
        if name:
            axis.set(
                xlim=(left, right), ylim=(bottom, top), xlabel=_text((captions or {}).get(name, ""))
            )
        else:
            axis.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top, fill=False, color="white", linewidth=2
                )
            )
            axis.add_patch(
                Rectangle(
                    (left, top),
                    right - left,
                    bottom - top,
                    fill=False,
                    color="#d00000",
                    linewidth=1,
                )
            )
        axis.set_title(_text(name, 24) or "the scene", fontsize=9)
        axis.xaxis.label.set_size(8)
    return figure


def _busiest(picture: Image) -> tuple[int, int, int, int]:
    """The square of a quarter of a picture's shorter side whose neighbouring pixels differ most."""
    import numpy as np

    side = max(1, min(picture.size) // 4)
    luma = np.asarray(picture.convert("L"), float)
    steep = np.abs(np.diff(luma, axis=0, append=luma[-1:])) + np.abs(
        np.diff(luma, axis=1, append=luma[:, -1:])
    )
    sums = np.pad(steep, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    held = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(place) for place in np.unravel_index(held.argmax(), held.shape))
    return left, top, left + side, top + side


def _need(df: pd.DataFrame, *columns: str) -> None:
    for name in columns:
        if name not in df.columns:
            raise RequestError(
                f"The table has no column {name!r}: expected one of {', '.join(df.columns)}"
            )
    if df.empty:
        raise RequestError("The table has no rows: expected at least one cell")


def _numbers(df: pd.DataFrame, *columns: str) -> None:
    from pandas.api.types import is_numeric_dtype

    for name in columns:
        known = df[name].dropna().infer_objects()
        if len(known) and not is_numeric_dtype(known):
            raise RequestError(
                f"Column {name!r} holds no numbers: expected a score or a measurement"
            )


def _labels(df: pd.DataFrame, name: str) -> list[Any]:
    """A column's values to lay out by, with a word where there is none: without an upscaler the
    size is native."""
    missing = "native" if name == "upscaler" else "none"
    return [
        missing if lacks else value for value, lacks in zip(df[name], df[name].isna(), strict=True)
    ]


def _places(df: pd.DataFrame, rows: str, cols: str) -> dict[tuple[Any, Any], Any]:
    """The first cell of each pair of labels."""
    places: dict[tuple[Any, Any], Any] = {}
    for row, col, (_, cell) in zip(
        _labels(df, rows), _labels(df, cols), df.iterrows(), strict=True
    ):
        places.setdefault((row, col), cell)
    return places


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
    """Words to draw as they stand, wrapped: a dollar is no beginning of mathematics."""
    from textwrap import fill

    return fill(str(value), width).replace("$", r"\$")
