"""Which of the existing names a mistyped one probably means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

SIMILAR = 0.6  # least similarity of a suggestion, of at most 1
TIED = 0.04  # suggestions this much less similar than the best are named too
MOST = 3  # suggestions
# What other programs call a setting → what it may be called here. Keys are folded.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "cfg": ("guidance",), "cfgscale": ("guidance",), "guidancescale": ("guidance",),
    "scale": ("guidance", "scale"), "numinferencesteps": ("steps",), "numsteps": ("steps",),
    "negativeprompt": ("negative", "negatives"), "negprompt": ("negative", "negatives"),
    "positive": ("prompt", "prompts"), "positiveprompt": ("prompt", "prompts"),
    "width": ("size",), "height": ("size",), "resolution": ("size", "target"),
    "checkpoint": ("model", "models"), "checkpoints": ("model", "models"),
    "ckpt": ("model", "models"), "basemodel": ("model", "models"),
    "scheduler": ("sampler", "samplers"), "schedulers": ("sampler", "samplers"),
    "samplername": ("sampler", "samplers"), "torchdtype": ("dtype",), "precision": ("dtype",),
    "denoise": ("strength",), "denoisingstrength": ("strength",), "noiseseed": ("seed", "seeds"),
    "hires": ("upscaler", "upscalers"), "hiresupscaler": ("upscaler", "upscalers"),
    "metric": ("scorers",), "metrics": ("scorers",), "output": ("out",), "outdir": ("out",),
    "gpu": ("cuda",), "time": ("seconds",),
    "vram": ("peak_vram_gib",), "memory": ("peak_vram_gib",),
}  # fmt: skip


def fold(name: str) -> str:
    """A name without what does not matter in it: case, spaces and punctuation."""
    return "".join(c for c in name.lower() if c.isalnum())


def near(typed: str, names: Mapping[str, str]) -> list[str]:
    """The names, of a mapping from their folded spellings, that `typed` probably means: the
    likeliest first, none where nothing is like it."""
    folded = fold(typed)
    elsewhere = [own for own in ELSEWHERE.get(folded, ()) if own in names.values()]
    if elsewhere:
        return elsewhere
    spellings = difflib.get_close_matches(folded, names, n=MOST, cutoff=SIMILAR)
    likely: dict[str, None] = {}
    for spelling in spellings:
        if _alike(folded, spelling) > _alike(folded, spellings[0]) - TIED:
            likely[names[spelling]] = None
    return list(likely)


def did_you_mean(typed: object, names: Iterable[object]) -> str:
    """ " Did you mean 'guidance'?", to follow a sentence that refuses a name; "" where no name is
    like it."""
    if not isinstance(typed, str):
        return ""
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(fold(str(name)), str(name))
    return question(near(typed, spelled))


def instead(typed: object, names: Iterable[object], count: str = "one", listed: str = "") -> str:
    """The end of a sentence that refuses a name: ": expected one of a, b", or, where a name is like
    it, ". Did you mean 'a'? Expected one of a, b". `listed` writes the names where not all are
    to be read, or otherwise."""
    options = list(map(str, names))
    choices = f"{count} of {listed or ', '.join(options)}"
    meant = did_you_mean(typed, options)
    return f".{meant} Expected {choices}" if meant else f": expected {choices}"


def question(meant: Iterable[str]) -> str:
    """The same of the names that were probably meant."""
    quoted = " or ".join(map(repr, meant))
    return f" Did you mean {quoted}?" if quoted else ""


def _alike(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()
