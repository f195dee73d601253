"""`rk.sets`: figures of sets of pictures, from their embeddings: nearness to photographs, and
variety."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realkit.analysis.answer import Answer
from realkit.analysis.embeddings import SETTINGS, Embedded, embedded
from realkit.analysis.sentences import counted
from realkit.base import kernels
from realkit.base.errors import RequestError, shown
from realkit.runs.locks import read_locks

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 50  # photographs; fewer stand for little


def sets(
    folder: str | Path, encoder: str | None = None, photographs: str | Path | None = None
) -> Answer:
    """Figures of the sets of pictures of a results folder: a row for each prompt of each set, a set
    being all pictures of equal settings. `rk.compare` and `rk.aggregate` take the table: the prompt
    is their unit.

    - `kernel_distance`: 1,000 · squared kernel distance to the photographs; lower is nearer.
    - `told_apart`: %, how often a photograph looks more like the photographs than a picture of the
      prompt does, by a classifier that has seen neither; 50 is even, lower is better.
    - `diversity`: 100 · (1 - cos) between the pictures of a prompt over its seeds.
    - `vendi`: the effective number of different pictures of the prompt, up to `pictures`.

    base/kernels.py has the formulas. A prompt's `kernel_distance` is its share in that of its set
    (a jackknife pseudo-value): only means over prompts say anything. Intervals hold for these
    photographs. Photographs count at the size of the pictures, cropped and reduced. `set` names
    what was counted: the embeddings of its pictures and photographs.

    `encoder` and `photographs` (a folder of the sweep) may be left out where there is one. Raises
    RequestError where the folder has no embeddings.
    """
    found = embedded(folder, encoder)
    wanted = _photographs(found, photographs)
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    names = [name for name in SETTINGS if name in found.cells]
    for settings, part in found.cells.groupby(names, dropna=False, sort=False):
        size = int(part["image_width"].iloc[0]), int(part["image_height"].iloc[0])
        known = found.photographs.get(size, {})
        digests = sorted(wanted & known.keys())
        shots = np.array([known[digest]["image"] for digest in digests])
        if wanted and len(digests) < 2:
            notes[f"No two photographs are embedded at {size[0]}×{size[1]}: no distance."] = None
        rows += _set(found, part, shots, digests, dict(zip(names, settings, strict=True)))
    table = Answer(rows)
    most = table["pictures"].max()
    table.loc[table["pictures"] < most, "vendi"] = math.nan  # it grows with their number
    table.attrs["sentences"] = [*_said(found, wanted, table), *notes]
    return table


def _set(
    found: Embedded, part: pd.DataFrame, shots: NDArray, digests: list[str], settings: dict
) -> list[dict[str, Any]]:
    """The rows of a set, in the order of a hash of their prompts, which deals them to folds."""
    prompts = sorted(part["prompt"].unique(), key=_digest)
    groups = []
    for prompt in prompts:
        places = dict.fromkeys(part.index[part["prompt"] == prompt])
        groups.append(np.array([found.tensors[place]["image"] for place in places], float))
    near = kernels.distances(groups, shots) if len(digests) else np.full(len(groups), np.nan)
    told = kernels.told_apart(groups, shots) if len(digests) else np.full(len(groups), np.nan)
    name = _digest(" ".join([*sorted({found.ids[place] for place in part.index}), *digests]))[:16]
    rows = []
    for prompt, group, distance, share in zip(prompts, groups, near, told, strict=True):
        rows.append(
            settings
            | {"prompt": prompt, "seed": None, "status": "ok", "encoder": found.encoder}
            | {"set": name, "pictures": len(group), "photographs": len(digests)}
            | {"kernel_distance": distance, "told_apart": share}
            | {"diversity": kernels.diversity(group), "vendi": kernels.vendi(group)}
        )
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _photographs(found: Embedded, asked: str | Path | None) -> set[str]:
    """The SHA-256 of the photographs of a folder; none where the results have none."""
    folders = read_locks(found.folder).photographs
    if asked is None and len(folders) < 2:
        return set(chain.from_iterable(hashes.values() for hashes in folders.values()))
    if str(asked) not in folders:
        raise RequestError(
            f"photographs {shown(asked)}: expected one of the folders that the sweeps named:"
            f" {', '.join(folders) or 'none'}"
        )
    return set(folders[str(asked)].values())


def _said(found: Embedded, wanted: Iterable[str], table: pd.DataFrame) -> list[str]:
    lines = []
    if found.missing:
        lines.append(
            f"Not counted: {counted(found.missing, 'picture')} without an embedding by"
            f" {found.encoder}; run the sweep again with encoders=."
        )
    if not wanted:
        lines.append("No photographs: run the sweep with photographs=FOLDER to know the distance.")
    elif (least := int(table["photographs"].min())) < FEW:
        lines.append(f"Only {counted(least, 'photograph')}: the distance is to them, not to more.")
    if table.groupby("set")["prompt"].nunique().min() < 3:
        lines.append("A set of fewer than three prompts has no kernel distance.")
    if table["pictures"].max() < 2:
        lines.append("One seed a prompt: no diversity. Run the sweep with more seeds.")
    elif table["pictures"].nunique() > 1:
        lines.append("Prompts with fewer pictures than others have no Vendi score.")
    if table["pictures"].max() > 1:
        lines.append("Variety is better among good pictures alone: noise is various too.")
    return lines
