"""What is done beside the GPU's work, and which worker gets which batch."""

import gc
import threading
from pathlib import Path

import pytest

import realkit as rk
from realkit.base import measure
from realkit.runs.engines import engine
from realkit.runs.engines.process import Ahead, Process
from realkit.runs.engines.ray_crew import Crew, Member
from realkit.runs.jobs import Job, Kit, Output, Tool
from realkit.runs.writer import WAITING, Desk

SWEEP = {
    "models": ["rehearsal/base", "rehearsal/turbo"],
    "samplers": "Euler",
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 4,
    "steps": 2,
    "size": 64,
    "scorers": "colour-cast",
}


def test_a_picture_is_encoded_while_the_next_is_made(tmp_path, monkeypatch):
    """Each picture's encoding waits here until the next one's decoding has begun: in one thread it
    would wait for ever."""
    begun, attempt, encoded = [], engine.attempt, Output.encoded
    news, late, threads = threading.Condition(), [], set()

    def noted(stage, *rest):
        with news:
            begun.append(stage.name)
            news.notify_all()
        return attempt(stage, *rest)

    def waits(made, run):
        if made.record and made.record["stage"] == "decode":
            threads.add(threading.current_thread().name)
            with news:
                now = begun.count("decode")
                late.append(
                    now < 8 and not news.wait_for(lambda: begun.count("decode") > now, timeout=20)
                )
        return encoded(made, run)

    monkeypatch.setattr(engine, "attempt", noted)
    monkeypatch.setattr(Output, "encoded", waits)
    frame = rk.run(SWEEP, tmp_path / "out", batch=2).table()
    assert set(frame.status) == {"ok"} and len(late) == 8 and not any(late)
    assert all(name.startswith("encoding") for name in threads)


def test_the_collector_is_left_as_it_was():
    """Objects older than the engine are kept out of its collections, and given back by it alone."""
    gc.unfreeze()
    process = Process()
    process.equip(Kit({}, {}, {}, {}))
    assert gc.get_freeze_count() > 0
    process.close()
    assert gc.get_freeze_count() == 0
    gc.freeze()
    process.equip(Kit({}, {}, {}, {}))
    process.close()
    assert gc.get_freeze_count() > 0


def test_the_next_models_files_are_read_while_one_works(tmp_path, monkeypatch):
    """The last batch of the first model waits here until the second's weights have been read."""
    read, done, attempt = [], threading.Event(), engine.attempt
    reads = Ahead._read

    def noted(ahead, file):
        reads(ahead, file)
        read.append(file)
        if file.suffix == ".safetensors" and "turbo" in str(file):
            done.set()

    waited = []

    def waits(stage, tool, trouble, job, *rest):
        if stage.name == "denoise" and job.tool.name == "rehearsal/base":
            waited.append(done.wait(20))
        return attempt(stage, tool, trouble, job, *rest)

    monkeypatch.setattr(Ahead, "_read", noted)
    monkeypatch.setattr(engine, "attempt", waits)
    rk.run(SWEEP, tmp_path / "out", batch=2)
    assert waited == [True, True] and not any(
        "weights/base" in str(file) for file in read
    )  # what is loaded already is not read again


def test_what_would_push_out_what_is_in_use_is_not_read_ahead(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    opened, whole = [], Path.open

    def noted(path, *rest, **more):
        opened.append(path)
        return whole(path, *rest, **more)

    monkeypatch.setattr(Path, "open", noted)
    for free, count in ((0.001, 0), (4.0, 1), (None, 2)):
        monkeypatch.setattr(measure, "ram_free", lambda free=free: free)
        Ahead()._read(tmp_path / "weights")
        assert len(opened) == count


@pytest.mark.slow
def test_no_more_results_wait_than_are_written(tmp_path, monkeypatch):
    """However slow the disk, finished pictures do not pile up in memory."""
    most, waiting, counts = [0], threading.Lock(), [0]
    put, file = Desk.put, Desk._file

    def counted(desk, stage, result):
        put(desk, stage, result)
        with waiting:
            counts[0] += 1
            most[0] = max(most[0], counts[0])

    def slow(desk, *rest):
        threading.Event().wait(0.05)
        file(desk, *rest)
        with waiting:
            counts[0] -= 1

    monkeypatch.setattr(Desk, "put", counted)
    monkeypatch.setattr(Desk, "_file", slow)
    rk.run(SWEEP | {"models": "rehearsal/turbo", "seeds": 16}, tmp_path / "out")
    assert most[0] <= WAITING + 1


def jobs(tool: str, *weights: int) -> list[Job]:
    return [
        Job(Tool("model", tool), (f"{tool}{number}",), (), weight)
        for number, weight in enumerate(weights)
    ]


def crew(count: int, *queue: Job) -> Crew:
    """Workers that are ready, and a stage's jobs; no cluster is needed."""
    workers = Crew([Member(None, "ready", f"run-{number}") for number in range(count)])
    workers.begin(list(queue))
    return workers


def given(workers: Crew) -> list[tuple[str, str]]:
    return [(member.run, job.artifacts[0]) for member, job in workers.assignments()]


def test_each_worker_takes_a_tool_of_its_own_and_keeps_it():
    workers = crew(2, *jobs("a", 1, 1, 1), *jobs("b", 1, 1))
    assert given(workers)[:2] == [("run-0", "a0"), ("run-1", "b0")]
    workers.members[1].jobs = 0
    assert given(workers)[0] == ("run-1", "b1")
    workers.members[1].jobs = 0
    assert given(workers)[0] == ("run-1", "a2")  # its own tool is done: it helps with the other


def test_an_idle_worker_goes_where_most_is_left():
    workers = crew(3, *jobs("a", 1), *jobs("b", 30))
    for member, tool in zip(workers.members, "ab", strict=False):
        member.tool, member.jobs = Tool("model", tool), 1
    assert given(workers) == [("run-2", "b0")]


def test_no_batch_waits_with_one_worker_while_another_could_take_it():
    assert sorted(run for run, _ in given(crew(2, *jobs("a", 1, 1)))) == ["run-0", "run-1"]
    assert sorted(run for run, _ in given(crew(2, *jobs("a", *[1] * 8)))) == [
        "run-0",
        "run-0",
        "run-1",
        "run-1",
    ]  # one ahead, while there is plenty


def test_who_is_away_gets_nothing():
    workers = crew(2, *jobs("a", 1, 1, 1))
    workers.members[0].state = "waking"
    assert {run for run, _ in given(workers)} == {"run-1"}


def test_a_batch_that_ended_a_worker_is_tried_alone():
    queue = jobs("a", 1, 1, 1)
    workers = crew(1, *queue)
    assert workers.count_death(queue[0]) == 1
    assert given(workers) == [("run-0", "a0")]
    workers.members[0].jobs = 0
    assert given(workers) == [("run-0", "a1"), ("run-0", "a2")]


def test_who_cannot_load_a_tool_takes_another(capsys):
    workers = crew(2, *jobs("a", 1, 1), *jobs("b", 1))
    workers.cannot_load(workers.members[0], Tool("model", "a"), OSError("the disk is gone"))
    assert "a Ray worker cannot load a (the disk is gone); others try" in capsys.readouterr().err
    assert given(workers)[:2] == [("run-0", "b0"), ("run-1", "a0")] and not list(workers.hopeless())


def test_jobs_whose_tool_no_worker_can_load_fail():
    workers = crew(2, *jobs("a", 1, 1), *jobs("b", 1))
    workers.members[1].state = "gone"
    workers.cannot_load(workers.members[0], Tool("model", "a"), OSError("the disk is gone"))
    assert [(job.artifacts, str(error)) for job, error in workers.hopeless()] == [
        (("a0",), "the disk is gone"),
        (("a1",), "the disk is gone"),
    ]
    assert given(workers) == [("run-0", "b0")] and not workers.waiting
