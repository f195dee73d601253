"""Kills a rehearsal sweep at random, goes on with it, and holds what it leaves against an
undisturbed run: `python -m tests.torture [KILLS]`, a quarter of them with two Ray workers.

The parent imports all and computes nothing; each run is a child forked from it. A child is killed
after a random time, or kills itself at a random write: in the middle of a PNG, latents, a row or
the table (what was not yet synced is cut at a random byte), or between a file's writing and its
renaming.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
from PIL import Image

import realkit as rk
from realkit.catalog.columns import COLUMNS
from realkit.models import provenance
from realkit.runs.engines.ray import Ray
from realkit.runs.store import Store
from realkit.runs.writer import WAITING
from tests.ray_nodes import ACCESS, is_worker, nodes

SWEEP = {
    "models": ["rehearsal/turbo", "rehearsal/xl+refiner"],
    "samplers": ["Euler", "DPM++ 2M SDE Karras"],
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 3,
    "steps": 3,
    "upscalers": ["lanczos", "rehearsal/compact-x4"],
    "target": 160,
    "scorers": ["rehearsal/clip", "colour-cast"],
}
MEASURED = [
    name
    for name in COLUMNS
    if name in ("seconds", "joules")
    or name.endswith(("_s", "_j"))
    or name.startswith(("peak_", "upscale_peak_"))
] + ["run"]
MOST = 12  # kills of one sweep before it is let be
BATCH = 2
WAYS = ["time", "time", "write", "write", "first writes", "last writes"]  # of being killed


def warm() -> None:
    """Import what a run imports, so that a child begins at once."""
    import diffusers
    import open_clip  # noqa: F401
    import spandrel  # noqa: F401
    import torch

    import realkit.runs.stages  # noqa: F401

    torch.set_num_threads(1)
    _ = (
        diffusers.StableDiffusionPipeline,
        diffusers.StableDiffusionXLPipeline,
        diffusers.StableDiffusionXLImg2ImgPipeline,
        diffusers.AutoencoderKL,
    )


class Saboteur:
    """Counts a process's durable writes; at number `at` cuts off some of what is being written and
    ends the process. Patches `os` for good: for a child only."""

    def __init__(self, folder: Path, at: int, chance: random.Random) -> None:
        self.at, self.count, self._chance = at, 0, chance
        self._sizes = {
            path.resolve(): path.stat().st_size for path in folder.glob("*.jsonl")
        }  # of append-only files: what is safe
        self._sync, self._rename = os.fsync, os.replace
        os.fsync, os.replace = self._fsync, self._replace

    def _fsync(self, handle: int) -> None:
        path, size = Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle).st_size
        if self._due():
            os.ftruncate(handle, self._chance.randint(min(self._sizes.get(path, 0), size), size))
            os.kill(os.getpid(), signal.SIGKILL)
        self._sizes[path] = size
        self._sync(handle)

    def _replace(self, *paths: object) -> None:
        if self._due():
            os.kill(os.getpid(), signal.SIGKILL)
        self._rename(*paths)  # type: ignore[arg-type]

    def _due(self) -> bool:
        self.count += 1
        return self.count == self.at


def child(folder: Path, engine: object, at: int, seed: int) -> None:
    """One start of the sweep; never returns. What each worker does is noted beside the folder, a
    line a batch as it begins."""
    from realkit.runs.engines import engine as batches

    saboteur = Saboteur(folder, at, random.Random(seed))
    attempt = batches.attempt

    def note(stage: str, job) -> None:
        with folder.with_suffix(".work").open("a") as log:
            log.write(f"{stage} {' '.join(job.artifacts)}\n")

    def noted(stage, tool, trouble, job, files, run):
        note(stage.name, job)
        return attempt(stage, tool, trouble, job, files, run)

    batches.attempt = noted
    if engine != "process":
        work = engine.work
        engine.work = lambda stage, jobs, read, stop: work(
            stage, jobs, lambda job: note(stage, job) or read(job), stop
        )
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            run = rk.run(SWEEP, folder, batch=BATCH, engine=engine)
        folder.with_suffix(".writes").write_text(str(saboteur.count))
        os._exit(run.failed)
    except BaseException as error:
        folder.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
        os._exit(99)


def start(folder: Path, engine: object = "process", at: int = 0, seed: int = 0) -> int:
    """The process id of a forked child that runs the sweep."""
    if not (made := os.fork()):
        child(folder, engine, at, seed)
    return made


def ended(process: int) -> int:
    """A child's exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def comparable(folder: Path) -> pd.DataFrame:
    """The table without times, memory and machines, and the hash of each final picture."""
    frame = rk.read(folder).table().drop(columns=MEASURED)
    hashes = []
    for name in frame["image"]:
        with Image.open(folder / name) as image:
            hashes.append(provenance.pixel_hash(image))
    return frame.assign(pixels=hashes).reset_index(drop=True)


def check_whole(folder: Path) -> None:
    """Every line but a last one is whole, and every file that bears its name is too; raises
    AssertionError or what the damage provokes."""
    if not folder.exists():
        return
    store = Store(folder)
    for lines in (store.cells, store.rows, store.runs):
        lines.read()
    for path in (folder / "images").glob("*.png") if (folder / "images").exists() else ():
        with Image.open(path) as image:
            assert provenance.pixel_hash(image) == json.loads(image.text["realkit"])["pixels"], path
    for row in store.last_rows().values():
        assert (
            row["stage"] == "score"
            or row["status"] != "ok"
            or store.path(row["stage"], row["id"]).exists()
        ), row["id"]


def check_finished(folder: Path, truth: pd.DataFrame, kills: int, in_work: int) -> int:
    """Hold a finished folder against the undisturbed table; the number of batches done again.
    Raises AssertionError."""
    check_whole(folder)
    pd.testing.assert_frame_equal(comparable(folder), truth)
    assert not [*folder.rglob(".part-*")]
    work = Counter(folder.with_suffix(".work").read_text().splitlines())
    again = sum(work.values()) - len(work)
    assert again <= kills * (in_work + WAITING), (
        again,
        kills,
    )  # what was in work, and what was in writing
    rows = Counter(row["id"] for row in Store(folder).rows.read() if row["status"] == "ok")
    assert sum(rows.values()) - len(rows) <= kills * BATCH, (
        rows
    )  # rows of one batch, where the last of them was torn
    return again


def kill_worker(chance: random.Random, takes: float) -> bool:
    """End a Ray worker at a random time; whether there was one."""
    import psutil

    time.sleep(chance.uniform(takes / 3, takes))
    workers = [process for process in psutil.process_iter() if is_worker(process)]
    if not workers:
        return False
    try:
        chance.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def torture(
    folder: Path, kills: int, seed: int = 0, engine: object = "process", say=lambda text: None
) -> Counter:
    """Kill sweeps in `folder` so many times in all, each resumed to its end; what was being done
    when they were killed. Raises AssertionError."""
    folder.mkdir(exist_ok=True)
    chance = random.Random(seed)
    truth_at = folder / "undisturbed"
    began = time.monotonic()
    assert ended(start(truth_at, engine)) == 0, truth_at.with_suffix(".error").read_text()
    takes, writes = time.monotonic() - began, int(truth_at.with_suffix(".writes").read_text())
    truth = comparable(truth_at)
    found: Counter = Counter()
    number = here = 0
    while found.total() < kills or here:
        out = folder / f"sweep-{number}"
        spare = here < MOST and found.total() < kills
        way = (
            chance.choice(WAYS if engine == "process" else [*WAYS, "worker", "worker"])
            if spare
            else ""
        )
        at = {
            "write": chance.randint(1, writes),
            "first writes": chance.randint(1, 12),
            "last writes": writes - chance.randint(0, 5),
        }.get(way, 0)
        process = start(out, engine, at, chance.randrange(2**32))
        if way == "time":
            time.sleep(chance.uniform(0, takes))
            os.kill(process, signal.SIGKILL)
        if way == "worker" and kill_worker(chance, takes):
            here += 1
            found["a worker"] += 1
        code = ended(process)
        if code == -signal.SIGKILL:
            here += 1
            found[stage_of(out)] += 1
            check_whole(out)
            continue
        assert code == 0, (
            out.with_suffix(".error").read_text() if out.with_suffix(".error").exists() else code
        )
        again = check_finished(out, truth, here, 1 if engine == "process" else 4)
        say(
            f"sweep {number}: {here} kills, {again} batches done again, equal to the"
            " undisturbed one"
        )
        number, here = number + 1, 0
    return found


def stage_of(folder: Path) -> str:
    """The stage that was last at work in a killed run; "" before the first."""
    log = folder.with_suffix(".work")
    return log.read_text().splitlines()[-1].split()[0] if log.exists() else "plan"


def main(asked: int) -> None:
    os.environ.update(ACCESS)
    warm()
    with tempfile.TemporaryDirectory() as scratch, nodes(Path(scratch)) as cluster:
        cluster.start(cpus=2)
        two_workers = Ray(cluster.address, workers=2)
        for name, engine, kills in (
            ("in-process", "process", asked - asked // 4),
            ("two Ray workers", two_workers, asked // 4),
        ):
            began = time.monotonic()
            found = torture(
                Path(scratch) / name.replace(" ", "-"),
                kills,
                seed=int(time.time()),
                engine=engine,
                say=lambda text: print(text, flush=True),
            )
            print(
                f"{name}: {found.total()} kills"
                f" ({', '.join(f'{count} in {stage}' for stage, count in found.items())}),"
                f" {time.monotonic() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
