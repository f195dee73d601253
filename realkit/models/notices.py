"""What of their texts models will not read, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from realkit.base.errors import shown
from realkit.models import encoders, prompts
from realkit.models.lock import ModelLock
from realkit.models.request import Request

Text = tuple[str, bool]  # a prompt or negative, and whether it is a negative
Texts = dict[str, dict[Text, None]]  # of each model


def texts(requests: Iterable[Request]) -> Texts:
    """The texts of requests; a negative without effect is left out."""
    by_model: Texts = {}
    for request in requests:
        own = by_model.setdefault(request.model, {})
        own[request.prompt, False] = None
        if request.guidance > 1 and request.negative:
            own[request.negative, True] = None
    return by_model


def unread(by_model: Texts, models: Mapping[str, ModelLock]) -> list[str]:
    """A line for each way in which texts are not read, with their number and the first as example:
    forms taken as plain words, tokens cut by models. Of a model without a lock only the forms."""
    return [*_forms(distinct(by_model)), *_cut(by_model, models)]


def distinct(by_model: Texts) -> list[Text]:
    """Every text once, prompts first: they are the examples."""
    merged: dict[Text, None] = {}
    for own in by_model.values():
        merged |= own
    return sorted(merged, key=lambda text: text[1])


def counted(count: int) -> str:
    """The beginning of a line about so many prompts."""
    return f"unread: {count:,} prompt{'s' if count > 1 else ''}"


def _forms(every: Iterable[Text]) -> list[str]:
    found = [(text, prompts.forms(text, negative)) for text, negative in every]
    found = [(text, forms) for text, forms in found if forms]
    if not found:
        return []
    text, forms = found[0]
    return [
        f"{counted(len(found))} with forms of the web interfaces, taken as plain words here:"
        f" {prompts.written(forms)} in {shown(text)}"
    ]


def _cut(by_model: Texts, models: Mapping[str, ModelLock]) -> list[str]:
    longer: dict[str, str] = {}  # what is cut, of each text
    for model, own in by_model.items():
        readers = encoders.encoders(models[model]) if model in models else []
        for text, _ in own:
            if cut := prompts.worst(reader.tokens(text) for reader in readers):
                longer.setdefault(text, f"{prompts.written_cut(cut)} for {model} in {shown(text)}")
    if not longer:
        return []
    return [f"{counted(len(longer))} longer than a model reads: {next(iter(longer.values()))}"]
