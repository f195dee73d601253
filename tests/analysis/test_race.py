"""What a race needs at the door; a race of rehearsal models, killed and resumed."""

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
