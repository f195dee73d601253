"""The engines of scorers: a row for each says how it loads, which entries it takes, which weights
it reads, and whether it needs a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from realkit.scorers import (
    aesthetic,
    chunks,
    clip,
    colour,
    dual,
    hps,
    image_reward,
    iqa,
    judge,
    own,
    pixels,
    references,
    tokens,
    zero_shot,
)
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer
from realkit.weights.lock import Lock


def _none_cut(entry: Scorer, locks: Locks, prompt: str) -> int:
    return 0


@dataclass(frozen=True)
class Engine:
    """One way to compute a score. A number is determined by the hashes of the `weights` that it
    reads, by part; where it reads none, or a package fetches its own, by the source as it stands.
    """

    load: Callable[[str, Scorer, Locks], Rate]  # from a scorer's name, entry and locks
    check: Callable[[str, Scorer], None]  # raises RequestError for a wrong entry
    weights: Mapping[str, Kind] = field(default_factory=dict)
    prompted: bool = False  # the prompt matters
    cut: Callable[[Scorer, Locks, str], int] = _none_cut  # tokens of a prompt that are not seen
    cuts: bool = False  # prompts, itself, at the entry's `tokens`: they determine the number

    def lock(self, name: str, entry: Scorer, before: Locks | None = None) -> dict[str, Lock]:
        """The locks of an entry's weights; see references.lock."""
        return references.lock(name, entry, self.weights, before)


OPEN_CLIP: Mapping[str, Kind] = {SOURCE: "open_clip"}
ENGINES = {
    "open_clip": Engine(clip.load, clip.check, OPEN_CLIP, prompted=True, cut=clip.cut),
    "open_clip_contrast": Engine(zero_shot.load_contrast, zero_shot.check_contrast, OPEN_CLIP),
    "open_clip_rank": Engine(
        zero_shot.load_rank, zero_shot.check_rank, OPEN_CLIP, prompted=True, cut=clip.cut
    ),
    "open_clip_chunks": Engine(chunks.load, clip.check, OPEN_CLIP, prompted=True),
    "siglip": Engine(
        dual.load_siglip, dual.check, dual.SIGLIP, prompted=True, cut=tokens.of(SOURCE), cuts=True
    ),
    "pickscore": Engine(
        dual.load_pickscore,
        dual.check_pickscore,
        dual.PICKSCORE,
        prompted=True,
        cut=tokens.of_clip,
        cuts=True,
    ),
    "hps": Engine(hps.load, hps.check, hps.WEIGHTS, prompted=True, cut=tokens.of_clip),
    "image_reward": Engine(
        image_reward.load,
        image_reward.check,
        image_reward.WEIGHTS,
        prompted=True,
        cut=tokens.of("tokenizer"),
        cuts=True,
    ),
    "clip_head": Engine(aesthetic.load, aesthetic.check, aesthetic.WEIGHTS),
    "pyiqa": Engine(iqa.load, iqa.check, iqa.WEIGHTS),
    "judge": Engine(judge.load, judge.check, judge.WEIGHTS),
    "lab": Engine(colour.load, colour.check),
    "pixels": Engine(pixels.load, pixels.check),
    own.ENGINE: Engine(own.load, own.check),
}
