"""The rehearsal models' tokenizer: CLIP's byte-pair encoding with at most 1,000 tokens.

Its files have CLIP's format.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from realkit.rehearsal.wording import scenes, training_caption

SIZE = 1000
CONTEXT = 77
START, END = "<|startoftext|>", "<|endoftext|>"
OTHER_WORDS = """photograph picture portrait person people woman man face street city house
mountain forest water light shadow soft hard detailed realistic photorealistic
sharp focus high quality best low worst bad blurry blur noise noisy grain
watermark text logo cropped deformed ugly cartoon drawing painting illustration
render background foreground close wide angle lens film studio natural warm cold
dark bright morning evening day of the and with in under over behind two three
small large big black grey brown pink ball box ground"""


def write(folder: Path) -> None:
    """Learn the merges from the captions and common prompt words, and write CLIPTokenizer's files.

    A folder that has the files is left as it is: the learner breaks ties between equally frequent
    pairs differently in each process, and trained models depend on the token ids.
    """
    if (folder / "vocab.json").exists():
        return
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(
        Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True
    )
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    rng = np.random.default_rng(0)
    lines = [training_caption(scene, rng) for scene in scenes("train")] + [OTHER_WORDS] * 3
    room = SIZE - len(bytes_) - 2
    learner.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=room, end_of_word_suffix="</w>", initial_alphabet=bytes_, show_progress=False
        ),
    )
    merges = json.loads(learner.to_str())["model"]["merges"]
    tokens = bytes_ + [f"{byte}</w>" for byte in bytes_]
    tokens += [a + b for a, b in merges if a + b not in set(tokens)][: SIZE - len(tokens) - 2]
    tokens += [START, END]
    kept = [(a, b) for a, b in merges if a + b in set(tokens)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False),
        encoding="utf-8",
    )
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in kept), encoding="utf-8"
    )
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = special | {
        "model_max_length": CONTEXT,
        "do_lower_case": True,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))


def write_second(learned: Path, folder: Path) -> None:
    """Write another folder's vocabulary for SDXL's second text encoder, which pads with "!"."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((learned / name).read_bytes())
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    config = special | {
        "model_max_length": CONTEXT,
        "do_lower_case": True,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
