"""Runs that end before their work does, and go on later."""

import datetime
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import realkit as rk
from realkit.catalog.columns import COLUMNS
from realkit.runs import stopping
from realkit.runs.stopping import RESERVE_S, Stop
from realkit.runs.writer import Desk

SWEEP = {
    "models": "rehearsal/base",
    "prompts": ["a photo of a matte red cube on grass at noon", "a blue sphere"],
    "seeds": 4,
    "steps": 6,
    "size": 64,
    "samplers": ["Euler", "Heun"],
}
MEASURED = [
    name
    for name in COLUMNS
    if name.endswith(("_s", "_j", "_gib")) or name in ("seconds", "joules", "run")
]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("8h", 28_800),
        ("1h30m", 5_400),
        ("90s", 90),
        ("0.5 h", 1_800),
        ("1d", 86_400),
        (12, 12),
        (0.5, 0.5),
    ],
)
def test_budgets_as_people_write_them(written, means):
    assert stopping.seconds(written) == means


@pytest.mark.parametrize(
    "wrong",
    ["", "8", "h", "-1h", "0s", "8 hours", 0, -3, True, float("inf"), float("nan"), None, [1]],
)
def test_what_is_no_budget_is_refused_before_any_work(wrong, tmp_path):
    with pytest.raises(rk.RequestError, match="expected a time such as '8h'"):
        stopping.seconds(wrong)
    if wrong is not None:
        with pytest.raises(rk.RequestError, match="budget"):
            rk.run(SWEEP, tmp_path, budget=wrong)
    assert not list(tmp_path.iterdir())


def test_a_time_must_be_one_and_to_come():
    soon = datetime.datetime.now() + datetime.timedelta(hours=1)
    assert stopping.moment(soon) == stopping.moment(soon.isoformat()) == soon.timestamp()
    for wrong in ("tomorrow", "2020-01-01T00:00", None, datetime.datetime(1, 1, 1)):
        with pytest.raises(rk.RequestError, match="until"):
            stopping.moment(wrong)


def test_a_batch_that_would_not_end_in_time_is_not_begun():
    stop = Stop(budget=100)
    assert not stop.due(10) and not stop.reason
    assert stop.due(70) and "its time is up" in stop.reason
    assert not Stop().due(1e9)


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=MEASURED).reset_index(drop=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return rk.run(SWEEP, tmp_path_factory.mktemp("undisturbed"), batch=2).table()


def test_a_run_whose_time_is_up_stops_cleanly_and_goes_on(tmp_path, undisturbed):
    first = rk.run(SWEEP, tmp_path, batch=2, budget=RESERVE_S + 0.5)
    assert (
        "its time is up" in first.stopped
        and "pending" in set(first.table().status)
        and (tmp_path / "table.csv").exists()
    )
    rest = rk.run(SWEEP, tmp_path, batch=2)
    assert not rest.stopped
    pd.testing.assert_frame_equal(comparable(rest.table()), comparable(undisturbed))


@pytest.mark.slow
def test_a_signal_in_the_middle_of_a_batch_lets_it_be_written(tmp_path, undisturbed, monkeypatch):
    put = Desk.put

    def told(desk, stage, result):
        if not (tmp_path / "rows.jsonl").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        put(desk, stage, result)

    monkeypatch.setattr(Desk, "put", told)
    first = rk.run(SWEEP, tmp_path, batch=2)
    assert first.stopped == "SIGTERM asked for it" and len(first.store.rows.read()) == 2
    monkeypatch.undo()
    pd.testing.assert_frame_equal(
        comparable(rk.run(SWEEP, tmp_path, batch=2).table()), comparable(undisturbed)
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_batch_in_work(tmp_path, undisturbed, number):
    (tmp_path / "sweep.yaml").write_text(json.dumps(SWEEP))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "realkit",
        "run",
        str(tmp_path / "sweep.yaml"),
        "--out",
        str(out),
        "--batch",
        "2",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for _ in range(600):
        if (out / "rows.jsonl").exists() and (out / "rows.jsonl").stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(number)
    said, told = process.communicate(timeout=120)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    resumable = (
        f"stopped before the end: {number.name} asked for it; run the same command again to resume"
    )
    assert process.returncode == 1 and resumable in told and "pending" in said
    assert {row["status"] for row in rows} == {"ok"} and (out / "table.csv").exists()
    done = rk.run(SWEEP, out, batch=2)
    made = [row["id"] for row in map(json.loads, (out / "rows.jsonl").read_text().splitlines())]
    assert len(made) == len(set(made))  # nothing was done twice
    pd.testing.assert_frame_equal(comparable(done.table()), comparable(undisturbed))
