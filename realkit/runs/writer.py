"""The one writer of a run: it files results in the order they come, while the next batch is in
work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from realkit.base import cache
from realkit.runs.engines.engine import Result, encoded
from realkit.runs.environment import run_record
from realkit.runs.jobs import Output
from realkit.runs.store import Row, Store

WAITING = 3  # results that may be in the threads' hands, and pictures encoded at once
SPARE = 4 * 2**20  # bytes that stay free for rows and tables


class Desk:
    """Takes results. Its threads encode pictures, write files, then append the rows.

    `environments` holds the machine of each run; it goes into runs.jsonl before the first row of
    that run. When the disk refuses, the next call raises WriteError; what was written stays.
    """

    def __init__(self, store: Store, environments: Mapping[str, dict[str, Any]]) -> None:
        self._store, self._environments = store, environments
        self._runs = {row["run"] for row in store.machines()}
        self._encoders = ThreadPoolExecutor(WAITING, "encoding")
        self._scribe = ThreadPoolExecutor(1, "writing")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.shutdown(cancel_futures=False)
        self._scribe.shutdown(cancel_futures=False)

    def put(self, stage: str, result: Result) -> None:
        """File a result, after waiting where too many are being filed."""
        while self._waiting and (len(self._waiting) >= WAITING or self._waiting[0].done()):
            self._waiting.popleft().result()
        encoding = []
        for output in result.outputs:
            encoding.append(self._encoders.submit(encoded, stage, result.job, output, result.run))
        self._waiting.append(self._scribe.submit(self._file, stage, result, encoding))

    def append(self, rows: list[Row]) -> None:
        """Append rows that leave no file."""
        self._waiting.append(self._scribe.submit(self._store.rows.append, rows))

    def settle(self) -> None:
        """Wait until all is written."""
        while self._waiting:
            self._waiting.popleft().result()

    def room(self, needed: int) -> str:
        """Why no batch may start that writes `needed` bytes; "": there is room."""
        free = cache.free_bytes(self._store.folder)
        if free >= needed + SPARE:
            return ""
        return (
            f"the disk is nearly full ({cache.readable(free)} free, the next needs"
            f" {cache.readable(needed + SPARE)}): make room"
        )

    def _file(self, stage: str, result: Result, encoding: list[Future[Output]]) -> None:
        at = round(time.time(), 3)
        rows = []
        for future in encoding:
            output = future.result()
            if isinstance(output.file, bytes):
                self._store.put(self._store.path(stage, str(output.row["id"])), output.file)
            rows.append({"stage": stage, "run": result.run, "at": at, **output.row})
        if rows and result.run not in self._runs:
            self._store.runs.append([run_record(result.run, self._environments[result.run])])
            self._runs.add(result.run)
        self._store.rows.append(rows)
