"""The one retry policy: how often a request is repeated, and how long to wait before it.

urllib3 applies it to what we request ourselves (`session`); `another_try` applies the same numbers
to an interrupted transfer and to calls of huggingface_hub. urllib3 takes a tenth of a second to
import, so this file is imported where a request is made.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util.retry import Retry

TRIES = 6  # requests in all; without Retry-After they wait 0, 1, 2, 4 and 8 seconds
LONGEST_WAIT_S = 120  # a server may ask for hours: then the person is told instead
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})  # HTTP statuses that may pass


class Policy(Retry):
    """urllib3's policy with the wait of Retry-After limited, and an unreadable one ignored."""

    def get_retry_after(self, response: Any) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None
        return None if seconds is None else min(seconds, LONGEST_WAIT_S)


POLICY = Policy(
    total=TRIES - 1, backoff_factor=0.5, status_forcelist=TEMPORARY, raise_on_status=False
)


@cache
def session() -> requests.Session:
    """The session of all our own requests. A refused connection is retried like a status."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=POLICY))
    return session


def another_try(policy: Policy, error: Exception, response: Any = None) -> Policy | None:
    """Wait as the policy or the response's Retry-After says; the policy for the next failure.

    None, at once, where no try is left.
    """
    try:
        policy = policy.increment("GET", error=error)
    except MaxRetryError:
        return None
    policy.sleep(response)
    return policy
