"""How many tokens of a text a model's text encoders cut, told before the model is loaded.

Only where a tokenizer lies on this disk, or is CLIP's, whose vocabulary ships: T5 is counted when
the model encodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realkit.base.files import json_object
from realkit.models.prompts import Cut, worst
from realkit.weights import clip_tokenizer
from realkit.weights.sources import disk

if TYPE_CHECKING:
    from realkit.models.lock import ModelLock

CLIPS = ("tokenizer", "tokenizer_2")  # the parts of a pipeline that split words as CLIP does


@dataclass(frozen=True)
class Encoder:
    """One text encoder: the folder of its tokenizer, None for CLIP's own, and the most tokens that
    it sees, the two marks included."""

    folder: Path | None
    most: int

    def tokens(self, text: str) -> tuple[int, int]:
        """(tokens, the most that it sees). A text has no more tokens than bytes: the tokenizer is
        read for long texts alone."""
        if len(text.encode()) + 2 <= self.most:
            return 0, self.most
        return clip_tokenizer.counter(self.folder)(text), self.most


def encoders(lock: ModelLock) -> list[Encoder]:
    """The CLIP encoders of a model's legs."""
    found = []
    for part in CLIPS:
        there = part in lock.parts or any(
            name.startswith(f"{part}/") for name in lock.configs.files
        )
        if there and part not in lock.family.absent and lock.spec.parts.get(part) != "":
            found.append(_encoder(lock, part))
    return found + encoders(lock.then) if lock.then else found


def _encoder(lock: ModelLock, part: str) -> Encoder:
    source = lock.parts.get(part)
    path = disk.local(source.ref if source else lock.main.ref)
    folder = path if source or path is None else path / part
    return of_folder(folder)


def of_folder(folder: Path | None, most: int = clip_tokenizer.TOKENS) -> Encoder:
    """The encoder whose tokenizer lies in a folder; CLIP's own where it does not."""
    if folder is None or not (folder / "merges.txt").is_file():
        folder = None
    elif (folder / "tokenizer_config.json").is_file():
        length = json_object(folder / "tokenizer_config.json").get("model_max_length", most)
        most = min(most, length) if isinstance(length, int) else most
    return Encoder(folder, most)


def cut(lock: ModelLock, text: str) -> Cut | None:
    """What the model's encoders do not see of a text, as far as it can be told here."""
    return worst(encoder.tokens(text) for encoder in encoders(lock))
