"""Contrasts and ranks: equal to a direct computation with open_clip on the same weights."""

import open_clip
import pytest
import torch
from PIL import Image

import realkit as rk
from realkit.catalog.suites import PROMPTS
from realkit.rehearsal.scenes import render
from realkit.scorers.score import determined_score
from realkit.scorers.table import SCORERS, Scorer

SUITE = PROMPTS["rehearsal-12"].prompts
COMMON = dict(unit="%", direction="higher", range=(0, 100), resize="64 px", about="of a test")


@pytest.fixture
def shape(monkeypatch):
    """A contrast of the rehearsal world: a cube against a sphere and a cone."""
    words = ("a photo of a matte red cube on grass at noon", "a blue cube on sand")
    against = (("a photo of a matte red sphere on grass at noon",), ("a green cone on sand",))
    entry = Scorer(engine="open_clip_contrast", source="package:clip", words=words,
                   against=against, **COMMON)  # fmt: skip
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "shape": entry})
    return entry


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """(embeddings of texts, embedding of a picture, logit scale) by open_clip itself."""
    from realkit.apps.training.ship import WEIGHTS

    place = f"local-dir:{WEIGHTS / 'clip'}"
    model, _, prepare = open_clip.create_model_and_transforms(place)
    tokenize = open_clip.get_tokenizer(place)
    model.eval()

    def texts(texts):
        with torch.no_grad():
            return model.encode_text(tokenize(texts), normalize=True)

    def image(picture):
        with torch.no_grad():
            return model.encode_image(prepare(picture)[None], normalize=True)[0]

    return texts, image, model.logit_scale.exp().item()


@pytest.mark.parametrize("name", ["cube", "sphere"])
def test_a_contrast_is_the_softmax_of_class_means(shape, oracle, name):
    texts, image, scale = oracle
    picture = render(f"a photo of a matte red {name} on grass at noon", 5)
    classes = [texts(list(group)).mean(0) for group in (shape.words, *shape.against)]
    cosines = torch.stack([row / row.norm() for row in classes]) @ image(picture)
    expected = 100 * torch.softmax(scale * cosines, 0)[0].item()
    found = rk.score(picture, "", ["shape"])["shape"]
    assert found == pytest.approx(expected, abs=1e-3) and (found > 50) == (name == "cube")


def test_a_picture_finds_its_own_prompt(oracle):
    texts, image, _ = oracle
    for seed, caption in enumerate(SUITE[:4]):
        picture = render(caption, 100 + seed)
        first = SUITE[int((texts(SUITE) @ image(picture)).argmax())]
        for prompt in (caption, SUITE[7]):
            found = rk.score(picture, prompt, ["rehearsal/rank-12"])["rehearsal/rank-12"]
            assert found == 100 * (first == prompt)
    assert first == caption


def test_a_prompt_from_elsewhere_joins_the_suite():
    picture = render("a photo of a shiny red cone on sand at dawn", 3)
    scores = [
        rk.score(picture, prompt, ["rehearsal/rank-12"])["rehearsal/rank-12"]
        for prompt in ("a photo of a shiny red cone on sand at dawn", "a blue sphere on a floor")
    ]
    assert scores == [100, 0]


def test_the_texts_are_part_of_what_determines_a_score(shape, monkeypatch):
    before = determined_score("shape"), determined_score("rehearsal/rank-12")
    other = shape.model_copy(update={"words": ("a cube",)})
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "shape": other})
    assert determined_score("shape") != before[0] and before[1]["prompts"] == SUITE
    assert "prompts" not in determined_score("rehearsal/clip")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": ()}, "contrasts texts: expected `words`"),
        ({"against": ((),)}, "contrasts texts: expected `words`"),
        ({"engine": "open_clip_rank"}, "ranks prompts: expected `suite`"),
        ({"engine": "open_clip_rank", "suite": "peeple"}, "Did you mean 'people'"),
    ],
)
def test_an_entry_that_lacks_its_texts_is_one_line(shape, monkeypatch, change, says):
    wrong = shape.model_copy(update=change)
    monkeypatch.setitem(SCORERS.__dict__, "_entries", {**SCORERS, "shape": wrong})
    with pytest.raises(rk.RequestError, match=says):
        rk.score(Image.new("RGB", (8, 8)), "a", ["shape"])
