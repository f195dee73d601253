"""The embeddings of photographs, from which sets of pictures are told: at each size that the
pictures have."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import pictures
from realkit.base.device import default_device, release
from realkit.base.door import expanded
from realkit.base.errors import one_line
from realkit.base.measure import Stopwatch
from realkit.models.identity import name_of
from realkit.runs.engines.engine import Result
from realkit.runs.jobs import Job, Kit, Output, Row, Tool
from realkit.runs.stages.embed import saved
from realkit.runs.stopping import Stop
from realkit.runs.store import Store
from realkit.runs.writer import Desk
from realkit.scorers.encoders import Loaded, as_jpeg, load_encoder, space_of

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16
MOST_BYTES = 2**14  # of an embedding's file: 4,096 numbers
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
    place, rows, small = expanded(folder), store.last_rows(), dict[Size, set[str]]()
    broken: dict[str, str] = {}
    with Desk(store, environments) as desk:
        for name, locked in kit.encoders.items():
            space, tool = space_of(name, locked), None
            for size, batch in _batches(hashes, sizes):
                known = _known(batch.values(), size, space, rows, store)
                if known.issuperset(batch.values()):
                    continue
                stop.because(desk.room(len(batch) * MOST_BYTES))
                if stop.reason:
                    return
                whole, failed = _read(place, batch, size, small.setdefault(size, set()))
                outputs = []
                if not known.issuperset(whole):
                    try:
                        tool = tool or load_encoder(name, locked)
                        outputs = _embedded(whole, tool, size, name, space)
                    except Exception as error:  # what an encoder raises becomes a row
                        failed |= dict.fromkeys(whole, one_line(error, 200))
                broken |= failed
                outputs += _failures(failed, size, name, space)
                outputs = [output for output in outputs if output.row["photograph"] not in known]
                job = Job(Tool("encoder", name), (), ())
                desk.put("embed", Result(job, outputs, run, 0.0))
            del tool
            release()
    _say(small, broken, len(set(hashes.values())))


def _known(
    digests: Iterable[str], size: Size, space: str, rows: Mapping[str, Row], store: Store
) -> set[str]:
    """The photographs whose embeddings are there."""
    known = set()
    for digest in digests:
        name = artifact(digest, size, space)
        if rows.get(name, {}).get("status") == "ok" and store.has_file("embed", name):
            known.add(digest)
    return known


def _say(small: Mapping[Size, set[str]], broken: Mapping[str, str], count: int) -> None:
    for (width, height), paths in small.items():
        if paths:
            print(
                f"Photographs smaller than {width}×{height}, left out at that size: {len(paths)} of"
                f" {count}",
                file=sys.stderr,
            )
    if broken:
        why = next(iter(broken.values()))
        print(f"Photographs not embedded: {len(broken)} of {count}; {why}", file=sys.stderr)


def _batches(
    hashes: Mapping[str, str], sizes: Iterable[Size]
) -> Iterator[tuple[Size, dict[str, str]]]:
    """Batches of different photographs, path → hash, at each size. They are the same in every run:
    an embedding depends on its batch in the last digits."""
    paths: dict[str, str] = {}
    for path, digest in hashes.items():
        paths.setdefault(digest, path)
    order = sorted(paths)
    for size in dict.fromkeys(sizes):
        for start in range(0, len(order), BATCH):
            yield size, {paths[digest]: digest for digest in order[start : start + BATCH]}


def _read(
    place: Path, batch: Mapping[str, str], size: Size, small: set[str]
) -> tuple[dict[str, Image], dict[str, str]]:
    """(photographs of a batch at a size, why others cannot be read), by hash. The paths of those
    that are too small are added to `small`."""
    from PIL import Image

    whole: dict[str, Any] = {}
    failed = {}
    for path, digest in batch.items():
        try:
            with Image.open(place / path) as image:
                photograph = fitted(image, size)
        except Exception as error:  # a damaged picture may raise anything
            failed[digest] = f"{path}: {one_line(error, 200)}"
            continue
        if photograph is None:
            small.add(path)
        else:
            whole[digest] = photograph
    return whole, failed


def _embedded(
    whole: Mapping[str, Image], tool: Loaded, size: Size, name: str, space: str
) -> list[Output]:
    device = default_device()
    with Stopwatch(device) as embedding:
        vectors = tool.images([as_jpeg(image) for image in whole.values()])
    measured = {"embed_s": embedding.seconds / len(whole), "device": device.type}
    outputs = []
    for digest, vector in zip(whole, vectors, strict=True):
        row = _row(digest, size, name, space) | {"status": "ok"} | measured
        outputs.append(Output(row, saved({"image": vector})))
    return outputs


def _failures(failed: Mapping[str, str], size: Size, name: str, space: str) -> list[Output]:
    outputs = []
    for digest, why in failed.items():
        status = {"status": "failed", "error_type": "RequestError", "error": why}
        outputs.append(Output(_row(digest, size, name, space) | status))
    return outputs


def _row(digest: str, size: Size, name: str, space: str) -> dict[str, Any]:
    facts = {"encoder": name, "space": space, "photograph": digest, "prompt": None}
    width, height = size
    place = {"id": artifact(digest, size, space), "parent": None}
    return place | facts | {"image_width": width, "image_height": height}
