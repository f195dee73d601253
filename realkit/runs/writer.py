"""The one writer of a run: files what was made, in the order it came, while the next batch is in
work."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from realkit.base import cache
from realkit.base.version import __version__
from realkit.models.identity import ID_VERSION
from realkit.runs.engines.batch import Result, encoded
from realkit.runs.store import Store

if TYPE_CHECKING:
    from realkit.runs.jobs import Made

WAITING = 3  # results that may be in writing: as many pictures are encoded at once
SPARE = 4 * 2**20  # bytes that stay free for rows and tables


class Desk:
    """Takes results; encodes pictures, writes files, then appends their rows, all off the caller's
    path.

    `environments` names the machine of each run, which is noted in runs.jsonl before the first of
    its rows. Raises WriteError, at the next call, when the disk refuses; what was written before
    stands.
    """

    def __init__(self, store: Store, environments: Mapping[str, dict[str, Any]]) -> None:
        self._store, self._environments = store, environments
        self._known = {row["run"] for row in store.runs.read()}
        self._encoders = ThreadPoolExecutor(WAITING, "encoding")
        self._scribe = ThreadPoolExecutor(1, "writing")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.shutdown(cancel_futures=False)
        self._scribe.shutdown(cancel_futures=False)

    def put(self, stage: str, result: Result) -> None:
        """Have a result filed. Waits where too many are in writing."""
        while self._waiting and (len(self._waiting) >= WAITING or self._waiting[0].done()):
            self._waiting.popleft().result()
        encoding = [
            self._encoders.submit(encoded, stage, result.job, made, result.run)
            for made in result.made
        ]
        self._waiting.append(self._scribe.submit(self._file, stage, result, encoding))

    def settle(self) -> None:
        """Wait until all is written."""
        while self._waiting:
            self._waiting.popleft().result()

    def room(self, needed: int) -> str:
        """Why nothing more should be begun that leaves `needed` bytes; "": it fits."""
        free = cache.free_bytes(self._store.folder)
        if free >= needed + SPARE:
            return ""
        return (
            f"the disk is nearly full ({free / 2**20:.0f} MiB free, the next needs"
            f" {(needed + SPARE) / 2**20:.0f}): make room"
        )

    def _file(self, stage: str, result: Result, encoding: list[Future[Made]]) -> None:
        at = round(time.time(), 3)
        rows = []
        for coming in encoding:
            whole = coming.result()
            if isinstance(whole.file, bytes):
                self._store.put(self._store.path(stage, str(whole.row["id"])), whole.file)
            rows.append({"stage": stage, "run": result.run, "at": at, **whole.row})
        if rows and result.run not in self._known:
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self._store.runs.append(
                [
                    {
                        "run": result.run,
                        "started": started,
                        "id_version": ID_VERSION,
                        "realkit": __version__,
                        **self._environments[result.run],
                    }
                ]
            )
            self._known.add(result.run)
        self._store.rows.append(rows)
