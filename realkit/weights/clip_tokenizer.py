"""CLIP's tokenizer, from the vocabulary that open_clip ships: no download, and no copy of it in
this package.

Token ids equal those of the original Stable Diffusion code, open_clip and
openai/clip-vit-large-patch14. As in diffusers, a prompt is lower-cased and its white space
collapsed, but curly quotes and HTML entities are left as they are (open_clip repairs both first).
"""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = (
    49152 - 256 - 2
)  # of the published file's 262,145 lines, the first is a comment and these many are used
TOKENS = 77  # positions of every CLIP text tower in use


def write(folder: Path, *, pad: str) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, which
    CLIPTokenizer.from_pretrained reads.

    `pad` is "<|endoftext|>" for OpenAI's text tower (SD 1, SDXL's first) and "!", id 0, for
    OpenCLIP's (SD 2, SDXL's second). from_pretrained makes the pad token a special one, so that a
    "!" in a prompt is read as padding too, as it is with the published folders; `load` does not.
    """
    merges = _merges()
    letters = _letters()
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
        START,
        END,
    ]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = special | {
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "tokenizer_class": "CLIPTokenizer",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    for name, data in {
        "vocab": {word: index for index, word in enumerate(words)},
        "tokenizer_config": config,
        "special_tokens_map": special,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def load(pad: str) -> Any:
    """The CLIPTokenizer that pads with `pad`. A "!" in a prompt keeps its own id, 256 at a word's
    end, also where "!" pads."""
    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder:
        write(Path(folder), pad=END)
        made = CLIPTokenizer.from_pretrained(folder)
    made.pad_token = pad
    return made


def _merges() -> list[str]:
    """The byte pairs in the order in which they are merged, "first second"."""
    spec = find_spec("open_clip")  # found, not imported: importing it takes seconds
    assert spec is not None and spec.origin is not None
    with gzip.open(
        Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8"
    ) as file:
        return file.read().split("\n")[1 : MERGES + 1]


def _letters() -> list[str]:
    """A printable character for each byte: the printable ones stand for themselves and come first,
    as in GPT-2's vocabulary."""
    printable = [
        byte for part in ("!~", "¡¬", "®ÿ") for byte in range(ord(part[0]), ord(part[1]) + 1)
    ]
    return [chr(byte) for byte in printable] + [
        chr(256 + index) for index in range(256 - len(printable))
    ]
