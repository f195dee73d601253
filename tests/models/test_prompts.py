"""Forms of the web interfaces in prompts: right answers by A1111's and ComfyUI's grammar."""

import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realkit.models.prompts import forms, unread, worst, written, written_cut

# Prompt → the forms in it, as written.
FORMS = [
    ("a red cube on grass, 4k, f/1.8", ""),
    ("at 12:30, ratio 16:9, <3, a_b, __ and __, and, break, x:y", ""),
    ("a (red) cube", "emphasis (red)"),
    ("a (red:1.3) cube", "emphasis (red:1.3)"),
    ("a ((red)) cube, (b:1.2)", "emphasis ((red))"),
    ("(see note)", "emphasis (see note)"),
    ("(12:30)", "emphasis (12:30)"),
    ("a [red] cube", "emphasis [red]"),
    ("a (red cube", "emphasis (red cube"),
    ("a red) cube]", ""),  # without the opening bracket it is a plain letter
    (r"a \(red\) cube", r"escape \("),
    (r"a \(red\) (cube)", r"emphasis (cube), escape \("),
    ("a [red:blue:0.5] cube", "editing [red:blue:0.5]"),
    ("a [red:10] cube", "editing [red:10]"),
    ("a [red::.5] cube", "editing [red::.5]"),
    ("a [red|blue] cube", "alternation [red|blue]"),
    ("a [(red:1.2)|blue] cube", "alternation [(red:1.2)|blue]"),
    ("a {red|blue} cube", "choice {red|blue}"),
    ("a {2$$red|blue} cube", "choice {2$$red|blue}"),
    ("a __colour__ cube", "wildcard __colour__"),
    ("a __*__ cube", "wildcard __*__"),
    ("a __red+blue__ cube", "wildcard __red+blue__"),
    ("____, __ __, __.__", ""),
    ("a __deep/place-2__ cube", "wildcard __deep/place-2__"),
    ("a cube <lora:film:0.7>", "network <lora:film:0.7>"),
    ("a cube <lyco:film>, <hypernet:x:1>", "network <lyco:film>"),
    ("a cube BREAK grass", "BREAK"),
    ("a cube AND grass :1.2", "AND"),
    ("BREAKFAST, BRAND, SANDY", ""),
    ("a cube, embedding:photo", "embedding embedding:photo"),
    ("(embedding:bad:1.2)", "emphasis (embedding:bad:1.2), embedding embedding:bad:1.2"),
    ("a cube # not that", "comment # not that"),
    ("a cube /* not that */", "comment /* not that */"),
    ("a (" + "very " * 20 + "red) cube", "emphasis (very very very very very very …"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "says"), FORMS)
def test_the_forms_of_a_prompt(text, says):
    assert written(forms(text)) == says


def test_a_negative_is_not_combined():
    assert forms("blurry AND dark", negative=True) == {}
    assert forms("(blurry:1.2)", negative=True) == {"emphasis": "(blurry:1.2)"}


def test_the_worst_cut_of_several_encoders():
    assert worst([(77, 77), (40, 256)]) is None
    cut = worst([(89, 77), (95, 256), (90, 77)])
    assert cut == {"cut": 13, "of": 90, "by": 2, "encoders": 3}
    assert written_cut(cut) == "13 of 90 tokens cut by 2 of 3 encoders"
    assert written_cut(worst([(89, 77)])) == "12 of 89 tokens cut"


@pytest.mark.parametrize(
    ("prompt", "negative", "guidance", "cuts", "says"),
    [
        ("a cube", "", 5.0, [None], None),
        ("a (red:1.3) cube", "", 5.0, [], "emphasis (red:1.3)"),
        ("a (red:1.3) cube", "[grey]", 5.0, [None, {"prompt": worst([(89, 77)])}],
         "emphasis (red:1.3); 12 of 89 tokens cut; negative: emphasis [grey]"),
        ("a cube", "[grey]", 1.0, [], None),
        ("a cube", "grey", 2.0, [{"negative": worst([(80, 77)])}] * 2,
         "negative: 3 of 80 tokens cut"),
    ],
)  # fmt: skip
def test_the_column_unread(prompt, negative, guidance, cuts, says):
    assert unread(prompt, negative, guidance, cuts) == says


@pytest.mark.parametrize("piece", ["_", "__a", "[", "[a:", "(", "<a:", "{", "/*", "\\", ":1", "a "])
def test_a_long_text_is_searched_in_a_moment(piece):
    began = time.perf_counter()
    forms(piece * (100_000 // len(piece)) + "]")
    assert time.perf_counter() - began < 3


SIGNS = st.text(st.sampled_from("ab :.|/*#12(([])]{}<>\\_\nBREAKND"), max_size=60)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(SIGNS)
def test_any_prompt_has_forms_of_one_line(text):
    for name, example in forms(text).items():
        assert name and 0 < len(example) <= 32 and "\n" not in example
    if "(" in text.replace("\\(", "").replace("\\\\", ""):
        assert forms(text)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.text(string.ascii_lowercase + string.digits + " ,.:;!?'\"-+=%&$€éß", max_size=80))
def test_plain_words_are_plain(text):
    assert forms(text) == ({} if "embedding:" not in text else forms(text))
