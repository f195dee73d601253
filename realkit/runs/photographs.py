"""The embeddings of photographs, from which sets of pictures are told: at each size that the
pictures have."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import pictures
from realkit.base.device import default_device, release
from realkit.base.errors import one_line
from realkit.base.measure import Stopwatch
from realkit.models.identity import name_of
from realkit.runs.engines.engine import Result
from realkit.runs.jobs import Job, Kit, Output, Tool
from realkit.runs.stages.embed import saved, space_of
from realkit.runs.stopping import Stop
from realkit.runs.store import Store
from realkit.runs.writer import Desk
from realkit.scorers.encoders import as_jpeg, load_encoder

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16
Size = tuple[int, int]


def fitted(image: Image, size: Size) -> Image | None:
    """The middle of a photograph at a size, as RGB; None where it would have to be enlarged."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    upright = pictures.opaque(image)
    if upright.width < size[0] or upright.height < size[1]:
        return None
    return ImageOps.fit(upright, size, Resampling[pictures.FINISH])


def artifact(digest: str, size: Size, space: str) -> str:
    """The id of a photograph's embedding."""
    return name_of("photograph", {"sha256": digest, "size": list(size), "space": space})


def embed(
    folder: str, hashes: Mapping[str, str], sizes: Iterable[Size], kit: Kit, store: Store,
    environments: Mapping[str, dict[str, Any]], run: str, stop: Stop,
) -> None:  # fmt: skip
    """Embed the photographs that the results folder lacks, by each encoder, at each size. Those too
    small for a size are left out there, and said."""
    sizes = list(dict.fromkeys(sizes))
    with Desk(store, environments) as desk:
        for name, locked in kit.encoders.items():
            space, tool = space_of(name, locked), None
            missing = list(_missing(hashes, sizes, space, store))
            for batch in _batches(_read(Path(folder).expanduser(), missing)):
                if stop.reason:
                    return
                tool = tool or load_encoder(name, locked)
                desk.put("embed", _embedded(batch, tool, name, space, run))
            del tool
            release()


def _missing(
    hashes: Mapping[str, str], sizes: list[Size], space: str, store: Store
) -> Iterator[tuple[str, str, Size]]:
    """(path, hash, size) of what is to do; of equal files the first."""
    rows = store.ok_rows()
    paths: dict[str, str] = {}
    for path, digest in hashes.items():
        paths.setdefault(digest, path)
    for digest, path in paths.items():
        for size in sizes:
            name = artifact(digest, size, space)
            if name not in rows or not store.has_file("embed", name):
                yield path, digest, size


def _read(
    place: Path, missing: list[tuple[str, str, Size]]
) -> Iterator[tuple[str, Size, Image | None, str]]:
    """(hash, size, photograph at that size, why it cannot be used) of each; small ones are said."""
    from PIL import Image

    small: dict[Size, int] = {}
    for path, digest, size in missing:
        try:
            with Image.open(place / path) as image:
                photograph = fitted(image, size)
        except Exception as error:  # a damaged picture may raise anything
            yield digest, size, None, f"{path}: {one_line(error, 200)}"
            continue
        if photograph is None:
            small[size] = small.get(size, 0) + 1
        else:
            yield digest, size, photograph, ""
    for (width, height), count in small.items():
        print(
            f"{count} photographs are smaller than {width}×{height} and left out at that size",
            file=sys.stderr,
        )


def _batches(read: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in read:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _embedded(batch: list[Any], tool: Any, name: str, space: str, run: str) -> Result:
    """The embeddings of photographs as they are filed; a failure is a row."""
    start = time.monotonic()
    device = default_device()
    whole = [item for item in batch if item[2] is not None]
    outputs = []
    if whole:
        with Stopwatch(device) as embedding:
            vectors = tool.images([as_jpeg(image) for _, _, image, _ in whole])
        measured = {"embed_s": embedding.seconds / len(whole), "device": device.type}
        for (digest, size, _, _), vector in zip(whole, vectors, strict=True):
            row = _row(digest, size, name, space) | {"status": "ok"} | measured
            outputs.append(Output(row, saved(vector, None, tool.scale)))
    for digest, size, image, why in batch:
        if image is None:
            failed = {"status": "failed", "error_type": "RequestError", "error": why}
            outputs.append(Output(_row(digest, size, name, space) | failed))
    ids = tuple(str(output.row["id"]) for output in outputs)
    return Result(Job(Tool("encoder", name), ids, ()), outputs, run, time.monotonic() - start)


def _row(digest: str, size: Size, name: str, space: str) -> dict[str, Any]:
    facts = {"encoder": name, "space": space, "photograph": digest, "prompt": None}
    width, height = size
    place = {"id": artifact(digest, size, space), "parent": None}
    return place | facts | {"image_width": width, "image_height": height}
