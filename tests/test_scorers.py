import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.rehearsal import render

CAPTION = "a photo of a matte blue cone on sand at noon"


def test_the_right_caption_scores_higher():
    picture = render(CAPTION, 2_000_000)
    right = rk.score(picture, CAPTION, ["rehearsal/clip"])["rehearsal/clip"]
    for wrong in (
        "matte red cone on sand at noon",
        "matte blue sphere on sand at noon",
        "matte blue cone on grass at noon",
        "matte blue cone on sand at night",
    ):
        assert right > rk.score(picture, f"a photo of a {wrong}", ["rehearsal/clip"])["rehearsal/clip"]


def test_the_colour_cast_is_a_number():
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    teal = Image.new("RGB", (32, 32), (100, 150, 150))
    assert rk.score(grey, "", ["colour-cast"])["colour-cast"] == pytest.approx(0, abs=0.05)
    found = rk.score(teal, "", ["colour-cast", "cast-green-red", "cast-blue-yellow"])
    assert found["colour-cast"] > 10 and found["cast-green-red"] < -10 and found["cast-blue-yellow"] < 0
    assert found["colour-cast"] == pytest.approx(np.hypot(found["cast-green-red"], found["cast-blue-yellow"]))


def test_clip_is_never_silently_another():
    with pytest.raises(rk.RequestError, match=r"Scorer 'clip' cannot get its weights \(ViT-L-14:openai\)"):
        rk.score(Image.new("RGB", (8, 8)), "a", ["clip"])


def test_every_scorer_states_what_it_is():
    assert all(spec.unit and spec.resize and spec.range[0] < spec.range[1] for spec in rk.SCORERS.values())
