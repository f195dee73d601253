"""A judge: a vision-language model of transformers that answers a question about the picture by yes
or no. A source is a hub id or a folder of an image-text-to-text model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError, one_line
from realkit.scorers import references
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS: Mapping[str, Kind] = {SOURCE: "folder"}
PROMPT = "{prompt}"  # where a question names the picture's prompt


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry that asks nothing, or says wrongly whether it reads the
    prompt."""
    references.check(name, entry, WEIGHTS)
    if not entry.question:
        raise RequestError(f"Scorer {name!r} asks nothing: expected `question`, for yes or no")
    if (PROMPT in entry.question) != entry.prompted:
        raise RequestError(
            f"Scorer {name!r}: expected `prompted = true` and {PROMPT} in its question, or neither"
        )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The probability of yes in percent: a softmax over the next token's logits, of the tokens that
    mean yes and no (VQAScore's form, arXiv 2404.01291). Raises RequestError where the weights
    cannot be loaded."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = references.pretrained(name, AutoModelForImageTextToText, locks[SOURCE])
    folder = references.fetch(name, locks[SOURCE])
    try:
        processor = AutoProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
        asked = chat(processor, entry.question)
    except Exception as error:  # a config or a template may be wrong in many ways
        raise RequestError(
            f"Scorer {name!r} has no valid processor ({entry.source}): {one_line(error, 200)}"
        ) from error
    yes, no = (answers(processor.tokenizer, word) for word in ("yes", "no"))
    if not yes or not no or set(yes) & set(no):
        raise RequestError(
            f"Scorer {name!r}: the tokenizer of {entry.source!r} has no token of its own for yes"
            " and no: take another model"
        )

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        texts = [asked.replace(PROMPT, prompt) for prompt in prompts]
        pictures = [[image] for image in images]
        # Padded on the right, where a token that reads only what is before it does not look.
        inputs = processor(
            text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="right",
            **entry.options,
        ).to(network.device)  # fmt: skip
        last = inputs["attention_mask"].sum(-1) - 1
        with torch.inference_mode():
            logits = network(**inputs).logits
        ahead = logits[torch.arange(len(last)), last][:, [*yes, *no]]
        return (100 * ahead.softmax(-1)[:, : len(yes)].sum(-1)).tolist()

    return rate


def chat(processor: Any, question: str) -> str:
    """A question about a picture in the words of a model's template, up to its answer."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)  # type: ignore[no-any-return]


def answers(tokenizer: Any, word: str) -> list[int]:
    """The tokens that say a word: small or with a capital, after a space or not."""
    ids = set()
    for written in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
        encoded = tokenizer.encode(written, add_special_tokens=False)
        if len(encoded) == 1:
            ids.add(encoded[0])
    return sorted(ids - {tokenizer.unk_token_id})
