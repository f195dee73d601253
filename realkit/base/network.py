"""Whether the Hugging Face hub answers, told within seconds."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from realkit.base.errors import one_line
from realkit.base.place import within

HUB_S = 3.0


def no_answer(endpoint: str) -> str:
    """Why the hub at this address does not answer, "" where it does. Takes HUB_S + 1 seconds at
    most. An HTTP status that a proxy or a broken hub sends reads "HTTP 503"."""

    def ask() -> str:
        request = Request(endpoint, method="HEAD", headers={"User-Agent": "realkit"})
        try:
            urlopen(request, timeout=HUB_S).close()
        except HTTPError as error:
            return f"HTTP {error.code}" if error.code in (403, 407) or error.code >= 500 else ""
        except Exception as error:
            return one_line(getattr(error, "reason", error), 200) or type(error).__name__
        return ""

    reason = within(HUB_S + 1, ask)  # the name look-up has no timeout of its own
    return f"no answer within {HUB_S:.0f} seconds" if reason is None else reason


def hub_away() -> str:
    """Why nothing can be fetched from the hub now, "" where it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reason = no_answer(constants.ENDPOINT)
    return reason and f"no connection to the hub ({reason})"
