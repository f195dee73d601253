"""Training pictures, rendered once into a working folder, and the held-out captions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from realkit.rehearsal.scenes import mask, render
from realkit.rehearsal.wording import Scene, captions, scenes

HELD_OUT_SEED = 1_000_000  # held-out pictures use seeds from here on; no training picture does


def training_scene(index: int) -> Scene:
    """The scene of training picture `index`, whose pose has seed `index`.

    Every combination comes equally often.
    """
    every = scenes("train")
    turn, place = divmod(index, len(every))
    return every[np.random.default_rng([11, turn]).permutation(len(every))[place]]


def pictures(folder: Path, count: int, size: int, workers: int | None = None) -> np.ndarray:
    """Training pictures 0 to count - 1, uint8 (count, size, size, 3), memory-mapped.

    Renders them first where `folder` lacks them.
    """
    return _kept(folder, "scenes", partial(_picture, size=size), (count, size, size, 3), workers)


def masks(folder: Path, count: int, size: int, workers: int | None = None) -> np.ndarray:
    """The objects' pixels in the same pictures, uint8 0 or 1, (count, size, size)."""
    return _kept(folder, "masks", partial(_mask, size=size), (count, size, size), workers)


def _kept(
    folder: Path,
    name: str,
    make: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    workers: int | None,
) -> np.ndarray:
    path = folder / f"{name}-{shape[1]}-{shape[0]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        out = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        with ProcessPoolExecutor(workers) as pool:
            made = pool.map(make, range(shape[0]), chunksize=16)
            for index, item in enumerate(
                tqdm(made, f"{name} {shape[1]} px", shape[0], mininterval=5)
            ):
                out[index] = item
        out.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")


def _picture(index: int, size: int) -> np.ndarray:
    return np.asarray(render(training_scene(index).caption, index, size))


def _mask(index: int, size: int) -> np.ndarray:
    return mask(training_scene(index).caption, index, size).astype(np.uint8)


def held_out(count: int) -> list[tuple[str, int]]:
    """Held-out captions, each with a seed, cycling through the captions in a shuffled order."""
    order = np.random.default_rng(0).permutation(len(captions("heldout")))
    return [(captions("heldout")[order[i % len(order)]], HELD_OUT_SEED + i) for i in range(count)]
