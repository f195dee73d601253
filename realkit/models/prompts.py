"""What the web interfaces act on in a prompt, and realkit takes as plain words.

Forms and grammar are A1111's (modules/prompt_parser.py, extra_networks.py, the comments script),
ComfyUI's (comfy/sd1_clip.py, and its front end for choices and comments) and those of its
extensions for wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

Forms = dict[str, str]  # the first example of each form, by the form's name
NUMBER = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*"
SIGNS = re.compile(r"[(\[\\{<#]|__|//|/\*|BREAK|AND|embedding:")  # each form has one of these
BRACKET = re.compile(r"\\.|[(\[\])]", re.DOTALL)
EDITING = re.compile(rf"\[.*:{NUMBER}\]", re.DOTALL)
# Forms that no bracket tells apart. Their lengths are limited: a text that opens a thousand of them
# and closes none is not searched to its end for each.
WORDS = {
    "escape": re.compile(r"\\[()\[\]{}\\]"),
    "choice": re.compile(r"\{[^{}]*\}"),
    "wildcard": re.compile(r"__[@~]?(?:[^\W_]|\*)[\w./*@~+-]{0,200}?__"),
    "network": re.compile(r"<\w{1,50}:[^>]{1,500}>"),
    "BREAK": re.compile(r"\bBREAK\b"),
    "AND": re.compile(r"\bAND\b"),
    "embedding": re.compile(r"(?<!\w)embedding:[^\s,()]+"),
    "comment": re.compile(r"#[^\n]*|/\*.{0,2000}?\*/|//[^\n]*", re.DOTALL),
}
LONGEST = 32  # characters of an example


@lru_cache(maxsize=65_536)
def _forms(text: str, negative: bool) -> tuple[tuple[str, str], ...]:
    if not SIGNS.search(text):
        return ()
    forms = _brackets(text)
    for name, form in WORDS.items():
        # A1111 combines positive prompts alone.
        if not (negative and name == "AND") and (match := form.search(text)):
            forms[name] = match[0]
    return tuple((name, _short(example)) for name, example in forms.items())


def forms(text: str, negative: bool = False) -> Forms:
    """The forms in a prompt that a web interface would act on, each with its first example.

    A bracket without its partner counts: A1111 takes it as emphasis up to the end. A time (12:30)
    in round brackets is emphasis of 30, one without is plain.
    """
    return dict(_forms(text, negative))


def _brackets(text: str) -> Forms:
    """Emphasis, editing and alternation: what stands in round and square brackets, outermost."""
    forms: Forms = {}
    opened: list[int] = []
    for match in BRACKET.finditer(text):
        if match[0] in "([":
            opened.append(match.start())
        elif match[0] in ")]" and opened:
            start = opened.pop()
            if not opened:
                span = text[start : match.end()]
                forms.setdefault(_bracket_form(span), span)
    if opened:
        forms.setdefault("emphasis", text[opened[0] :])
    return forms


def _bracket_form(span: str) -> str:
    if span.startswith("[") and "|" in span:
        return "alternation"
    if span.startswith("[") and EDITING.fullmatch(span):
        return "editing"
    return "emphasis"


def _short(example: str) -> str:
    example = " ".join(example.split())
    return example if len(example) <= LONGEST else f"{example[: LONGEST - 1]}…"


def written(forms: Forms) -> str:
    """Forms in words: "emphasis (red:1.3), network <lora:x:0.7>"."""
    texts = []
    for name, example in forms.items():
        texts.append(example if name == example else f"{name} {example}")
    return ", ".join(texts)


# What encoders do not see of a text: {"cut": tokens, "of": tokens, "by": encoders, "encoders": n}.
Cut = Mapping[str, int]


def worst(counts: Iterable[tuple[int, int]]) -> Cut | None:
    """What the encoders of one text cut, of (tokens, the most that the encoder sees) of each; None
    where all see the whole text."""
    counts = list(counts)
    cut = [(tokens - most, tokens) for tokens, most in counts if tokens > most]
    if not cut:
        return None
    tokens, of = max(cut)
    return {"cut": tokens, "of": of, "by": len(cut), "encoders": len(counts)}


def written_cut(cut: Cut) -> str:
    """ "12 of 89 tokens cut", and by how many encoders where others see all."""
    text = f"{cut['cut']} of {cut['of']} tokens cut"
    if cut["by"] < cut["encoders"]:
        text += f" by {cut['by']} of {cut['encoders']} encoders"
    return text


def unread(
    prompt: str, negative: str, guidance: float, cuts: Iterable[Mapping[str, Cut] | None]
) -> str | None:
    """The table's column: what of a cell's prompt and negative was not read; None: all was.

    `cuts` are the fields `cut_tokens` of the rows of its legs. A negative without effect is left
    out.
    """
    legs = [cut for cut in cuts if cut]
    if not legs:
        return _plain(prompt, negative, guidance > 1)
    return _unread(prompt, negative, guidance > 1, legs)


@lru_cache(maxsize=65_536)
def _plain(prompt: str, negative: str, guided: bool) -> str | None:
    """`_unread` of cells whose encoders see all: a table asks for it once a line."""
    return _unread(prompt, negative, guided, [])


def _unread(prompt: str, negative: str, guided: bool, legs: list[Mapping[str, Cut]]) -> str | None:
    parts = []
    for name, text, label in (("prompt", prompt, ""), ("negative", negative, "negative: ")):
        if name == "negative" and not guided:
            continue
        own = [written(found)] if (found := forms(text, name == "negative")) else []
        own += dict.fromkeys(written_cut(leg[name]) for leg in legs if name in leg)
        if own:
            parts.append(label + "; ".join(own))
    return "; ".join(parts) or None
