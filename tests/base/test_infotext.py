"""A1111's infotext: its rules of quoting on random values, and texts as A1111 and Civitai write
them."""

import contextlib
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realkit.base import infotext
from tests.picture_files import A1111, CIVITAI, RESOURCES

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
FAR = "".join(map(chr, [*range(1, 0x300), 0x2028, 0x4E2D, 0x1F600]))


def as_a1111_writes(value: str) -> str:
    """stable-diffusion-webui 1.10: JSON where it has a comma, a line's end or a colon."""
    return json.dumps(value, ensure_ascii=False) if re.search("[,\n:]", value) else value


def as_a1111_reads(line: str) -> dict[str, str]:
    """stable-diffusion-webui 1.10: a key, a colon, and JSON's text or all up to a comma."""
    read = {}
    for key, value in re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', line):
        if value and value[0] == value[-1] == '"':
            with contextlib.suppress(ValueError):
                value = json.loads(value)
                read[key] = value
                continue
        if value:  # it leaves out a key without a value
            read[key] = value
    return read


EDGES = ['"quoted"', '"', "", " a", "[1]", "{}", "civitai:4201@245598, v2", '"a', "a\\", "a\r"]


def random_values(count: int) -> list[str]:
    """Short texts, most of them of the letters that quoting is about."""
    generator = random.Random(1)
    values = []
    for _ in range(count):
        letters = 'a1 ,:"\\\n{}[]-é\t' if generator.random() < 0.7 else FAR
        values.append("".join(generator.choices(letters, k=generator.randint(0, 16))))
    return values


def test_a_value_is_quoted_as_a1111_does_and_comes_back():
    """A1111's own rules, on 1,000 values. Where its reader would not give a plain value back, ours
    is quoted, and its reader gives it back."""
    values = [*EDGES, *random_values(1000)]
    as_a1111 = 0
    for value in values:
        plain = f"Steps: 20, Model: {as_a1111_writes(value)}, Seed: 1"
        safe = not value.startswith('"') and value == value.rstrip()  # wherever in the line it is
        if as_a1111_reads(plain).get("Model") == value and safe:
            assert infotext.quoted(value) == as_a1111_writes(value)
            as_a1111 += 1
        line = f"Steps: 20, Model: {infotext.quoted(value)}, Seed: 1"
        settings = {"Steps": "20", "Model": value, "Seed": "1"}
        assert as_a1111_reads(line) == settings, value
        text = infotext.parsed(f"a cat\n{line}")
        assert (text.prompt, text.negative, text.settings) == ("a cat", "", settings)
    assert as_a1111 > 700


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 100, allow_nan=False), TEXT, TEXT)
def test_a_text_comes_back_and_numbers_keep_their_digits(guidance, model, other):
    text = infotext.Infotext(
        "a cat", "a dog", {"Steps": 7, "CFG scale": infotext.number(guidance), "Model": model}
    )
    again = infotext.parsed(str(text))
    assert (again.prompt, again.negative) == ("a cat", "a dog")
    assert float(again.settings["CFG scale"]) == guidance and again.settings["Model"] == model
    changed = infotext.with_settings(str(text), {"Model": other, "VAE": model})
    assert infotext.parsed(changed).settings == again.settings | {"Model": other, "VAE": model}
    assert list(infotext.parsed(changed).settings) == ["Steps", "CFG scale", "Model", "VAE"]


@pytest.mark.parametrize(
    ("value", "text"), [(7.0, "7"), (7.123456789, "7.123456789"), (0.1 + 0.2, repr(0.1 + 0.2))]
)
def test_a_number_is_written_with_its_digits(value, text):
    assert infotext.number(value) == text


def test_what_a1111_writes_is_read():
    text = infotext.parsed(A1111)
    assert text.prompt == "a cat, (sleeping:1.2), <lora:fur:0.5>\nby the sea"
    assert text.negative == "dog, blurry" and text.settings["Seed"] == "1234567890123"
    assert text.settings["Lora hashes"] == "fur: e3f9c2b1a8d7, sea: 0123456789ab"
    assert str(text) == A1111 == str(infotext.parsed(str(text)))


def test_civitais_resources_are_json_and_stay():
    text = infotext.parsed(CIVITAI)
    assert text.settings["Civitai resources"] == RESOURCES
    assert text.settings["Created Date"] == "2024-12-22T01:01:01.0222111Z"
    changed = infotext.with_settings(CIVITAI, {"Postprocess upscaler": "lanczos"})
    assert changed == f"{CIVITAI}, Postprocess upscaler: lanczos"


@pytest.mark.parametrize("text", ["", "a cat", "a cat, red: very, blue: not", "x" * 3, "Steps: 2"])
def test_a_text_without_settings_is_all_prompt(text):
    assert not infotext.is_infotext(text)
    assert infotext.parsed(text) == infotext.Infotext(text.strip())


@pytest.mark.parametrize("words", ["a" * 2_000_000, " " * 2_000_000, "a:" * 100_000, '"' * 100_000])
def test_no_text_takes_long(words):
    assert infotext.parsed(f"a cat\n{words}").prompt.startswith("a cat")
