"""Blind ballots: which pairs of pictures a voter sees, and the page that shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.analysis.pairs import AXES, labelled
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import write_atomically
from realkit.runs.folder import read

if TYPE_CHECKING:
    import pandas as pd

TRIALS = 60  # ten minutes at ten seconds each
REPEATED = 0.1  # of the trials, shown again with the sides swapped: is the voter of one mind?
SIDE = 768  # pixels, at most, of a picture's longer side: all at one size and in one encoding
PHOTOGRAPH = "photograph/"  # begins the name of a real one
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")
LEAST_REPEATED = 20  # trials from which some are repeated


@dataclass(frozen=True)
class Trial:
    """Two pictures of one prompt, by id, and which of them stands left."""

    a: str
    b: str
    prompt: str
    left: str


def trials(
    df: pd.DataFrame,
    by: Sequence[str],
    count: int = TRIALS,
    photographs: Sequence[str] = (),
    seed: int = 0,
) -> list[Trial]:
    """At most `count` pairs of pictures that differ in `by` alone, arms and prompts in turn, and a
    tenth of them again later with the sides swapped.

    `photographs` are names of real ones, each against a picture at random. Sides are random. Raises
    RequestError where no two pictures can be paired.
    """
    for name in by:
        if name not in df.columns:
            raise RequestError(f"The table has no column {shown(name)} to pair pictures by")
    rng = np.random.default_rng(seed)
    done = df[df["image"].notna()].copy()
    done["arm"] = labelled(done, by).map(str)
    keys = ["prompt", "seed", *(axis for axis in AXES if axis in done and axis not in by)]
    pairs: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}
    for _, group in done.groupby(_shared(done, keys), dropna=False, sort=False):
        cells = group.drop_duplicates("arm").to_dict("records")
        for first, second in combinations(cells, 2):
            pair = (picture_id(first["image"]), picture_id(second["image"]), first["prompt"])
            if pair[0] != pair[1]:  # arms may share a picture
                pairs.setdefault((first["arm"], second["arm"]), []).append(pair)
    for name in photographs:
        cells = done.sample(1, random_state=int(rng.integers(2**31))).to_dict("records")
        pair = f"{PHOTOGRAPH}{name}", picture_id(cells[0]["image"]), cells[0]["prompt"]
        pairs.setdefault(("photograph", cells[0]["arm"]), []).append(pair)
    if not pairs:
        raise RequestError(
            f"No two pictures of one prompt and seed differ in {' and '.join(by)} alone: nothing to"
            " vote on"
        )
    chosen = _in_turn(pairs, count, rng)
    order = rng.permutation(len(chosen))
    ballot = []
    for place in order:
        a, b, prompt = chosen[place]
        ballot.append(Trial(a, b, prompt, "ab"[int(rng.integers(2))]))
    if len(ballot) >= LEAST_REPEATED:
        for trial in ballot[: round(len(ballot) * REPEATED)]:
            swapped = {"a": "b", "b": "a"}[trial.left]
            ballot.append(Trial(trial.a, trial.b, trial.prompt, swapped))
    return ballot


def write(
    folder: str | Path,
    by: Sequence[str],
    out: Path,
    count: int = TRIALS,
    photographs: Path | None = None,
    seed: int = 0,
) -> None:
    """Write one HTML file with all its pictures, for any number of voters: it works from a disk,
    hides every name, and gives the votes as a file to merge. Raises RequestError where there is
    nothing to vote on."""
    import jinja2

    run = read(folder)
    df = run.table()
    names = photograph_names(photographs) if photographs else []
    ballot = trials(df, by, count, names[:count], seed)
    paths = {picture_id(name): run.folder / name for name in df["image"].dropna()}
    paths |= {f"{PHOTOGRAPH}{name}": Path(photographs or "") / name for name in names}
    wanted = [trial.a for trial in ballot] + [trial.b for trial in ballot]
    pictures = {name: embedded(paths[name]) for name in dict.fromkeys(wanted)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("realkit.analysis"), autoescape=True
    )
    data = {"trials": [asdict(trial) for trial in ballot], "pictures": pictures}
    text = environment.get_template("vote.html").render(data=data, title=run.folder.resolve().name)
    write_atomically(out, lambda file: file.write(text.encode()))


def photograph_names(folder: Path) -> list[str]:
    """The pictures in a folder. Raises RequestError where there is none."""
    names = []
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PHOTOGRAPHS)
    if not names:
        raise RequestError(
            f"No photographs in {str(folder)!r}: expected a folder with {', '.join(PHOTOGRAPHS)}"
        )
    return names


def embedded(path: Path) -> str:
    """A picture as a data address: RGB, upright, at most SIDE pixels, JPEG without subsampling."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"Cannot read the picture {str(path)!r}: {one_line(error)}") from error
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shared(done: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    """The keys that some two arms have in common; the others differ with the arm."""
    shared = []
    for key in keys:
        arms = done.groupby(key, dropna=False)["arm"].nunique()
        if key in ("prompt", "seed") or (arms > 1).any():
            shared.append(key)
    return shared


def _in_turn(
    pairs: dict[tuple[str, ...], list[tuple[str, str, str]]], count: int, rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """At most `count` pairs, one of each two arms in turn, in random order of prompts."""
    queues = []
    for own in pairs.values():
        queues.append([own[place] for place in rng.permutation(len(own))])
    chosen: list[tuple[str, str, str]] = []
    while queues and len(chosen) < count:
        for queue in queues:
            if len(chosen) < count:
                chosen.append(queue.pop())
        queues = [queue for queue in queues if queue]
    return chosen


def picture_id(image: Any) -> str:
    return Path(str(image)).stem
