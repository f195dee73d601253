"""Deleting latents that no unfinished cell needs: most of a folder's size where pictures are small,
and of no use to read, score or compare it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realkit.base.errors import RequestError
from realkit.runs.store import Row, Store

LATENTS = ("denoise", "refine")  # stages that write a file of latents


@dataclass(frozen=True)
class Pruned:
    """What a pruning deleted, or would delete, and what it left."""

    deleted: int  # files of latents
    bytes: int  # that they took
    kept: int  # files of latents whose pictures are not made yet
    denoise_s: float  # seconds that it took to denoise those deleted
    dry_run: bool

    def __str__(self) -> str:
        did = "would be deleted" if self.dry_run else "deleted"
        kept = f" {self.kept} stay: their pictures are not made yet." if self.kept else ""
        if not self.deleted:
            return f"No latents {did}.{kept}"
        size = f"{self.bytes / 2**20:.1f} MiB"
        return (
            f"{self.deleted} latents {did}, {size}.{kept} Pictures, scores and the table are"
            " untouched. To decode these latents again, by another VAE say, they must be denoised"
            f" again: {self.denoise_s:.0f} s at the speed that they were made"
        )


def prune_latents(store: Store, dry_run: bool = False) -> Pruned:
    """Delete the latents whose pictures are there and whole; `dry_run` only counts them.

    Rows, pictures, and files that no row knows stay. A run that resumes the folder makes nothing
    again. Raises RequestError where another run writes to the folder, and for a file that cannot be
    deleted.
    """
    if dry_run:
        return _pruned(store, dry_run=True)
    with store.writing():
        return _pruned(store, dry_run=False)


def _pruned(store: Store, dry_run: bool) -> Pruned:
    rows = store.ok_rows()
    needed = _needed(store, rows)
    deleted = size = kept = 0
    seconds = 0.0
    for path in sorted((store.folder / "latents").glob("*.safetensors")):
        row = rows.get(path.stem)
        if row is None or row["stage"] not in LATENTS:
            continue
        if path.stem in needed:
            kept += 1
            continue
        length = path.stat().st_size
        if not dry_run:
            _delete(path)
        deleted, size = deleted + 1, size + length
        seconds += row.get("denoise_s") or 0.0
    return Pruned(deleted, size, kept, seconds, dry_run)


def _needed(store: Store, rows: dict[str, Row]) -> set[str]:
    """The ids of the latents that a cell waits for. Of latents without a cell, which another folder
    left, those from which nothing was made."""

    def whole(stage: str, artifact: str) -> bool:
        return artifact in rows and store.has_file(stage, artifact)

    needed, waiting, begun_in = set[str](), set[int](), list[tuple[int, str]]()
    of_cells = set[str]()
    for record in store.cells.read():
        ids, begun = record["ids"], record["ids"].get("begun") or ""
        of_cells |= {ids["latents"], begun}
        begun_in.append((record["batch"], begun))
        if not whole("upscale", ids["image"]) and not whole("decode", ids["decoded"]):
            needed.add(ids["latents"])
            waiting.add(record["batch"])
    for batch, begun in begun_in:  # a second leg that is done again reads the whole batch
        if batch in waiting:
            needed.add(begun)
    used = set()
    for name, row in rows.items():
        if row["stage"] in ("refine", "decode") and whole(row["stage"], name):
            used.add(row["parent"])
    for name, row in rows.items():
        if row["stage"] in LATENTS and name not in of_cells and name not in used:
            needed.add(name)
    return needed


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RequestError(
            f"{str(path)!r} cannot be deleted ({error.strerror}): what was deleted before it is"
            " gone; make the folder writable and prune again"
        ) from error
