"""The engines of scorers: a row for each says how it loads, which sources it takes, and whether it
needs a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from realkit.scorers import clip, colour, own, pixels, zero_shot
from realkit.scorers.table import Rate, Scorer
from realkit.weights.lock import Lock


def _no_lock(source: str) -> None:
    return None


def _none_cut(source: str, prompt: str) -> int:
    return 0


@dataclass(frozen=True)
class Engine:
    """One way to compute a score. A number is determined by the hashes of the weights that `lock`
    gives, else by the entry's source as it stands."""

    load: Callable[[str, Scorer, Lock | None], Rate]  # from a scorer's name, entry and lock
    check: Callable[[str, Scorer], None]  # raises RequestError for a wrong entry
    lock: Callable[[str], Lock | None] = _no_lock  # of the weights at a source
    prompted: bool = False  # the prompt matters
    cut: Callable[[str, str], int] = _none_cut  # tokens not seen, of source and prompt


ENGINES = {
    "open_clip": Engine(clip.load, clip.check, clip.lock, prompted=True, cut=clip.cut),
    "open_clip_contrast": Engine(zero_shot.load_contrast, zero_shot.check_contrast, clip.lock),
    "open_clip_rank": Engine(
        zero_shot.load_rank, zero_shot.check_rank, clip.lock, prompted=True, cut=clip.cut
    ),
    "lab": Engine(colour.load, colour.check),
    "pixels": Engine(pixels.load, pixels.check),
    own.ENGINE: Engine(own.load, own.check),
}
