"""Pictures of a table: the labelled grid, and the trade-off between two columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def grid(
    df: pd.DataFrame, rows: str = "model", cols: str = "sampler", *, folder: str | Path | None = None, caption: str | None = None, side: float = 1.5
) -> Figure:
    """Pictures of a table laid out by two columns; the first of each place is shown. `side` is a picture's side in inches.

    `folder` is the results folder (kept in `df.attrs["folder"]` by `Run.table`); `caption` a score to print under each
    picture. Where every cell shares a prompt, it is the title. Failed cells say so. Raises RequestError for a column the
    table lacks.
    """
    from matplotlib import pyplot as plt
    from PIL import Image

    _need(df, rows, cols, *([caption] if caption else []))
    home = Path(folder or df.attrs.get("folder", "."))
    down, across = list(dict.fromkeys(df[rows])), list(dict.fromkeys(df[cols]))
    figure, axes = plt.subplots(
        len(down), len(across), figsize=(side * len(across) + 1.0, (side + (0.2 if caption else 0.06)) * len(down) + 0.55), squeeze=False, layout="constrained"
    )
    for i, row in enumerate(down):
        for j, col in enumerate(across):
            axis = axes[i][j]
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if i == 0:
                axis.set_title(_wrap(col, 20), fontsize=9)
            if j == 0:
                axis.set_ylabel(_wrap(row, 18), fontsize=9, rotation=0, ha="right", va="center")
            here = df[(df[rows] == row) & (df[cols] == col)]
            if here.empty:
                axis.set_facecolor("#eeeeee")
            elif here.iloc[0]["status"] != "ok":
                axis.text(0.5, 0.5, here.iloc[0]["status"], ha="center", va="center", transform=axis.transAxes, color="#b00020")
            else:
                with Image.open(home / here.iloc[0]["image"]) as image:
                    axis.imshow(image.convert("RGB"), interpolation="lanczos")
                if caption:
                    axis.set_xlabel(f"{here.iloc[0][caption]:.1f}", fontsize=8)
    if df["prompt"].nunique() == 1:
        figure.suptitle(df["prompt"].iloc[0], fontsize=10)
    return figure


def pareto(df: pd.DataFrame, x: str = "seconds", y: str = "clip", *, by: str = "sampler", hue: str = "model") -> Figure:
    """Mean of `y` over mean of `x` (less is better) for each pair of `by` and `hue`, with the front no pair beats in both.

    Bars are 95 % intervals of the mean, from a bootstrap over prompts. Raises RequestError for a column the table lacks,
    and where times of different batch sizes or devices would be pooled.
    """
    from matplotlib import pyplot as plt

    _need(df, x, y, by, hue)
    done = df[df["status"] == "ok"].dropna(subset=[x, y])
    if done.empty:
        raise RequestError(f"No finished cell has both {x!r} and {y!r}")
    if x.endswith("_s") or x == "seconds":
        mixed = [name for name in ("batch", "device", "dtype") if done[name].nunique() > 1]
        if mixed:
            raise RequestError(f"{x} was measured at different {mixed[0]}: {', '.join(map(str, sorted(done[mixed[0]].unique())))}. Filter the table first")
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    wheel = plt.get_cmap("tab20")
    colours = {name: wheel((2 * n) % 20 + n // 10) for n, name in enumerate(dict.fromkeys(done[by]))}
    markers = dict(zip(dict.fromkeys(done[hue]), "osD^vP*Xph", strict=False))
    points = []
    for (model, name), group in done.groupby([hue, by], sort=False):
        at, mean, (low, high) = group[x].median(), group[y].mean(), _interval(group, y)
        points.append((at, mean))
        axis.errorbar(at, mean, yerr=[[mean - low], [high - mean]], color=colours[name], marker=markers.get(model, "."), capsize=2, elinewidth=0.8)
    front: list[tuple[float, float]] = []
    for at, mean in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or mean > front[-1][1]:
            front.append((at, mean))
    axis.step(*zip(*front, strict=True), where="post", color="#888888", linewidth=1, linestyle="--", label="front", zorder=0)
    for name, colour in colours.items():
        axis.plot([], [], "s", color=colour, label=str(name))
    for name, marker in markers.items():
        axis.plot([], [], marker, color="black", markerfacecolor="none", label=str(name))
    axis.set(xlabel=f"{x} (median)", ylabel=f"{y} (mean, 95 % interval over prompts)")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def _interval(group: pd.DataFrame, y: str) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling prompts."""
    import numpy as np

    means = group.groupby("prompt")[y].mean().to_numpy()
    drawn = np.random.default_rng(0).choice(means, (2000, len(means))).mean(1)
    return min(float(np.quantile(drawn, 0.025)), means.mean()), max(float(np.quantile(drawn, 0.975)), means.mean())


def _need(df: pd.DataFrame, *columns: str) -> None:
    for name in columns:
        if name not in df.columns:
            raise RequestError(f"The table has no column {name!r}: expected one of {', '.join(df.columns)}")


def _wrap(value: Any, width: int) -> str:
    from textwrap import fill

    return fill(str(value), width)
