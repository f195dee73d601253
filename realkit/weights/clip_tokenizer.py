"""CLIP's tokenizer, made from the vocabulary that open_clip ships: no download and no copy here.

Token ids equal those of the original Stable Diffusion code, open_clip and
openai/clip-vit-large-patch14. As in diffusers, a prompt is lower-cased and its white space
collapsed. Curly quotes and HTML entities stay as they are, which open_clip would replace.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from realkit.base.files import json_object

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49152 - 256 - 2  # lines used of the published file's 262,145, after a comment
# What is one word to CLIP, https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py
WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
TOKENS = 77  # positions of every CLIP text tower in use


def write(folder: Path, *, pad: str) -> None:
    """Write the four files that CLIPTokenizer.from_pretrained reads: vocab.json, merges.txt,
    tokenizer_config.json and special_tokens_map.json.

    `pad` is "<|endoftext|>" for OpenAI's text tower (SD 1, SDXL's first) and "!", id 0, for
    OpenCLIP's (SD 2, SDXL's second). from_pretrained makes the pad token a special one: a "!" in a
    prompt is then read as padding, as with the published folders. `load` does not.
    """
    merges = _merges()
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {"model_max_length": TOKENS, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    contents = {
        "vocab": {word: index for index, word in enumerate(_words(merges))},
        "tokenizer_config": special | config,
        "special_tokens_map": special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def load(pad: str) -> Any:
    """The CLIPTokenizer that pads with `pad`. A "!" in a prompt keeps its own id (256 at the end of
    a word), even where "!" pads."""
    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder:
        write(Path(folder), pad=END)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.pad_token = pad
    return tokenizer


def _merges() -> list[str]:
    """The byte pairs in the order in which they are merged, "first second"."""
    spec = find_spec("open_clip")  # located, not imported: the import takes seconds
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().split("\n")[1 : MERGES + 1]


def _words(merges: list[str]) -> list[str]:
    """The vocabulary in the order of its ids."""
    letters = _letters()
    words = letters + [letter + "</w>" for letter in letters]
    return [*words, *(merge.replace(" ", "") for merge in merges), START, END]


def _letters() -> list[str]:
    """A printable character for each byte, in the order of GPT-2's vocabulary: first the printable
    bytes as themselves, then a substitute for each other one."""
    printable: list[str] = []
    for first, last in ("!~", "¡¬", "®ÿ"):
        printable += map(chr, range(ord(first), ord(last) + 1))
    return [*printable, *map(chr, range(256, 512 - len(printable)))]


@lru_cache(maxsize=16)
def counter(folder: Path | None = None) -> Callable[[str], int]:
    """A function text → number of tokens, both marks included, by the tokenizers library alone:
    transformers takes seconds to import. `folder` holds another vocab.json and merges.txt."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if folder is None:
        merges = _merges()
        vocabulary = {word: index for index, word in enumerate(_words(merges))}
    else:
        merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
        vocabulary = json_object(folder / "vocab.json")
    pairs = []
    for merge in merges:
        if merge:
            first, _, second = merge.partition(" ")
            pairs.append((first, second))
    bpe = models.BPE(vocabulary, pairs, end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    return lambda text: len(tokenizer.encode(text).ids) + 2
