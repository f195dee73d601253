"""What may befall a results folder: a clear line, and nothing lost."""

import datetime
import json
import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import pandas as pd
import pytest

import realkit as rk
from realkit.base import cache
from realkit.runs import loop
from realkit.runs.stopping import RESERVE_S, Stop
from realkit.runs.store import Store
from realkit.runs.writer import SPARE, Desk
from tests.torture import check_whole, comparable

SWEEP = {
    "models": "rehearsal/turbo",
    "samplers": ["Euler", "DDIM"],
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 4,
    "steps": 2,
    "size": 64,
    "upscalers": "lanczos",
    "target": 512,
    "scorers": "colour-cast",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    rk.run(SWEEP, folder, batch=2)
    return folder


def same(folder, undisturbed):
    check_whole(folder)
    pd.testing.assert_frame_equal(comparable(folder), comparable(undisturbed))


@pytest.fixture
def disk(tmp_path):
    """A disk of 16 MiB of its own, where this system lets one be made; with `again`, which mounts
    it with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> bool:
        return (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
            ).returncode
            == 0
        )

    if not shutil.which("mount") or not mount("size=16m"):
        pytest.skip(
            "mounting needs root: tests/runs/test_store.py injects the error of a full disk"
        )
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place, left: int) -> None:
    """Take all but `left` bytes of a disk."""
    with (place / "ballast").open("wb") as file:
        while (more := min(1 << 20, cache.free_bytes(place) - left)) > 0:
            file.write(bytes(more))
            file.flush()


def test_a_sweep_that_does_not_fit_is_refused_with_the_figures(disk):
    place, _ = disk
    fill(place, 1 << 20)
    with pytest.raises(
        rk.RequestError,
        match=(
            r"pictures need about \S+ [GM]iB more in '.*', \S+ [KM]iB are free: free some, or ask"
            r" for less"
        ),
    ):
        rk.run(SWEEP | {"seeds": 400}, place / "out")
    assert not (place / "out" / "rows.jsonl").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_run_in_time_and_it_goes_on(disk, undisturbed, monkeypatch):
    place, _ = disk
    put = Desk.put

    def fills(desk, stage, result):  # another program takes the disk while pictures are made
        put(desk, stage, result)
        if stage == "decode" and not (place / "ballast").exists():
            desk.settle()
            fill(place, SPARE + (100 << 10))

    monkeypatch.setattr(Desk, "put", fills)
    run = rk.run(SWEEP, place / "out", batch=2)
    assert re.search(r"the disk is nearly full \(4\.\d MiB free, the next needs \d", run.stopped)
    assert set(run.table().status) == {"pending"} and (place / "out" / "table.csv").exists()
    check_whole(place / "out")
    monkeypatch.undo()
    (place / "ballast").unlink()
    assert not rk.run(SWEEP, place / "out", batch=2).stopped
    same(place / "out", undisturbed)
    made = [row["id"] for row in Store(place / "out").rows.read()]
    assert len(made) == len(set(made))


@pytest.mark.slow
def test_a_disk_that_says_it_has_room_and_has_none_loses_nothing(disk, undisturbed, monkeypatch):
    place, _ = disk
    monkeypatch.setattr(cache, "free_bytes", lambda folder: 1 << 40)  # as a quota that is not told
    free = shutil.disk_usage(place).free
    with (place / "ballast").open("wb") as file:
        file.write(bytes(free - (700 << 10)))
    with pytest.raises(
        rk.RequestError,
        match=(
            r"Cannot write '.*': No space left on device\. What is done is kept: make room and run"
            r" again"
        ),
    ):
        rk.run(SWEEP, place / "out", batch=2)
    check_whole(place / "out")
    done = len(Store(place / "out").last_rows())
    (place / "ballast").unlink()
    rk.run(SWEEP, place / "out", batch=2)
    same(place / "out", undisturbed)
    assert len(Store(place / "out").rows.read()) == len(Store(undisturbed).rows.read()) > done > 0


def test_a_read_only_folder_is_one_line_and_can_be_read(disk, undisturbed):
    place, again = disk
    shutil.copytree(undisturbed, place / "out")
    assert again("ro")
    with pytest.raises(
        rk.RequestError, match=r"Results folder '.*' cannot be written: Read-only file system"
    ):
        rk.run(SWEEP, place / "out", batch=2)
    same(place / "out", undisturbed)
    assert again("rw")


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_nothing(tmp_path, undisturbed, monkeypatch):
    ahead = iter([86_400.0, *[0.0] * 10_000])
    now = time.time
    monkeypatch.setattr(
        "realkit.runs.writer.time.time", lambda: now() + next(ahead)
    )  # the first row bears tomorrow's date
    first = rk.run(SWEEP | {"seeds": 2}, tmp_path / "out", batch=2)
    rows = first.store.rows.read()
    assert rows[0]["at"] > rows[-1]["at"] + 80_000
    first.store.rows.append(
        [
            rows[-1]
            | {
                "status": "failed",
                "error_type": "OSError",
                "error": "as if it had failed",
                "at": 1.0,
            }
        ]
    )  # later, though its time is earlier
    assert first.failed
    rk.run(SWEEP, tmp_path / "out", batch=2)
    again = comparable(tmp_path / "out").set_index("cell")
    pd.testing.assert_frame_equal(again, comparable(undisturbed).set_index("cell").loc[again.index])

    stop = Stop(until=datetime.datetime.now() + datetime.timedelta(seconds=RESERVE_S + 1.2))
    monkeypatch.setattr(time, "time", lambda: now() - 3_600)
    assert not stop.due(0)
    time.sleep(1.3)
    assert stop.due(0)


def test_a_folder_moved_elsewhere_goes_on_there(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "far" / "away")
    run = rk.run(SWEEP, tmp_path / "far" / "away", batch=2)
    assert len(run.store.rows.read()) == len(
        Store(undisturbed).rows.read()
    )  # nothing was done again
    same(tmp_path / "far" / "away", undisturbed)


@pytest.mark.parametrize("another", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_folder_moved_while_it_is_written_is_said_and_goes_on_there(
    tmp_path, undisturbed, monkeypatch, another
):
    put = Desk.put

    def moves(desk, stage, result):
        put(desk, stage, result)
        if stage == "decode" and not (tmp_path / "moved").exists():
            (tmp_path / "out").rename(tmp_path / "moved")
            if another:
                shutil.copytree(tmp_path / "moved", tmp_path / "out")

    monkeypatch.setattr(Desk, "put", moves)
    with pytest.raises(
        rk.RequestError,
        match=r"Cannot write '.*': (the results folder was moved or removed|No such file)",
    ):
        rk.run(SWEEP, tmp_path / "out", batch=2)
    assert (tmp_path / "out").exists() == another  # none is begun in its place
    check_whole(tmp_path / "moved")
    rk.run(SWEEP, tmp_path / "moved", batch=2)
    same(tmp_path / "moved", undisturbed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda lock: lock.update(id_version=99, realkit="9.0"),
            (
                r"was made by realkit 9\.0 with id version 99, this is realkit .* with \d+: update"
                r" realkit, or use a new folder"
            ),
        ),
        (
            lambda lock: (
                lock["models"]["rehearsal/turbo"]["spec"].update(sparkle=1)
                or lock.update(realkit="9.0")
            ),
            r"made by realkit 9\.0 .*: update realkit, or",
        ),
        (
            lambda lock: lock.update(id_version=0) or lock.pop("realkit"),
            r"was made with id version 0, this is .*: install that one, or use a new folder",
        ),
    ],
)
def test_a_folder_of_another_version_is_left_as_it_is(tmp_path, undisturbed, change, says):
    folder = tmp_path / "out"
    shutil.copytree(undisturbed, folder)
    lock = json.loads((folder / "sweep.lock.json").read_text())
    change(lock)
    (folder / "sweep.lock.json").write_text(json.dumps(lock))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(rk.RequestError, match=says):
        rk.run(SWEEP, folder, batch=2)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    same(folder, undisturbed)  # it can be read


def test_rows_and_cells_that_a_newer_version_adds_to_are_read(tmp_path, undisturbed):
    folder = tmp_path / "out"
    shutil.copytree(undisturbed, folder)
    for name, extra in (("rows.jsonl", {"joules": 3}), ("runs.jsonl", {"rack": 7})):
        lines = [json.loads(line) | extra for line in (folder / name).read_text().splitlines()]
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    rk.run(SWEEP, folder, batch=2)
    same(folder, undisturbed)


@contextmanager
def held(folder):
    """A run of SWEEP, in a thread, that waits in the middle."""
    begun, enough = threading.Event(), threading.Event()
    put = Desk.put

    def waits(desk, stage, result):
        put(desk, stage, result)
        begun.set()
        assert enough.wait(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desk, "put", waits)
        thread = threading.Thread(target=loop.run, args=(SWEEP, folder), kwargs={"batch": 2})
        thread.start()
        assert begun.wait(60)
        try:
            yield
        finally:
            enough.set()
            thread.join()


def test_of_two_runs_on_a_folder_the_second_is_refused_and_a_stale_lock_is_not_one(
    tmp_path, undisturbed
):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".lock").write_text("4242\n")  # as a killed run leaves it
    with held(folder), pytest.raises(rk.RequestError, match="Another run is writing to"):
        rk.run(SWEEP, folder, batch=2)
    same(folder, undisturbed)


def test_files_cut_short_are_made_again_in_one_run(tmp_path, undisturbed):
    folder = tmp_path / "out"
    shutil.copytree(undisturbed, folder)
    rows = Store(folder).last_rows().values()
    large = next(row for row in rows if row["stage"] == "upscale")
    chain = [large, *(row for row in rows if row["id"] == large["parent"])]
    chain += [row for row in rows if row["id"] == chain[1]["parent"]]
    for row, left in zip(
        chain, (-40, 0, -4), strict=True
    ):  # the picture, the small one it came from, and its latents
        path = Store(folder).path(row["stage"], row["id"])
        path.write_bytes(path.read_bytes()[: left or 0])
    rk.run(SWEEP, folder, batch=2)
    same(folder, undisturbed)
