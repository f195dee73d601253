"""A decorated function is a scorer: in a call, in a sweep, and with an identity of its own."""

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.scorers.score import determined_score
from realkit.scorers.table import SCORERS


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Whatever a test registers is gone after it."""
    monkeypatch.setitem(SCORERS.__dict__, "_entries", dict(SCORERS))


def test_old_pictures_are_scored_and_none_is_made(finished, tmp_path):
    import shutil

    @rk.scorer(direction="lower", unit="levels", margin=5.0)
    def darkness(image):
        """255 less the mean level."""
        return 255 - np.asarray(image).mean()

    folder = shutil.copytree(finished.folder, tmp_path / "folder")
    from tests.conftest import SMALL

    table = rk.run(SMALL | {"scorers": [*SMALL["scorers"], "darkness"]}, folder).table()
    with Image.open(folder / table["image"][0]) as image:
        assert table["darkness"][0] == pytest.approx(255 - np.asarray(image.convert("RGB")).mean())
    rows = rk.read(folder).store.rows.read()
    assert {row["stage"] for row in rows[len(finished.store.rows.read()) :]} == {"score"}
    found = rk.compare(table, "sampler", "darkness").iloc[0]
    assert found.margin == 5 and (table["status"] == "ok").all()
    assert SCORERS["darkness"].about == "255 less the mean level."


def test_a_function_may_read_the_prompt_and_its_text_is_its_identity():
    @rk.scorer(name="longer")
    def words(image, prompt):
        return len(prompt.split()) + image.width

    picture = Image.new("RGB", (3, 2))
    assert rk.score(picture, "a red cube", ["longer"]) == {"longer": 6}
    before = determined_score("longer")

    @rk.scorer(name="longer")
    def words_too(image, prompt):
        return len(prompt.split()) + image.height

    assert determined_score("longer") != before
    assert rk.score(picture, "a red cube", ["longer"]) == {"longer": 5}


@pytest.mark.parametrize("name", ["clip", "seconds"])
def test_a_name_that_is_taken_is_one_line(name):
    with pytest.raises(rk.RequestError, match=f"Scorer '{name}': the name is taken"):
        rk.scorer(name=name)(lambda image: 1.0)


def test_what_is_no_scorer_is_one_line(monkeypatch):
    with pytest.raises(rk.RequestError, match="expected a function of a picture"):
        rk.scorer(name="mine")(lambda: 1.0)
    rk.scorer(name="mine")(lambda image: "much")
    with pytest.raises(rk.RequestError, match="gave 'much': expected a number"):
        rk.score(Image.new("RGB", (2, 2)), "", ["mine"])
    monkeypatch.setattr("realkit.scorers.own._FUNCTIONS", {})
    with pytest.raises(rk.RequestError, match="is a function of another Python session"):
        rk.Sweep(models="rehearsal/base", prompts="a", scorers="mine")
