"""Which pairs of pictures a blind voter sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.analysis.metrics import check_columns, column_names
from realkit.analysis.pairs import AXES, labelled
from realkit.base.door import check_kind
from realkit.base.errors import RequestError, shown

if TYPE_CHECKING:
    import pandas as pd

TRIALS = 60  # ten minutes at ten seconds each
REPEATED = 0.1  # of the trials, shown again with the sides swapped: is the voter of one mind?
LEAST_REPEATED = 20  # trials from which some are repeated
PHOTOGRAPH = "photograph/"  # begins the name of a real one


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
    by = column_names("by", by)
    check_columns(df, *by)
    for name, number, least in (("count", count, 1), ("seed", seed, 0)):
        check_kind(name, number, int)
        if number < least:
            raise RequestError(f"{name} {shown(number)}: expected {least} or more")
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
