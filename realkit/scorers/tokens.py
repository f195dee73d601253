"""How many tokens of a prompt a scorer does not see, by the tokenizer that its network reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.scorers.references import Locks
from realkit.scorers.table import Scorer
from realkit.weights import clip_tokenizer, resolve

if TYPE_CHECKING:
    import torch

FILE = "tokenizer.json"


@lru_cache(maxsize=8)
def read(path: Path) -> Any:
    """The tokenizer of a file, of the package tokenizers; it pads and cuts nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def padded(path: Path, texts: Sequence[str], most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, each (N, most), of texts between a first and a last mark, cut before the last
    and padded with 0."""
    import torch

    ids = torch.zeros(len(texts), most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        whole = read(path).encode(text).ids
        cut = whole if len(whole) <= most else [*whole[: most - 1], whole[-1]]
        ids[row, : len(cut)] = torch.tensor(cut)
        mask[row, : len(cut)] = 1
    return ids, mask


def of(part: str) -> Callable[[Scorer, Locks, str], int]:
    """What counts by the tokenizer.json of a part, which is fetched for a prompt that may be too
    long. 0 where it cannot be fetched: the scorer's own load then says so."""

    def cut(entry: Scorer, locks: Locks, prompt: str) -> int:
        if _surely_seen(entry, prompt):
            return 0
        locked = locks[part]
        files = {FILE: locked.files[FILE]} if FILE in locked.files else {}
        try:
            tokenizer = read(resolve.fetch(replace(locked, files=files)) / FILE)
        except Exception:  # tokenizers raises what its file provokes
            return 0
        return max(0, len(tokenizer.encode(prompt.lower()).ids) - entry.tokens)

    return cut


def of_clip(entry: Scorer, locks: Locks, prompt: str) -> int:
    """Tokens cut by CLIP's own vocabulary, which needs no file."""
    if _surely_seen(entry, prompt):
        return 0
    return max(0, clip_tokenizer.counter(None)(prompt) - entry.tokens)


def _surely_seen(entry: Scorer, prompt: str) -> bool:
    return len(prompt.encode()) + 2 <= entry.tokens  # no text has more tokens than bytes
