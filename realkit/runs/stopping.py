"""When a run ends before its work does: its time is up, or the process is told to stop. What is in
work is finished and written first."""

from __future__ import annotations

import datetime
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from realkit.base.errors import RequestError, shown

UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
RESERVE = 0.02  # of a budget, kept for the tables; at least RESERVE_S
RESERVE_S = 5.0
LONGEST_S = 1e9  # thirty years
SAFETY = 1.5  # times the longest batch so far that must still fit


def seconds(budget: object) -> float:
    """A budget as people write it ("8h", "1h30m", "90s", or a number of seconds) in seconds. Raises
    RequestError for anything else."""
    if isinstance(budget, (int, float)) and not isinstance(budget, bool) and 0 < budget < LONGEST_S:
        return float(budget)
    if isinstance(budget, str) and re.fullmatch(
        r"(\d+(\.\d+)?[dhms])+", text := budget.replace(" ", "").lower()
    ):
        total = sum(
            float(number) * UNITS[unit]
            for number, _, unit in re.findall(r"(\d+(\.\d+)?)([dhms])", text)
        )
        if 0 < total < LONGEST_S:
            return total
    raise RequestError(
        f"budget {shown(budget)}: expected a time such as '8h', '1h30m' or '90s', or a number of"
        " seconds"
    )


def moment(until: object) -> float:
    """The time at which to be done, ISO 8601 (local where no zone is named) or a datetime, in
    seconds since 1970. Raises RequestError for another or one that is past."""
    try:
        at = (
            until
            if isinstance(until, datetime.datetime)
            else datetime.datetime.fromisoformat(str(until))
        )
        at.timestamp()
    except (ValueError, OverflowError):
        raise RequestError(
            f"until {shown(until)}: expected a time such as '2026-11-21T18:00', or with a zone"
            " '2026-11-21T18:00+01:00'"
        ) from None
    if at.timestamp() <= time.time():
        raise RequestError(
            f"until {shown(until)}: expected a time to come, it is"
            f" {datetime.datetime.now().astimezone():%Y-%m-%dT%H:%M%z} now"
        )
    return at.timestamp()


class Stop:
    """Asked before each batch, whether it may still begin."""

    def __init__(self, budget: object = None, until: object = None) -> None:
        limits = [seconds(budget)] if budget is not None else []
        if until is not None:
            limits.append(moment(until) - time.time())
        self._began = time.monotonic()  # which no change of the clock moves
        self._limit = min(limits) - max(RESERVE_S, RESERVE * min(limits)) if limits else None
        self.reason = ""

    def due(self, longest: float) -> bool:
        """Whether to stop now, where a batch has taken up to `longest` seconds so far; `reason`
        then says why."""
        if not self.reason and self._limit is not None:
            left = self._limit - (time.monotonic() - self._began)
            if left <= SAFETY * longest:
                self.reason = (
                    f"its time is up ({max(0.0, left):.0f} s are left, a batch took up to"
                    f" {longest:.0f} s)"
                )
        return bool(self.reason)

    def because(self, reason: str) -> None:
        """Stop before the next batch; the first reason stands."""
        self.reason = self.reason or reason

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it SIGTERM and Ctrl-C are requests to stop after the batch in work; a second
        Ctrl-C stops at once. Only the main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def told(number: int, _: Any) -> None:
            if self.reason and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.reason = f"{signal.Signals(number).name} asked for it"

        before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
