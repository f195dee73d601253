"""The page of a blind vote, in a browser, from a disk."""

import json
import shutil

import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.analysis.trials import picture_id
from realkit.analysis.vote_page import embedded
from realkit.apps.cli.main import main
from realkit.runs.store import Store
from tests.browser import HOSTILE, opened, ran


@pytest.mark.browser
def test_a_vote_by_keyboard_from_a_disk_comes_back_right(hostile, tmp_path):
    """Every pair is judged by keys, one of them twice; the saved file holds what was pressed of
    what was seen, and merges into the folder. A prompt that is a script is shown, not run."""
    folder, out = tmp_path / "run", tmp_path / "vote ü #1.html"
    shutil.copytree(hostile.folder, folder)
    command = ["vote", str(folder), "--by", "sampler", "--out", str(out)]
    assert CliRunner().invoke(main, command).exit_code == 0
    seen = []

    def press(key):
        left, right = (page.get_attribute(f"#{side} img", "src") for side in ("left", "right"))
        seen.append((page.text_content("#prompt"), left, right))
        page.keyboard.press(key)

    with opened() as (page, faults):
        page.goto(out.as_uri())
        page.keyboard.press("ArrowLeft")  # counts for nothing: nobody has begun
        page.keyboard.type("ana <b>")
        page.keyboard.press("Enter")
        # The way back of a browser is no vote; a vote that is taken back counts no more.
        for key in ("ArrowLeft", "Alt+ArrowLeft", "ArrowDown", "Backspace", "ArrowRight"):
            press(key)
        assert page.text_content("#progress") == "3 of 3" and page.is_visible("#save")
        page.reload()  # what was voted so far is kept
        page.keyboard.type("ana <b>")
        page.keyboard.press("Enter")
        assert page.text_content("#progress") == "3 of 3"
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        press("ArrowDown")
        assert page.is_hidden("#voting") and "3 votes" in page.text_content("#count")
        with page.expect_download() as download:
            page.keyboard.press("Enter")  # the link that saves has the focus
        assert not ran(page) and not faults
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
    assert saved.name == "votes-ana_b_.jsonl"
    votes = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    first, taken_back, second, third = seen[0], seen[2], seen[4], seen[5]
    assert taken_back == second == seen[1]
    assert {vote["prompt"] for vote in votes} == set(HOSTILE)
    files = {picture_id(name): name for name in hostile.table()["image"]}
    for vote, (prompt, left, right), pressed in zip(
        votes, (first, second, third), ("left", "right", "tie"), strict=True
    ):
        other = {"a": "b", "b": "a"}[vote["left"]]
        assert vote["choice"] == {"left": vote["left"], "right": other, "tie": "tie"}[pressed]
        assert vote["prompt"] == prompt and vote["voter"] == "ana <b>"
        assert left == embedded(folder / files[vote[vote["left"]]])
        assert right == embedded(folder / files[vote[other]])
    merged = CliRunner().invoke(main, ["vote", str(folder), "--merge", str(saved)])
    assert merged.output.startswith("3 votes added") and Store(folder).votes.read() == votes
    strengths = rk.votes(folder, "sampler")
    assert strengths[["won", "tied", "lost"]].sum().tolist() == [2, 2, 2]
