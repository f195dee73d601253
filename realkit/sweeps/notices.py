"""What of a sweep's prompts models and scorers will not read, said once a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from realkit.base.errors import shown
from realkit.models import notices
from realkit.models.lock import ModelLock
from realkit.models.request import Request
from realkit.scorers.references import Locks
from realkit.scorers.score import cut_tokens


def unread(
    requests: Iterable[Request], models: Mapping[str, ModelLock], scorers: Mapping[str, Locks]
) -> list[str]:
    """A line for each way in which texts are not read, with their number and the first as example:
    forms taken as plain words, tokens cut by models, tokens cut by scorers."""
    texts = notices.texts(requests)
    return [*notices.unread(texts, models), *_unscored(notices.distinct(texts), scorers)]


def _unscored(texts: Iterable[notices.Text], scorers: Mapping[str, Locks]) -> list[str]:
    longer: dict[str, str] = {}
    for name, locks in scorers.items():
        for text, negative in texts:
            if not negative and (cut := cut_tokens(name, text, locks)):
                longer.setdefault(text, f"{cut} tokens cut for {name} in {shown(text)}")
    if not longer:
        return []
    first = next(iter(longer.values()))
    return [f"{notices.counted(len(longer))} longer than a scorer reads: {first}"]
