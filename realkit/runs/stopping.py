"""Why a run ends before its work does: its time is up, or the process is told to stop. The batch in
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
    """The seconds of a budget: "8h", "1h30m", "90s", or a number of seconds. Raises RequestError
    for anything else."""
    total: float = 0
    if isinstance(budget, str):
        text = budget.replace(" ", "").lower()
        if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
            for number, unit in re.findall(r"([\d.]+)([dhms])", text):
                total += float(number) * UNITS[unit]
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        total = budget
    if 0 < total < LONGEST_S:
        return float(total)
    raise RequestError(
        f"budget {shown(budget)}: expected a time such as '8h', '1h30m' or '90s', or a number of"
        " seconds"
    )


def moment(until: object) -> float:
    """Seconds since 1970 of a time to come: a datetime or ISO 8601, local where it names no zone.
    Raises RequestError for anything else."""
    try:
        named = isinstance(until, datetime.datetime)
        at: Any = until if named else datetime.datetime.fromisoformat(str(until))
        stamp = at.timestamp()
    except (ValueError, OverflowError):
        raise RequestError(
            f"until {shown(until)}: expected a time such as '2026-11-21T18:00', or with a zone"
            " '2026-11-21T18:00+01:00'"
        ) from None
    if stamp <= time.time():
        now = datetime.datetime.now().astimezone()
        raise RequestError(
            f"until {shown(until)}: expected a time to come, it is {now:%Y-%m-%dT%H:%M%z} now"
        )
    return stamp


class Stop:
    """Says before each batch whether it may still start."""

    def __init__(self, budget: object = None, until: object = None) -> None:
        limits = [seconds(budget)] if budget is not None else []
        if until is not None:
            limits.append(moment(until) - time.time())
        self._start = time.monotonic()  # no change of the clock moves it
        self._limit: float | None = None
        if limits:
            self._limit = min(limits) - max(RESERVE_S, RESERVE * min(limits))
        self.reason = ""

    def due(self, longest: float) -> bool:
        """Whether to stop now, where a batch took up to `longest` seconds so far. If so, `reason`
        is set."""
        if not self.reason and self._limit is not None:
            left = self._limit - (time.monotonic() - self._start)
            if left <= SAFETY * longest:
                self.reason = (
                    f"its time is up ({max(0.0, left):.0f} s are left, a batch took up to"
                    f" {longest:.0f} s)"
                )
        return bool(self.reason)

    def because(self, reason: str) -> None:
        """Stop before the next batch, unless `reason` is empty. The first reason stays."""
        self.reason = self.reason or reason

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it SIGTERM and Ctrl-C stop the run after the batch in work; a second Ctrl-C stops
        it at once. Signals reach the main thread alone: elsewhere it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _: Any) -> None:
            if self.reason and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.reason = f"{signal.Signals(number).name} asked for it"

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
