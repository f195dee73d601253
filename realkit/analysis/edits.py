"""`rk.edits`: whether a change of one attribute of a prompt shows in the picture, and what else it
changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from realkit.analysis.answer import Answer
from realkit.analysis.embeddings import SETTINGS, Embedded, Tensors, embedded
from realkit.analysis.sentences import counted
from realkit.base.errors import RequestError
from realkit.base.suggest import instead
from realkit.catalog.lookup import find
from realkit.catalog.suites import BASE, PROMPTS, SUITE
from realkit.runs.folder import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray


def edits(folder: str | Path | Run, suite: str, encoder: str | None = None) -> Answer:
    """How pictures answer to edits of their prompt: a row for each picture of a base prompt and
    attribute that the suite edits. `rk.compare` and `rk.aggregate` take the table: the base prompt
    is their unit, and `within="attribute"` tells attributes apart.

    Of the pictures of both prompts, made with equal seed and settings:

    - `response`: 100 · cos between the change of the picture and the change of the words
      (directional similarity, arXiv 2108.00946); higher is better, 0 is no answer.
    - `answered`: 100 where `response` is above 0, else 0.
    - `leakage`: percent points by which the picture's other attributes moved: of each attribute
      that this edit keeps, how far the probability that the picture shows that attribute's own
      edit, not the base, changed; their mean, lower is better. Empty where the suite edits one
      attribute of a base alone, or a picture of another edit of the base is missing.

    `suite` is one with edits, such as "rehearsal-edits" or "people-edits", whose prompts the sweep
    made: prompts="suite:NAME". `encoder` must read words; it may be left out where there is one.
    Raises RequestError.
    """
    name = find(PROMPTS, suite.removeprefix(SUITE) if isinstance(suite, str) else suite)
    if not PROMPTS[name].edits:
        known = [other for other in PROMPTS if PROMPTS[other].edits]
        raise RequestError(f"Suite {name!r} has no edits{instead(name, known)}")
    found = embedded(folder, encoder)
    if "prompt" not in found.tensors[0]:
        raise RequestError(
            f"Encoder {found.encoder!r} reads no words: run the sweep with encoders='clip'"
        )
    words = _words(found)
    rows, lacking = [], 0
    names = [name for name in (*SETTINGS, "seed") if name in found.cells]
    for settings, part in found.cells.groupby(names, dropna=False, sort=False):
        tensors = map(found.tensors.__getitem__, part.index)
        pictures = dict(zip(part["prompt"], tensors, strict=True))
        cells = dict(zip(names, settings, strict=True))
        for edit in PROMPTS[name].edits:
            texts = dict(edit)
            before = pictures.get(texts.pop(BASE))
            for attribute, text in texts.items():
                after = pictures.get(text)
                if before is None or after is None:
                    lacking += 1
                    continue
                others = filter(text.__ne__, texts.values())
                rows.append(
                    cells
                    | {"prompt": edit[BASE], "status": "ok", "attribute": attribute, "edit": text}
                    | _answer(before, after, list(map(words.get, others)))
                )
    if not rows:
        raise RequestError(
            f"{str(folder)!r} has no picture of an edit and its base of equal seed and settings:"
            f" make a sweep with prompts='suite:{name}'"
        )
    table = Answer(rows)
    table.attrs["sentences"] = _said(table, found, lacking)
    return table


def _words(found: Embedded) -> dict[str, NDArray]:
    """The embedding of each prompt."""
    words: dict[str, NDArray] = {}
    for prompt, tensors in zip(found.cells["prompt"], found.tensors, strict=True):
        words.setdefault(prompt, tensors["prompt"])
    return words


def _answer(before: Tensors, after: Tensors, others: list[NDArray | None]) -> dict[str, float]:
    """The figures of one edit; `others` are the words of the base's other edits, None where no
    picture of one is embedded: leakage is then unknown."""
    seen, said = after["image"] - before["image"], after["prompt"] - before["prompt"]
    length = float(np.linalg.norm(seen) * np.linalg.norm(said))
    response = 100 * float(seen @ said) / length if length else 0.0
    scale, base = float(before["scale"][0]), before["prompt"]
    moved: list[float] = []
    for other in others:
        if other is None:
            return {"response": response, "answered": 100.0 * (response > 0), "leakage": math.nan}
        shares = [_sigmoid(scale * float(of["image"] @ (other - base))) for of in (before, after)]
        moved.append(100 * abs(shares[1] - shares[0]))
    leakage = sum(moved) / len(moved) if moved else math.nan
    return {"response": response, "answered": 100.0 * (response > 0), "leakage": leakage}


def _sigmoid(value: float) -> float:
    """A softmax of two."""
    return 0.5 * (1 + math.tanh(value / 2))


def _said(table: pd.DataFrame, found: Embedded, lacking: int) -> list[str]:
    share = table.groupby("attribute", sort=False)["answered"].mean()
    parts = [f"{attribute} {value:.0f} %" for attribute, value in share.items()]
    lines = [
        f"Answered: {', '.join(parts)}, of {counted(len(table), 'edit')} seen by {found.encoder}."
    ]
    if lacking:
        lines.append(f"Not counted: {counted(lacking, 'edit')} without both pictures embedded.")
    return lines
