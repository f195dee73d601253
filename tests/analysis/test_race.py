"""What a race needs at the door; a race of rehearsal models, killed and resumed."""

import hashlib
import json
import signal
import subprocess
import sys
import time

import pytest

import realkit as rk

SWEEP = {
    "models": "rehearsal/base", "prompts": "suite:rehearsal-12", "size": 64, "guidance": 1,
    "samplers": [{"sampler": "Euler", "steps": 2}, {"sampler": "DDIM", "steps": 6}],
    "scorers": ["rehearsal/clip", "sharpness"],
}  # fmt: skip
DOOR = [
    ({}, {"decide": "rehearsal/clip"}, "needs decide and by: give by"),
    ({}, {"by": "sampler"}, "needs decide and by: give decide"),
    ({}, {"decide": "rehearsal/clip", "by": "prompt"}, "by 'prompt': expected one of model"),
    ({}, {"decide": "rehearsal/clip", "by": "colour"}, "by 'colour': expected one of model"),
    ({}, {"decide": "beauty", "by": "sampler"}, "Unknown scorer 'beauty'"),
    ({}, {"decide": 3, "by": "sampler"}, "Unknown scorer 3"),
    ({}, {"decide": "colour-cast", "by": "sampler"}, "is not scored by the sweep: add it"),
    ({}, {"decide": "sharpness", "by": "sampler"}, "'sharpness' has no better direction"),
    ({}, {"decide": "batch", "by": "sampler"}, "'batch' has no better direction: expected a"),
    ({}, {"decide": "rehearsal/clip", "by": "model"}, "has 1 value of model: expected 2 to"),
    ({"prompts": ["a", "b", "c", "d", "e"]}, {"decide": "seconds", "by": "sampler"},
     "has 5 prompts, and fewer than 6 decide nothing"),
    ({"samplers": [{"sampler": "Euler", "steps": 2}, {"sampler": "Euler", "steps": 3},
                   {"sampler": "DDIM", "steps": 6}]},
     {"decide": "rehearsal/clip", "by": "sampler"}, "compared: no cell of one has the steps"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "says"), DOOR)
def test_a_race_that_cannot_decide_is_refused_before_any_work(tmp_path, changes, options, says):
    with pytest.raises(rk.RequestError, match=says) as caught:
        rk.run(SWEEP | changes, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


CODE = (
    "import json, sys, realkit as rk; rk.run(json.loads(sys.argv[1]), sys.argv[2], batch=3,"
    " decide='nfe', by='sampler')"
)


def _decided(folder):
    looks = []
    for line in (folder / "decisions.jsonl").read_text().splitlines():
        look = json.loads(line)
        looks.append({name: look[name] for name in look.keys() - {"run", "at"}})
    return looks


@pytest.mark.slow
def test_a_race_of_two_samplers_needs_less_than_the_grid_and_survives_kills(tmp_path):
    sweep = SWEEP | {"scorers": []}
    command = [sys.executable, "-c", CODE, json.dumps(sweep)]
    rk.run(sweep, tmp_path / "whole", batch=3, decide="nfe", by="sampler")
    table = rk.read(tmp_path / "whole").table()
    assert table["status"].value_counts().to_dict() == {"ok": 12, "skipped": 12}
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len([*out.glob("latents/*.safetensors")]) < 4:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (out / "decisions.jsonl").exists()
    rk.run(sweep, out, batch=3, decide="nfe", by="sampler")
    assert _decided(out) == _decided(tmp_path / "whole")
    again = rk.read(out).table()
    assert again["status"].tolist() == table["status"].tolist()
    assert again["batch"].fillna(0).tolist() == table["batch"].fillna(0).tolist()


@pytest.mark.slow
def test_a_score_decides_between_two_and_eight_steps(tmp_path, capsys):
    sweep = {
        "models": "rehearsal/base", "prompts": "suite:rehearsal-12", "seeds": 2,
        "samplers": [{"sampler": "Euler", "steps": 2}, {"sampler": "DDIM", "steps": 8}],
        "scorers": ["rehearsal/clip"],
    }  # fmt: skip
    table = rk.run(sweep, tmp_path, decide="rehearsal/clip", by="sampler").table()
    said = capsys.readouterr().out
    print(said)
    assert (table["status"] == "skipped").sum() >= len(table) / 4, said
    assert "DDIM is better than Euler" in said.replace("Best of 2: DDIM.", "")
    assert "Also different: steps (2 for Euler; 8 for DDIM)" in said and "% is saved" in said


FAILS: set[tuple[int, bool]] = set()  # (width of a picture, whether its prompt comes first)
FIRST: list[str] = []


@pytest.fixture
def widths(tmp_path):
    """A race of three sizes; the scorer gives their width, and fails where FAILS says so."""

    @rk.scorer(direction="higher", unit="pixels", margin=1.0)
    def breadth(image, prompt):
        if (image.width, prompt in FIRST) in FAILS:
            raise ValueError("out of memory")
        return image.width + len(prompt) % 7 / 10

    prompts = [f"a {word} cube on {floor}" for word in ("red", "blue", "green", "white", "cyan")
               for floor in ("grass", "sand")]  # fmt: skip
    digests = {hashlib.sha256(prompt.encode()).hexdigest(): prompt for prompt in prompts}
    FIRST[:] = [digests[digest] for digest in sorted(digests)[:6]]
    FAILS.clear()
    sweep = {
        "models": "rehearsal/turbo", "samplers": "Euler", "steps": 1, "guidance": 1,
        "size": [64, 72, 80], "prompts": prompts, "scorers": "breadth",
    }  # fmt: skip
    yield lambda: rk.run(sweep, tmp_path / "out", decide="breadth", by=["width", "height"])
    rk.SCORERS.__dict__.get("_entries", {}).pop("breadth", None)


@pytest.mark.slow
def test_a_race_goes_on_when_all_that_failed_is_made(widths, capsys):
    FAILS.update((width, True) for width in (64, 72, 80))
    run = widths()
    said = capsys.readouterr().out
    assert "Nothing is decided. No cell of the table has a number in 'breadth'" in said
    assert "saved" not in said and "95 %" not in said
    FAILS.clear()
    run = widths()
    assert "3 of 3 pairs decided in 2 looks at up to 6 of 10 prompts" in capsys.readouterr().out
    assert run.table()["status"].value_counts().to_dict() == {"ok": 18, "skipped": 12}


@pytest.mark.slow
def test_an_arm_that_failed_is_judged_when_it_is_made(widths, capsys):
    FAILS.add((64, True))
    widths()
    said = capsys.readouterr().out
    assert "1 of 3 pairs decided in 1 look" in said and "goes on when failed cells are made" in said
    assert "cells of the race are still to be made" in said and "is saved" not in said
    FAILS.clear()
    widths()
    assert "3 of 3 pairs decided in 2 looks at up to 6 of 10 prompts" in capsys.readouterr().out


@pytest.mark.slow
def test_what_failed_at_the_last_prompts_is_looked_at_once_more_within_the_error_rate(
    widths, tmp_path
):
    FAILS.update({(64, True), (72, True), (64, False), (72, False)})
    widths()
    FAILS.clear()
    run = widths()
    looks = [json.loads(line) for line in (tmp_path / "out" / "decisions.jsonl").open()]
    assert sum(1 - look["confidence"] for look in looks) <= 0.05 + 1e-9
    assert looks[-1]["prompts"] == [] or run.table()["status"].eq("ok").all()
    before = (tmp_path / "out" / "decisions.jsonl").read_bytes()
    widths()
    assert (tmp_path / "out" / "decisions.jsonl").read_bytes() == before
    lines = before.splitlines(keepends=True)
    (tmp_path / "out" / "decisions.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(rk.RequestError, match="lacks a look of this race: restore the file"):
        widths()
