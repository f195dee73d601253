"""Blind votes in a notebook, in JupyterLab."""

import shutil

import pytest

from realkit.analysis.trials import picture_id
from realkit.runs.store import Store
from tests.browser import HOSTILE, opened, ran
from tests.jupyter import lab, run_all, write


@pytest.mark.browser
def test_votes_in_a_notebook_are_kept_and_no_prompt_runs(hostile, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(hostile.folder, home / "run")
    write(home / "vote.ipynb", ["import realkit as rk", 'rk.vote("run", by="sampler")'])
    prompts = []
    with lab(home) as address, opened() as (page, faults):
        run_all(page, address, "vote.ipynb")
        page.wait_for_selector(".jp-OutputArea img")
        page.get_by_role("button", name="← left").click()
        page.get_by_text("Give a name or initials first.").wait_for()
        page.get_by_placeholder("name or initials").fill("ana")
        choices = {"← left": "2 of 3", "no difference": "3 of 3", "right →": "Thank you: 3 votes."}
        for name, then in choices.items():
            assert page.locator(".jp-OutputArea img").count() == 2
            prompts.append(page.text_content(".jp-OutputArea .widget-html b"))
            page.get_by_role("button", name=name).click()
            page.get_by_text(then).wait_for()
        assert not ran(page)
        assert not [fault for fault in faults if not fault.startswith("Failed to load resource")]
    votes = Store(home / "run").votes.read()
    assert [vote["prompt"] for vote in votes] == prompts and set(prompts) == set(HOSTILE)
    others = [{"a": "b", "b": "a"}[vote["left"]] for vote in votes]
    assert [vote["choice"] for vote in votes] == [votes[0]["left"], "tie", others[2]]
    shown = set(map(picture_id, hostile.table()["image"]))
    assert {vote["a"] for vote in votes} | {vote["b"] for vote in votes} == shown
