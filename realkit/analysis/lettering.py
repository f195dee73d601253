"""Texts of figures: wrapped, in installed fonts that have their letters, else numbers with a key.

Matplotlib draws an empty box for a letter that its font lacks, and says so in a warning of many
lines. Its own font has Latin, Greek, Cyrillic, Hebrew and Arabic; no Chinese, Japanese, Korean or
emoji.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from realkit.base.errors import shown
from realkit.base.warn import warn_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE_SIZE = 7.5  # points of the notes below a figure
LINE_INCHES = 0.15  # of a note
KEY_LENGTH = 200  # characters of a text in the key
MOST_FONTS = 3  # that one text may need besides matplotlib's own
JOINERS = "\u200c\u200d"  # they shape the letters beside them


class Lettering:
    """The texts of one figure. Call it for each text, `finish` at the end."""

    def __init__(self) -> None:
        self._fonts: dict[str, Any] = {}  # the fonts that the texts need, by family
        self._numbers: dict[str, str] = {}  # what stands for a text that is in the key
        self._keys: dict[str, str] = {}

    def __call__(self, value: Any, width: int = 1000, lines: int | None = None) -> str:
        """A text to draw, of at most `width` letters a line and `lines` lines; its number where no
        installed font has its letters. A dollar sign does not start mathematics."""
        text = _plain(str(value))
        if lacking := self._lacking(text):
            return self._number(text, lacking)
        return _wrapped(text, width, lines)

    def labels(self, values: Sequence[Any], width: int, lines: int) -> list[str]:
        """The texts of several values, told apart: those that are equal once they are cut to their
        width are numbers."""
        texts = [self(value, width, lines) for value in values]
        if len(set(texts)) < len(set(map(str, values))):
            alike: set[str] = set()
            for place, text in enumerate(tuple(texts)):
                if texts.count(text) > 1 or text in alike:
                    alike.add(text)
                    texts[place] = self._number(_plain(str(values[place])), set())
        return texts

    def finish(self, figure: Figure, notes: Iterable[str] = ()) -> Figure:
        """Give every text of a figure the fonts it needs, and write the notes and the key of the
        numbers below it, for which it becomes higher."""
        lines: list[str] = []
        width = _letters_a_line(figure, NOTE_SIZE)
        for note in notes:
            lines += _wrapped(note, width, None).split("\n")
        for key in self._keys.values():
            lines += _wrapped(key, width, None).split("\n")
        if lines:
            figure.set_figheight(figure.get_figheight() + LINE_INCHES * len(lines))
            below = figure.supxlabel("\n".join(lines), x=0.01, ha="left", ma="left")
            below.set(fontsize=NOTE_SIZE, color="#444444")
        if self._fonts:
            self._set_fonts(figure)
        return figure

    def title(self, figure: Figure, value: Any, size: float = 10) -> None:
        """Write a title as wide as the figure, of at most four lines."""
        text = self(value, _letters_a_line(figure, size), 4)
        figure.suptitle(text, fontsize=size)
        more = text.count("\n") * size * 1.3 / 72
        figure.set_figheight(figure.get_figheight() + more)

    def _set_fonts(self, figure: Figure) -> None:
        from matplotlib import rcParams
        from matplotlib.text import Text

        for text in figure.findobj(Text):
            text.set_fontfamily([*rcParams["font.family"], *self._fonts])

    def _lacking(self, text: str) -> set[str]:
        """The letters that no font draws, once the fonts that the text needs were added."""
        missing = _missing(text, [*_own_fonts(), *self._fonts.values()])
        if not missing:
            return set()
        needed: dict[str, Any] = {}
        for path in _installed() * (not all(map(_undrawable, missing))):
            font = _opened(path)
            if font and len(_missing("".join(missing), [font])) < len(missing):
                font = _known(path, font)
                needed[font.family_name] = font
                missing = _missing("".join(missing), [font])
            if not missing or len(needed) == MOST_FONTS:
                break
        self._fonts |= needed  # the key has the letters of a text that some font draws
        return missing

    def _number(self, text: str, lacking: set[str]) -> str:
        if text not in self._numbers:
            number = self._numbers[text] = f"[{len(self._numbers) + 1}]"
            described = _described(text, lacking)
            self._keys[text] = f"{number} {shorten(described, KEY_LENGTH, placeholder=' …')}"
            if lacking:
                warn_once(
                    f"The figure has {number} for {shown(text)}: no installed font draws all"
                    " of its letters. Install one of the Noto fonts that has them"
                )
        return self._numbers[text]


def _plain(text: str) -> str:
    """A text without what has no shape: marks of direction, selectors of variants; every kind of
    white space is a blank."""
    letters = []
    for letter in text:
        if letter.isspace():
            letters.append(" ")
            continue
        selector = "\ufe00" <= letter <= "\ufe0f"
        if letter in JOINERS or not (selector or unicodedata.category(letter) == "Cf"):
            letters.append(letter)
    return "".join(letters)


def _wrapped(text: str, width: int, lines: int | None) -> str:
    wide = sum(map(text.count, filter(_is_wide, set(text))))
    width = width * len(text) // max(1, len(text) + wide)
    return fill(text, max(width, 4), max_lines=lines, placeholder=" …").replace("$", r"\$")


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"


def _letters_a_line(figure: Figure, size: float) -> int:
    """How many letters of a size in points fit the figure's width; a letter is 0.6 of it wide."""
    return int(figure.get_figwidth() * 72 / (0.6 * size))


def _missing(text: str, fonts: Sequence[Any]) -> set[str]:
    """The letters of a text that none of the fonts draws."""
    missing = set()
    for letter in set(text) - set(JOINERS + " "):
        if _undrawable(letter) or not any(font.get_char_index(ord(letter)) for font in fonts):
            missing.add(letter)
    return missing


def _undrawable(letter: str) -> bool:
    """Whether no font helps: controls, signs of private use, and what is written from right to left
    before matplotlib 3.11, which would draw it mirrored and unjoined."""
    from matplotlib import ft2font

    leftwards = unicodedata.bidirectional(letter) in ("R", "AL")
    shapes = hasattr(ft2font, "__libraqm_version__")
    return unicodedata.category(letter) in ("Cc", "Cs", "Co") or (leftwards and not shapes)


def _described(text: str, lacking: set[str]) -> str:
    """A text with the names of the signs that cannot be drawn, of letters their codes."""
    parts = []
    for letter in text:
        if letter in JOINERS:
            continue
        if letter not in lacking:
            parts.append(letter)
            continue
        code = f"U+{ord(letter):04X}"
        if not unicodedata.category(letter).startswith("L"):
            code = unicodedata.name(letter, "").lower() or code
        parts.append(f"[{code}]")
    return "".join(parts).replace("][", " ")


def _own_fonts() -> list[Any]:
    """The fonts that matplotlib looks into by itself, by its settings."""
    from matplotlib import font_manager, rcParams

    names: list[str] = []
    for family in rcParams["font.family"]:
        names += rcParams.get(f"font.{family}", [family])
    fonts = []
    for name in names:
        try:
            path = font_manager.findfont(name, fallback_to_default=False)
        except ValueError:  # not installed
            continue
        fonts.append(font_manager.get_font(path))
    return fonts


def _installed() -> list[str]:
    """The files of the installed fonts, plain sans-serif ones first. Matplotlib's own list may be
    older than a font."""
    from matplotlib import font_manager

    paths = {entry.fname for entry in font_manager.fontManager.ttflist}
    paths |= set(font_manager.findSystemFonts())
    return sorted(filter(_exists, paths), key=_order)


def _exists(path: str) -> bool:
    return Path(path).is_file()


def _order(path: str) -> tuple[bool, bool, str]:
    name = Path(path).name.lower()
    fancy = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black"))
    return fancy, "serif" in name or "mono" in name, name


@lru_cache(maxsize=4096)
def _opened(path: str) -> Any:
    """A font with outlines; None for others, such as emoji as pictures, for a damaged file, and for
    the fonts that draw the same sign for every letter."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError, ValueError):
        return None
    return font if font.scalable and not font.family_name.startswith("Last Resort") else None


def _known(path: str, font: Any) -> Any:
    """The font that matplotlib takes for the family of this one, of which it may not have heard."""
    from matplotlib import font_manager

    known = [entry.name for entry in font_manager.fontManager.ttflist if entry.fname == path]
    if font.family_name not in known:
        font_manager.fontManager.addfont(path)
    return font_manager.get_font(font_manager.findfont(font.family_name))
