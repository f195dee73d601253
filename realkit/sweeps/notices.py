"""What of a sweep's prompts models and scorers will not read, said once a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from realkit.base.errors import shown
from realkit.models import encoders, prompts
from realkit.models.lock import ModelLock
from realkit.models.request import Request
from realkit.scorers.score import cut_tokens

Text = tuple[str, bool]  # a prompt or negative, and whether it is a negative


def unread(
    requests: Iterable[Request], models: Mapping[str, ModelLock], scorers: Sequence[str] = ()
) -> list[str]:
    """A line for each way in which texts are not read, with their number and the first as example:
    forms taken as plain words, tokens cut by models, tokens cut by scorers."""
    by_model: dict[str, dict[Text, None]] = {}
    for request in requests:
        texts = by_model.setdefault(request.model, {})
        texts[request.prompt, False] = None
        if request.guidance > 1 and request.negative:
            texts[request.negative, True] = None
    merged: dict[Text, None] = {}
    for texts in by_model.values():
        merged |= texts
    every = sorted(merged, key=lambda text: text[1])  # prompts first: they are the examples
    return [*_forms(every), *_cut(by_model, models), *_unscored(every, scorers)]


def _forms(texts: Iterable[Text]) -> list[str]:
    found = [(text, prompts.forms(text, negative)) for text, negative in texts]
    found = [(text, forms) for text, forms in found if forms]
    if not found:
        return []
    text, forms = found[0]
    return [
        f"{_counted(len(found))} with forms of the web interfaces, taken as plain words here:"
        f" {prompts.written(forms)} in {shown(text)}"
    ]


def _cut(by_model: Mapping[str, Iterable[Text]], models: Mapping[str, ModelLock]) -> list[str]:
    longer: dict[str, str] = {}  # what is cut, of each text
    for model, texts in by_model.items():
        readers = encoders.encoders(models[model])
        for text, _ in texts:
            if cut := prompts.worst(reader.tokens(text) for reader in readers):
                longer.setdefault(text, f"{prompts.written_cut(cut)} for {model} in {shown(text)}")
    if not longer:
        return []
    return [f"{_counted(len(longer))} longer than a model reads: {next(iter(longer.values()))}"]


def _unscored(texts: Iterable[Text], scorers: Sequence[str]) -> list[str]:
    longer: dict[str, str] = {}
    for name in scorers:
        for text, negative in texts:
            if not negative and (cut := cut_tokens(name, text)):
                longer.setdefault(text, f"{cut} tokens cut for {name} in {shown(text)}")
    if not longer:
        return []
    first = next(iter(longer.values()))
    return [f"{_counted(len(longer))} longer than a scorer reads: {first}"]


def _counted(count: int) -> str:
    return f"unread: {count:,} prompt{'s' if count > 1 else ''}"
