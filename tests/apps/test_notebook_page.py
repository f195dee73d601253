"""The page of a sweep of notebooks, in a browser."""

import nbformat
import pytest
import yaml

import realkit as rk
from tests.browser import HOSTILE, opened, ran

PARAMETERS = 'prompt = "a cube"\nout = "somewhere"\n'
WORK = """
import shutil
shutil.copytree({!r}, out + "/images")
shutil.copy({!r}, out)
"""
END = """
if "cone" in prompt:
    raise ValueError(prompt)
"""


@pytest.mark.browser
def test_no_prompt_runs_on_the_page(hostile, tmp_path):
    """Prompts, the names of entries and of their failures that are scripts are shown as they
    are; the page asks for nothing outside and every picture on it is there."""
    home = tmp_path / "notebooks"
    home.mkdir()
    work = WORK.format(str(hostile.folder / "images"), str(hostile.folder / "table.csv"))
    sources = (PARAMETERS, work, END)
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, home / "probe.ipynb")
    entries = {text: {"prompt": text} for text in HOSTILE}
    sweep = {"notebook": "probe.ipynb", "entries": entries}
    (home / "sweeps.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    rk.sweep_notebooks(home / "sweeps.yaml", tmp_path / "made")
    with opened() as (page, faults):
        page.goto((tmp_path / "made" / "index.html").as_uri())
        page.wait_for_load_state("networkidle")
        for text in HOSTILE:
            assert text in page.text_content("main")
        assert page.text_content("main").count("Each row pools 3 prompts.") == 3
        titles = page.evaluate("[...document.images].map(image => image.title)")
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert not ran(page) and not faults
    assert len(titles) == 3 * 6 and set(titles) == {f"{text} (seed 0)" for text in HOSTILE}
