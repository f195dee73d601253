"""Blind votes: planted strengths, voters to doubt, files of several voters, and the page's keys."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import realkit as rk
from realkit.analysis.davidson import strengths
from realkit.analysis.trials import picture_id, trials
from realkit.analysis.vote_page import write
from realkit.analysis.vote_widget import vote
from realkit.analysis.votes import agreement
from realkit.apps.cli.main import main
from realkit.runs.store import Store

TRUE = np.array([0.9, 0.2, -0.1, -1.0])


def drawn(rng, prompts=24, voters=2, each=4, ties=0.5):
    """Votes of planted strengths, which differ a little from prompt to prompt."""
    arms, outcomes, places, names = [], [], [], []
    for prompt in range(prompts):
        own = TRUE + rng.normal(0, 0.3, 4)
        for voter in range(voters):
            for _ in range(each):
                first, second = rng.choice(4, 2, replace=False)
                shares = np.exp([own[first], own[second], (own[first] + own[second]) / 2])
                shares[2] *= ties
                arms.append((first, second))
                outcomes.append(rng.choice(3, p=shares / shares.sum()))
                places.append(prompt)
                names.append(voter)
    return np.array(arms), np.array(outcomes), (np.array(places), np.array(names))


def test_planted_strengths_lie_within_their_intervals():
    rng = np.random.default_rng(0)
    found = [strengths(*drawn(rng)) for _ in range(4)]
    held = np.mean([(one.low <= TRUE) & (one.high >= TRUE) for one in found])
    assert held >= 0.9 and all((one.low < one.high).all() for one in found)
    values = np.mean([one.values for one in found], axis=0)
    assert np.abs(values - TRUE).max() < 0.25


def test_two_arms_have_the_odds_of_their_wins():
    arms = np.array([[0, 1]] * 30)
    outcomes = np.array([0] * 20 + [1] * 10)
    found = strengths(arms, outcomes, (np.arange(30) % 6, np.zeros(30, int)))
    assert found.values[0] - found.values[1] == pytest.approx(np.log(2), abs=0.05)


def test_one_prompt_has_no_interval_and_all_wins_have_a_strength():
    found = strengths(np.array([[0, 1]] * 5), np.zeros(5, int), (np.zeros(5, int),) * 2)
    assert np.isnan(found.low).all() and np.isfinite(found.values).all()


@pytest.fixture
def folder(finished, tmp_path):
    return Path(shutil.copytree(finished.folder, tmp_path / "voted"))


def cast(df, choose, voter="ana", count=40, seed=0):
    """Votes on a ballot by a rule: choose(cell a, cell b, left) → "a", "b" or "tie"."""
    cells = {picture_id(cell["image"]): cell for cell in df.to_dict("records")}
    votes = []
    for number, trial in enumerate(trials(df, ["sampler"], count, seed=seed)):
        choice = choose(cells[trial.a], cells[trial.b], trial.left)
        votes.append({"a": trial.a, "b": trial.b, "left": trial.left, "choice": choice,
                      "voter": voter, "at": 1e9 + number, "prompt": trial.prompt})  # fmt: skip
    return votes


def test_a_ballot_pairs_arms_of_one_prompt_and_seed(finished):
    df = finished.table()
    cells = {picture_id(cell["image"]): cell for cell in df.to_dict("records")}
    ballot = trials(df, ["sampler"], 40)
    for trial in ballot:
        a, b = cells[trial.a], cells[trial.b]
        assert a["sampler"] != b["sampler"] and a["prompt"] == b["prompt"] == trial.prompt
        assert a["seed"] == b["seed"]
    assert {trial.left for trial in ballot} == {"a", "b"} and ballot == trials(df, ["sampler"], 40)
    with pytest.raises(rk.RequestError, match="differ in model alone: nothing to vote on"):
        trials(df, ["model"])


def test_strengths_wins_and_the_score_that_agrees(folder):
    df = rk.read(folder).table()
    Store(folder).add_votes(cast(df, lambda a, b, _: "a" if a["sampler"] == "Euler" else "b"))
    found = rk.votes(folder, "sampler")
    assert list(found["arm"]) == ["Euler", "Euler a"] and found["lost"].tolist() == [0, 4]
    assert "Euler: +" in str(found) and "rehearsal/clip agrees with" in str(found)
    table = rk.read(folder).table()
    assert set(table.groupby("sampler")["wins"].mean()) == {0.0, 1.0}
    assert rk.compare(table, "sampler", "wins").iloc[0].effect == 1

    def by_score(a, b, _):
        return "a" if a["rehearsal/clip"] > b["rehearsal/clip"] else "b"

    shares = agreement(df, cast(df, by_score)).set_index("score")["share"]
    assert shares["rehearsal/clip"] == 1 and shares.index[0] == "rehearsal/clip"


def test_a_voter_who_always_presses_left_is_called_out(folder):
    df = rk.read(folder).table()
    # The same four pairs again and again, sides shuffled anew.
    for seed in range(6):
        votes = cast(df, lambda a, b, left: left, "lefty", seed=seed)
        votes = [vote | {"at": vote["at"] + 100 * seed} for vote in votes]
        fair = cast(df, lambda a, b, left: "a" if a["sampler"] == "Euler" else "b", seed=seed)
        fair = [vote | {"at": vote["at"] + 100 * seed} for vote in fair]
        Store(folder).add_votes(votes + fair)
    said = str(rk.votes(folder, "sampler"))
    assert "lefty chose the left picture in 24 of 24 votes" in said and "ana chose" not in said
    assert "ana answered 20 of 20 repeated pairs as before" in said


def test_files_of_two_voters_merge_once(folder, tmp_path):
    df = rk.read(folder).table()
    for voter in ("ana", "ben"):
        votes = cast(df, lambda a, b, left: "tie", voter)
        lines = "".join(json.dumps(vote) + "\n" for vote in votes)
        (tmp_path / f"{voter}.jsonl").write_text(lines)
    files = [str(tmp_path / "ana.jsonl"), str(tmp_path / "ben.jsonl")]
    command = ["vote", str(folder), *(part for file in files for part in ("--merge", file))]
    first, again = (CliRunner().invoke(main, command).output for _ in range(2))
    assert first.startswith("8 votes added") and again.startswith("0 votes added")
    said = CliRunner().invoke(main, ["votes", str(folder), "--by", "sampler"]).output
    assert "8 blind votes of 2 voters" in said and "ben saw no difference in all 4 votes" in said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"a": "x"}', "is damaged"),
        ("no", "is damaged"),
        (json.dumps({"a": "0" * 16, "b": "../../x", "left": "a", "choice": "a", "voter": "v",
                     "at": 1.0, "prompt": "p"}), "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_vote_changes_nothing(folder, tmp_path, line, says):
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    done = CliRunner().invoke(main, ["vote", str(folder), "--merge", str(tmp_path / "bad.jsonl")])
    assert done.exit_code == 2 and says in done.stderr and not (folder / "votes.jsonl").exists()


def test_without_votes_or_arms_it_is_one_line(folder):
    with pytest.raises(rk.RequestError, match="has no votes: make a page"):
        rk.votes(folder, "sampler")
    with pytest.raises(rk.RequestError, match="no column 'colour'"):
        rk.vote(folder, "colour")
    Store(folder).add_votes(cast(rk.read(folder).table(), lambda *_: "a"))
    with pytest.raises(rk.RequestError, match="None of the 4 votes is between two values of model"):
        rk.votes(folder, "model")


def test_merged_folders_keep_each_vote_once(folder, tmp_path):
    from realkit.runs.combine import merge

    Store(folder).add_votes(cast(rk.read(folder).table(), lambda *_: "a"))
    for _ in range(2):
        merge(folder, tmp_path / "all")
    assert len(Store(tmp_path / "all").votes.read()) == 4


def test_the_widget_of_a_notebook_keeps_each_choice(folder):
    pytest.importorskip("ipywidgets")
    widget = vote(folder, "sampler")
    voter, choices = widget.children[0], widget.children[3]
    left = choices.children[0]
    left.click()
    assert not (folder / "votes.jsonl").exists()
    voter.value = "ana"
    for _ in range(6):
        left.click()
    votes = Store(folder).votes.read()
    assert len(votes) == 4 and all(vote["choice"] == vote["left"] for vote in votes)
    assert widget.children[4].value == "Thank you: 4 votes."
    assert not re.search("euler", str([image.value for image in widget.children[2].children]), re.I)


PRESS = """
const fs = require("fs"), html = fs.readFileSync(process.argv[2], "utf8");
const [, data] = html.match(/id="data">([^]*?)<\\/script>/);
const [, code] = html.match(/<script>([^]*?)<\\/script>/);
const parts = {}, stored = {}; let keydown;
const part = name => parts[name] ??= {hidden: false, value: "", firstElementChild: {}, focus() {}};
part("data").textContent = data;
global.document = {getElementById: part, addEventListener: (_, act) => { keydown = act; }};
const setItem = (key, value) => { stored[key] = value; };
global.localStorage = {getItem: key => stored[key] ?? null, setItem};
new Function(code)();
const press = key => keydown({key, repeat: false, preventDefault() {}});
press("ArrowLeft");
part("voter").value = "ana"; press("Enter");
for (const key of ["ArrowLeft", "ArrowRight", "Backspace", "ArrowDown", "ArrowRight"]) press(key);
const href = decodeURIComponent(part("save").href), name = part("save").download;
console.log(JSON.stringify({href, name, progress: part("progress").textContent}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
def test_the_page_votes_by_keys_and_its_file_merges(folder, tmp_path):
    out = tmp_path / "vote.html"
    command = ["vote", str(folder), "--by", "sampler", "--out", str(out)]
    assert CliRunner().invoke(main, command).output == f"{out}\n"
    text = out.read_text()
    assert "Euler" not in text and 'src="http' not in text
    (tmp_path / "press.js").write_text(PRESS)
    done = subprocess.run(["node", tmp_path / "press.js", out], capture_output=True, text=True)
    found = json.loads(done.stdout)
    lines = found["href"].partition(",")[2]
    (tmp_path / found["name"]).write_text(lines)
    votes = [json.loads(line) for line in lines.splitlines()]
    right = {"a": "b", "b": "a"}
    assert [vote["choice"] for vote in votes] == [
        votes[0]["left"], "tie", right[votes[2]["left"]]
    ]  # fmt: skip
    assert found["name"] == "votes-ana.jsonl" and found["progress"] == "4 of 4"
    assert Store(folder).merge_votes([tmp_path / "votes-ana.jsonl"]) == 3


def test_a_page_replaces_a_page_of_votes_and_nothing_else(folder, tmp_path):
    out = tmp_path / "mine.html"
    out.write_text("<!doctype html><title>My page</title>")
    done = CliRunner().invoke(main, ["vote", str(folder), "--out", str(out)])
    assert done.exit_code == 2 and "is no page of votes" in done.stderr
    with pytest.raises(ValueError, match="is no page of votes"):
        write(folder, ["sampler"], out)
    assert "My page" in out.read_text()
    for _ in range(2):
        write(folder, ["sampler"], tmp_path / "vote.html")


def test_photographs_are_an_arm_of_their_own(folder, tmp_path):
    (tmp_path / "real").mkdir()
    for number in range(3):
        Image.new("RGB", (900, 600), (number, 90, 90)).save(tmp_path / "real" / f"{number}.jpg")
    out = tmp_path / "vote.html"
    command = ["vote", str(folder), "--photographs", str(tmp_path / "real"), "--out", str(out)]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert out.read_text().count('"photograph/') >= 6  # each in a trial and among the pictures
    vote = {"a": "photograph/0.jpg", "b": trials(rk.read(folder).table(), ["sampler"])[0].b,
            "left": "b", "choice": "a", "voter": "v", "at": 1.0, "prompt": "p"}  # fmt: skip
    Store(folder).add_votes([vote])
    assert rk.votes(folder, "sampler").iloc[0].arm == "photograph"
    empty = CliRunner().invoke(main, ["vote", str(folder), "--photographs", str(tmp_path)])
    assert empty.exit_code == 2 and "No photographs in" in empty.stderr
