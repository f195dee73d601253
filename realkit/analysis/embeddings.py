"""The embeddings of a results folder, beside the cells whose pictures they are of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from realkit.analysis.pairs import AXES, UNIT
from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import find
from realkit.runs.folder import Run, read
from realkit.runs.store import Store
from realkit.scorers.encoders import ENCODERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = dict[str, "NDArray[np.float32]"]
# Axes by which cells of one prompt and seed are told apart.
SETTINGS = [*AXES, "image_width", "image_height"]


@dataclass(frozen=True)
class Embedded:
    """The cells of a folder whose pictures are embedded. `tensors[i]` are of the i-th row of
    `cells`: `image` (D,), and `prompt` (D,) with their `scale` where the encoder reads words;
    `ids[i]` is the embedding's. `missing` counts the pictures without one."""

    folder: Path
    encoder: str
    cells: pd.DataFrame
    tensors: list[Tensors]
    ids: list[str]
    missing: int
    photographs: dict[tuple[int, int], dict[str, Tensors]]  # size → SHA-256 → the photograph's


def embedded(folder: str | Path | Run, encoder: str | None) -> Embedded:
    """The embeddings of a results folder by an encoder, by default its only one. Raises
    RequestError where it has none."""
    if isinstance(folder, Run):
        folder = folder.folder
    if not isinstance(folder, (str, Path)):
        raise RequestError(f"{shown(folder)} is no results folder: expected its path, or a Run")
    cells, store = read(folder).table(), Store(folder)
    spaces: dict[str, str] = {}  # of each encoder, as the last run that named it had its weights
    for run in store.asked():
        spaces |= run["asked"].get("encoders", {})
    name = _encoder(folder, list(spaces), encoder)
    of_pictures: dict[tuple[str, Any], dict[str, Any]] = {}
    photographs: dict[tuple[int, int], dict[str, Tensors]] = {}
    errors: list[str] = []
    for row in store.last_rows().values():
        if row["stage"] != "embed" or row["space"] != spaces[name]:
            continue
        if row["status"] != "ok":
            errors.append(row["error"])
            continue
        if "photograph" not in row:
            of_pictures[row["parent"], row["prompt"]] = row
        elif (tensors := _read(store, row)) is not None:
            size = row["image_width"], row["image_height"]
            photographs.setdefault(size, {})[row["photograph"]] = tensors
    images = {record["id"]: record["ids"]["image"] for record in store.cells.read()}
    found: dict[str, Tensors | None] = {}
    kept, tensors_of, ids = [], [], []
    pictures = cells.index[cells["image"].notna()]
    for place in pictures:
        prompt = cells["prompt"][place]
        image = images[cells["cell"][place]]
        own = of_pictures.get((image, prompt)) or of_pictures.get((image, None))
        if own is None:
            continue
        if own["id"] not in found:
            found[own["id"]] = _read(store, own)
        if (vectors := found[own["id"]]) is not None:
            kept.append(place)
            tensors_of.append(vectors)
            ids.append(own["id"])
    if not kept:
        why = f": {errors[0]}" if errors else ", or its files are lost: run its sweep again"
        raise RequestError(f"{str(folder)!r} has no picture that is embedded by {name}{why}")
    columns = [name for name in dict.fromkeys([*UNIT, *SETTINGS, "cell", "image"]) if name in cells]
    missing = len(pictures) - len(kept)
    whole = cells.loc[kept, columns].reset_index(drop=True)
    return Embedded(Path(folder), name, whole, tensors_of, ids, missing, photographs)


def _encoder(folder: str | Path, names: list[str], asked: str | None) -> str:
    if not names:
        raise RequestError(
            f"{str(folder)!r} has no embeddings: run its sweep again with encoders=, such as dinov2"
            " or clip; no picture is made anew"
        )
    if asked is None:
        if len(names) > 1:
            raise RequestError(f"{str(folder)!r} has several encoders: name one of {_list(names)}")
        return names[0]
    name = find(ENCODERS, asked) if asked not in names else asked
    if name not in names:
        raise RequestError(
            f"{str(folder)!r} has no embeddings by {shown(name)}: expected one of {_list(names)}"
        )
    return name


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _read(store: Store, row: dict[str, Any]) -> Tensors | None:
    """The tensors of an embedding; None where its file is missing, or not as its row says."""
    from safetensors.numpy import load

    try:
        file = store.path("embed", row["id"]).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(file).hexdigest() != row.get("sha256"):
        return None
    tensors: Tensors = load(file)
    return tensors
