"""`rk.sets`: figures of sets of pictures, from their embeddings: nearness to photographs, and
variety."""

from __future__ import annotations

import hashlib
import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realkit.analysis.answer import Answer
from realkit.analysis.embeddings import SETTINGS, Embedded, embedded
from realkit.analysis.pairs import labelled
from realkit.analysis.sentences import MOST_NAMED, counted
from realkit.base import kernels
from realkit.base.errors import RequestError, shown
from realkit.runs.folder import Run
from realkit.runs.locks import read_locks

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 50  # photographs; fewer stand for little


def sets(
    folder: str | Path | Run, encoder: str | None = None, photographs: str | Path | None = None
) -> Answer:
    """Figures of the sets of pictures of a results folder: a row for each prompt of each set, a set
    being all pictures of equal settings. `rk.compare` and `rk.aggregate` take the table: the prompt
    is their unit.

    - `kernel_distance`: 1,000 · squared kernel distance to the photographs; lower is nearer.
    - `told_apart`: %, how often a photograph looks more like the photographs than a picture of the
      set does, by a classifier that has seen neither; near 50 it cannot tell. It describes a set
      and has no verdict: a classifier learns more from larger sets, and its prompts share it.
    - `diversity`: 100 · (1 - cos) between the pictures of a prompt over its seeds.
    - `vendi`: the effective number of different pictures of the prompt, up to `pictures`.

    base/kernels.py has the formulas. A prompt's `kernel_distance` is its share in that of its set
    (a jackknife pseudo-value): only means over all prompts of a set say anything. It is computed
    over the prompts that all sets have. Intervals hold for these photographs, which count at the
    size of the pictures, cropped and reduced. `set` names what was counted: the embeddings of its
    pictures, and its photographs.

    `encoder` and `photographs` (a folder of the sweep) may be left out where there is one. Raises
    RequestError where the folder has no embeddings.
    """
    found = embedded(folder, encoder)
    wanted = _photographs(found, photographs)
    names = [name for name in SETTINGS if name in found.cells]
    prompts_of = found.cells.groupby(names, dropna=False, sort=False)["prompt"].agg(set)
    shared = set.intersection(*prompts_of)
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for settings, part in found.cells.groupby(names, dropna=False, sort=False):
        size = int(part["image_width"].iloc[0]), int(part["image_height"].iloc[0])
        known = found.photographs.get(size, {})
        digests = sorted(wanted & known.keys())
        shots = np.array([known[digest]["image"] for digest in digests])
        if wanted and len(digests) < 2:
            notes[f"No two photographs are embedded at {size[0]}×{size[1]}: no distance."] = None
        hashes = sorted(set(map(found.ids.__getitem__, part.index))) + digests
        facts = {"set": _digest(" ".join(hashes))[:16], "photographs": len(digests)}
        facts |= dict(zip(names, settings, strict=True))
        rows += _set(found, part, shots, shared, facts)
    table = Answer(rows)
    most = table["pictures"].max()
    table.loc[table["pictures"] < most, "vendi"] = math.nan  # it grows with their number
    if unshared := len(set.union(*prompts_of) - shared):
        notes[f"Not in the distance: {counted(unshared, 'prompt')} that not every set has."] = None
    table.attrs["sentences"] = [*_said(found, wanted, table), *notes]
    return table


def _set(
    found: Embedded, part: pd.DataFrame, shots: NDArray, shared: set[str], facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a set, in the order of a hash of their prompts, which deals them to folds."""
    groups: dict[str, NDArray] = {}
    for prompt in sorted(part["prompt"].unique(), key=_digest):
        places = part.index[part["prompt"] == prompt]
        groups[prompt] = np.array([found.tensors[place]["image"] for place in places], float)
    common = list(filter(shared.__contains__, groups))
    near = kernels.distances([groups[prompt] for prompt in common], shots)
    distance_of = dict(zip(common, near, strict=True))
    told = kernels.told_apart(list(groups.values()), shots).mean()
    rows = []
    for prompt, group in groups.items():
        rows.append(
            facts
            | {"encoder": found.encoder, "prompt": prompt, "seed": None, "status": "ok"}
            | {"pictures": len(group)}
            | {"kernel_distance": distance_of.get(prompt, math.nan), "told_apart": told}
            | {"diversity": kernels.diversity(group), "vendi": kernels.vendi(group)}
        )
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _photographs(found: Embedded, asked: str | Path | None) -> set[str]:
    """The SHA-256 of the photographs of a folder; none where the results have none."""
    folders = read_locks(found.folder).photographs
    different = {frozenset(hashes.values()) for hashes in folders.values()}
    if asked is None and len(different) < 2:
        return set(chain.from_iterable(different))
    if asked is None or str(Path(asked)) not in folders:
        given = "are of several folders" if asked is None else f"{shown(str(asked))}"
        named = ", ".join(folders) or "none"
        raise RequestError(f"photographs {given}: expected one that the sweeps named: {named}")
    return set(folders[str(Path(asked))].values())


def _told(table: pd.DataFrame) -> list[str]:
    """A line of how often each set is told apart, by the settings that vary."""
    first = table.drop_duplicates("set")
    varied = [name for name in SETTINGS if name in first and first[name].nunique(dropna=False) > 1]
    if first["told_apart"].isna().all() or len(first) > MOST_NAMED:
        return []
    labels = labelled(first, varied) if varied else ["all"]
    parts = []
    for label, share in zip(labels, first["told_apart"], strict=True):
        parts.append(f"{label} {share:.0f} %")
    return [f"Told apart from photographs (near 50 % is even): {', '.join(parts)}."]


def _said(found: Embedded, wanted: set[str], table: pd.DataFrame) -> list[str]:
    lines = _told(table)
    if found.missing:
        lines.append(
            f"Not counted: {counted(found.missing, 'picture')} without an embedding by"
            f" {found.encoder}; run the sweep again with encoders=."
        )
    if not wanted:
        lines.append("No photographs: run the sweep with photographs=FOLDER to know the distance.")
    elif 1 < (least := int(table["photographs"].min())) < FEW:
        lines.append(f"Only {counted(least, 'photograph')}: the distance is to them, not to more.")
    if 0 < table["photographs"].min() < len(wanted):
        absent = len(wanted) - int(table["photographs"].min())
        lines.append(f"Not counted: {counted(absent, 'photograph')}, too small or not embedded.")
    if table.groupby("set")["prompt"].nunique().min() < 3:
        lines.append("A set of fewer than three prompts has no kernel distance.")
    if table["pictures"].max() < 2:
        lines.append("One seed a prompt: no diversity. Run the sweep with more seeds.")
    elif table["pictures"].nunique() > 1:
        lines.append("Prompts with fewer pictures than others have no Vendi score.")
    if table["pictures"].max() > 1:
        lines.append("Variety is better among good pictures alone: noise is various too.")
    return lines
