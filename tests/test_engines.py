"""What is done beside the GPU's work, and which worker gets which batch."""

import threading
from collections import deque
from concurrent.futures import Future

import pytest

import realkit as rk
from realkit.base import measure
from realkit.runs.engines import batch
from realkit.runs.engines.process import Ahead
from realkit.runs.engines.ray import Ray, _Member
from realkit.runs.jobs import Job, Made
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
    """Each picture's encoding waits here until the next one's decoding has begun: in one thread it would wait for ever."""
    begun, attempt, encoded = [], batch.attempt, Made.encoded
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
                late.append(now < 8 and not news.wait_for(lambda: begun.count("decode") > now, timeout=20))
        return encoded(made, run)

    monkeypatch.setattr(batch, "attempt", noted)
    monkeypatch.setattr(Made, "encoded", waits)
    frame = rk.run(SWEEP, tmp_path / "out", batch=2).table()
    assert set(frame.status) == {"ok"} and len(late) == 8 and not any(late)
    assert all(name.startswith("encoding") for name in threads)


def test_the_next_models_files_are_read_while_one_works(tmp_path, monkeypatch):
    """The last batch of the first model waits here until the second's weights have been read."""
    read, done, attempt = [], threading.Event(), batch.attempt
    reads = Ahead._read

    def noted(ahead, file):
        reads(ahead, file)
        read.append(file)
        if file.suffix == ".safetensors" and "turbo" in str(file):
            done.set()

    waited = []

    def waits(stage, tool, trouble, job, *rest):
        if stage.name == "denoise" and job.tool == "rehearsal/base":
            waited.append(done.wait(20))
        return attempt(stage, tool, trouble, job, *rest)

    monkeypatch.setattr(Ahead, "_read", noted)
    monkeypatch.setattr(batch, "attempt", waits)
    rk.run(SWEEP, tmp_path / "out", batch=2)
    assert waited == [True, True] and not any("weights/base" in str(file) for file in read)  # what is loaded already is not read again


def test_what_would_push_out_what_is_in_use_is_not_read_ahead(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    opened = []
    monkeypatch.setattr(type(tmp_path), "open", lambda path, *rest, **more: opened.append(path) or open(path, *rest, **more))  # noqa: PTH123, SIM115
    for free, count in ((0.001, 0), (4.0, 1), (None, 2)):
        monkeypatch.setattr(measure, "ram_free", lambda free=free: free)
        Ahead()._read(tmp_path / "weights")
        assert len(opened) == count


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


def jobs(tool: str, *weights: int) -> deque[Job]:
    return deque(Job(tool, (f"{tool}{number}",), (), weight) for number, weight in enumerate(weights))


@pytest.fixture
def crew():
    """Workers as the driver sees them, on no cluster."""
    ray = Ray()

    def of(count: int) -> Ray:
        ray._members = [_Member(None, "ready", f"run-{number}") for number in range(count)]
        return ray

    return of


def given(ray, queue) -> list[tuple[str, str]]:
    return [(member.run, job.makes[0]) for member, job in ray._assignments(queue)]


def test_each_worker_takes_a_tool_of_its_own_and_keeps_it(crew):
    ray = crew(2)
    queue = {"a": jobs("a", 1, 1, 1), "b": jobs("b", 1, 1)}
    assert given(ray, queue)[:2] == [("run-0", "a0"), ("run-1", "b0")]
    ray._members[1].jobs = 0
    assert given(ray, queue)[0] == ("run-1", "b1")
    ray._members[1].jobs = 0
    assert given(ray, queue)[0] == ("run-1", "a2")  # its own tool is done: it helps with the other


def test_an_idle_worker_goes_where_most_is_left(crew):
    ray = crew(3)
    ray._members[0].tool, ray._members[0].jobs = "a", 1
    ray._members[1].tool, ray._members[1].jobs = "b", 1
    assert given(ray, {"a": jobs("a", 1), "b": jobs("b", 30)}) == [("run-2", "b0")]


def test_no_batch_waits_with_one_worker_while_another_could_take_it(crew):
    ray = crew(2)
    assert sorted(run for run, _ in given(ray, {"a": jobs("a", 1, 1)})) == ["run-0", "run-1"]
    ray = crew(2)
    assert sorted(run for run, _ in given(ray, {"a": jobs("a", *[1] * 8)})) == ["run-0", "run-0", "run-1", "run-1"]  # one ahead, while there is plenty


def test_who_is_away_gets_nothing(crew):
    ray = crew(2)
    ray._members[0].state = "waking"
    assert {run for run, _ in given(ray, {"a": jobs("a", 1, 1, 1)})} == {"run-1"}


def test_a_batch_that_ended_a_worker_is_tried_alone(crew):
    ray = crew(1)
    ray._deaths[("a0",)] = 1
    assert given(ray, queue := {"a": jobs("a", 1, 1, 1)}) == [("run-0", "a0")]
    ray._members[0].jobs = 0
    assert given(ray, queue) == [("run-0", "a1"), ("run-0", "a2")]


def test_what_was_brought_for_a_stage_that_is_over_concerns_no_other(crew):
    """A transfer that fails after another worker did the work: the next stage may name its tools alike."""
    ray = crew(2)
    late = Future()
    late.set_exception(rk.RequestError("no space left"))
    ray._members[1].state = "staging"
    ray._bringing[late] = ray._members[1], "denoise", "a"
    ray._brought("decode")
    assert ray._members[1].state == "ready" and not ray._members[1].unable and not list(ray._hopeless("decode", {"b": jobs("b", 1)}))


def test_who_cannot_load_a_tool_takes_another(crew):
    ray = crew(2)
    ray._cannot(ray._members[0], "a", OSError("the disk is gone"))
    queue = {"a": jobs("a", 1, 1), "b": jobs("b", 1)}
    assert given(ray, queue)[:2] == [("run-0", "b0"), ("run-1", "a0")] and not list(ray._hopeless("denoise", queue))
