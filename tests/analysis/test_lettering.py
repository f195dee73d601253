"""Texts of figures in any script: drawn in a font that has them, else numbers with a key."""

import io
import warnings

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager, ft2font
from matplotlib import pyplot as plt

from realkit.analysis.lettering import Lettering
from realkit.base.warn import warn_once

CHINESE, EMOJI = "红色 cube", "a 🦄 unicorn"


def font(path, letters, family="Tiny"):
    """A real font whose letters are squares."""
    names = [".notdef", *(f"g{n}" for n in range(len(letters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """The system's fonts, in place of those of this machine; matplotlib's own stay."""
    own = [entry for entry in font_manager.fontManager.ttflist
           if entry.fname.startswith(matplotlib.get_data_path())]  # fmt: skip
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    paths = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    font_manager.fontManager._findfont_cached.cache_clear()
    font_manager._get_font.cache_clear()
    warn_once.cache_clear()
    yield paths
    font_manager.fontManager._findfont_cached.cache_clear()


def drawn(*texts, notes=()):
    """The texts of a figure that was drawn without a letter missing."""
    lettering, (figure, axis) = Lettering(), plt.subplots(layout="constrained")
    axis.set_yticks(range(len(texts)), lettering.labels(list(texts), 30, 2))
    lettering.title(figure, texts[0])
    lettering.finish(figure, notes)
    plt.close(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph")
        figure.savefig(io.BytesIO())
    labels = [label.get_text() for label in axis.get_yticklabels()]
    return labels, figure.get_supxlabel().split("\n"), figure.get_suptitle()


def test_letters_without_a_font_are_numbers_with_a_key(installed, capsys):
    labels, key, title = drawn(CHINESE, "a $5 cube", EMOJI, CHINESE, notes=["A note."])
    assert labels == ["[1]", r"a \$5 cube", "[2]", "[1]"] and title == "[1]"
    assert key == ["A note.", "[1] [U+7EA2 U+8272] cube", "[2] a [unicorn face] unicorn"]
    assert f"[1] for '{CHINESE}': no installed font draws all" in capsys.readouterr().err


def test_installed_fonts_are_found_and_used(installed, tmp_path, capsys):
    """Several if need be; a damaged file and a font that draws one sign for all are passed by."""
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"\0\1\0\0 no font")
    last = font(tmp_path / "all.ttf", "红色🦄", "Last Resort of all")
    installed += [str(broken), str(tmp_path / "gone.ttf"), last]
    installed += [font(tmp_path / "a.ttf", "红色"), font(tmp_path / "b.ttf", "🦄", "Tinier")]
    labels, key, title = drawn(CHINESE, EMOJI, f"{EMOJI} {CHINESE}")
    assert labels == [CHINESE, EMOJI, f"{EMOJI} {CHINESE}"] and title == CHINESE and key == [""]
    assert not capsys.readouterr().err


def test_leftward_scripts_are_drawn_where_matplotlib_joins_their_letters(installed, monkeypatch):
    assert "DejaVu Sans" in {entry.name for entry in font_manager.fontManager.ttflist}
    text = "מכעב أحمر"
    whole = hasattr(ft2font, "__libraqm_version__")  # from 3.11 on
    assert drawn(text)[0] == [text if whole else "[1]"]
    monkeypatch.delattr(ft2font, "__libraqm_version__", raising=False)
    assert drawn(text)[0] == ["[1]"] and drawn(text)[1][0].startswith("[1] [U+05DE U+05DB")


def test_texts_that_are_equal_once_cut_are_told_apart(installed):
    long = "a very long prompt of many words that goes on and on and "
    labels, key, _ = drawn(f"{long} ends so", f"{long} ends thus", "a cube")
    assert labels == ["[1]", "[2]", "a cube"]
    assert [line[-4:] for line in key] == ["s so", "thus"]
    assert drawn(f"{long} ends so", "a cube")[0][0].endswith(" …")


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.lists(st.text(max_size=30), min_size=4, max_size=12))
def test_any_text_is_drawn(texts):
    labels, *_ = drawn(*texts)
    assert len(labels) == len(texts)
