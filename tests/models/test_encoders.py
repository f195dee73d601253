"""Tokens counted before a model is loaded are those that its own tokenizer counts."""

import subprocess
import sys
import time

import pytest

from realkit.models import encoders
from realkit.models.families import FAMILIES
from realkit.models.loading import load
from realkit.models.lock import lock_model
from realkit.models.request import Request
from realkit.scorers.score import cut_tokens
from realkit.weights import clip_tokenizer
from realkit.weights.clip_tokenizer import counter
from tests import miniatures

TEXTS = [
    "a red cube on grass", "", "It's 12:30, isn't it?! ((very)) naïve café — 東京 ½ 🙂\n\nnew  l",
    "DON'T !!! ... a1b22 <lora:x:0.7>", "word " * 200,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_clip_tokens_are_counted_as_transformers_counts_them(text):
    tokenizer = clip_tokenizer.load(clip_tokenizer.END)
    assert counter()(text) == len(tokenizer(text).input_ids)


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2", "clip"])
def test_tokens_of_the_rehearsal_models_are_counted_by_their_own_files(weights, folder):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(weights / folder)
    for text in TEXTS:
        assert counter(weights / folder)(text) == len(tokenizer(text).input_ids)


def test_each_encoder_of_a_model_counts():
    assert [encoder.most for encoder in encoders.encoders(lock_model("rehearsal/xl"))] == [77, 77]
    assert len(encoders.encoders(lock_model("rehearsal/base"))) == 1
    both = lock_model("rehearsal/xl+refiner")
    assert len(encoders.encoders(both)) == 3  # two of the first leg, one of the refiner


def test_the_scorers_lengths_are_those_of_open_clip(weights):
    import open_clip

    for name, model in (("clip", "ViT-L-14"), ("rehearsal/clip", f"local-dir:{weights / 'clip'}")):
        tokenizer = open_clip.get_tokenizer(model)
        most = tokenizer.context_length
        assert most == {"clip": 77, "rehearsal/clip": 32}[name]
        for count in range(most - 4, most + 4):
            text = "red " * count
            assert cut_tokens(name, text) == max(0, count + 2 - most)
    assert cut_tokens("colour-cast", "red " * 100) == 0


def test_t5_sees_what_our_call_of_the_pipeline_lets_it():
    import inspect

    import diffusers

    for family in FAMILIES.values():
        if family.lengths:
            encode = getattr(diffusers, family.pipeline).encode_prompt
            length = inspect.signature(encode).parameters["max_sequence_length"].default
            assert family.lengths == {"tokenizer_3": length}


def test_counting_imports_neither_transformers_nor_torch():
    code = (
        "import sys, realkit.models.encoders as e; from realkit.models.lock import lock_model;"
        "from realkit.scorers.score import cut_tokens;"
        "print(e.cut(lock_model('rehearsal/xl'), 'red ' * 90), cut_tokens('clip', 'red ' * 90));"
        "assert not {'torch', 'transformers', 'open_clip'} & set(sys.modules)"
    )
    began = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "{'cut': 15, 'of': 92, 'by': 2, 'encoders': 2} 15\n"
    assert time.perf_counter() - began < 10


def test_a_model_with_t5_says_how_many_encoders_cut(tmp_path):
    """CLIP's two see 77 tokens, T5 256."""
    model = load(str(miniatures.miniature("sd3", tmp_path / "sd3", t5=True)), device="cpu")
    sampler, size = (
        {"sampler": "Flow Euler", "steps": 1, "guidance": 2.0},
        {"width": 64, "height": 64},
    )
    request = Request(model.name, prompt="a " * 100, negative="a", seed=0, **sampler, **size)
    cut = model.denoise([request]).cut_tokens
    assert cut == [{"prompt": {"cut": 25, "of": 102, "by": 2, "encoders": 3}}]
    assert encoders.cut(model.locked, "a " * 100) == cut[0]["prompt"] | {"encoders": 2}
