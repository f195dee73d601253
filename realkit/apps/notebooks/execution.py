"""The execution of one entry in a child process: watched, stopped in time, and tried once more if
the process or its kernel dies."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from realkit.apps.notebooks.child import DEAD, ERROR, OK, REASON, STOPPED, kill
from realkit.apps.notebooks.entries import LOG, MADE, OUT, Entry
from realkit.apps.notebooks.outcome import asked_before, judged
from realkit.base import credentials
from realkit.runs.stopping import Stop

TICK = 0.2  # seconds between two looks at a child
QUIET = 4.0  # seconds that a child's current work is taken to last, until rows tell
LAST = 10.0  # seconds for a child to end itself
ATTEMPTS = 2
LOG_TAIL = 65_536  # bytes


def execute(entry: Entry, folder: Path, stop: Stop, end: Stop) -> dict[str, Any]:
    """Execute an entry; its record. `stop` asks the notebook to stop, `end` kills it."""
    began, attempts, code = time.monotonic(), 0, DEAD
    before = asked_before(entry, folder)
    while attempts < ATTEMPTS and (code == DEAD or _signal_of(code)) and not stop.reason:
        attempts += 1
        code = _attempt(entry, folder, stop, end)
    if code == OK:
        status, reason = judged(folder, before)
    elif code == STOPPED or (stop.reason and code != ERROR):
        status, reason = "stopped", stop.reason
    else:
        status, reason = "failed", _reason_of(code, folder)
        if attempts > 1:
            reason += f" ({attempts} attempts)"
    return {
        "id": entry.id,
        "name": entry.name,
        "folder": entry.folder,
        "status": status,
        "reason": credentials.scrub(reason),
        "seconds": round(time.monotonic() - began, 2),
        "attempts": attempts,
        "code": code,
        "at": round(time.time(), 3),
        "notebook": entry.notebook.name,
        "parameters": entry.parameters,
    }


def _attempt(entry: Entry, folder: Path, stop: Stop, end: Stop) -> int:
    """Execute an entry's notebook once; its process's exit code, STOPPED where `end` killed it.
    Leaves neither process nor kernel behind."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder.resolve()
    with (
        tempfile.TemporaryDirectory(prefix="realkit-", ignore_cleanup_errors=True) as runtime,
        (folder / LOG).open("ab") as log,
    ):
        job_file, kernel = Path(runtime) / "job.json", Path(runtime) / "kernel"
        job = {
            "notebook": str(entry.notebook),
            "executed": str(home / MADE),
            "parameters": {**entry.parameters, OUT: str(home)},
            "kernel": str(kernel),
        }
        job_file.write_text(json.dumps(job))
        now = datetime.datetime.now().astimezone()
        log.write(f"--- {now:%Y-%m-%d %H:%M:%S%z} {entry.name}\n".encode(errors="replace"))
        log.flush()
        environment = {
            "JUPYTER_RUNTIME_DIR": runtime,
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8:backslashreplace",
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "realkit.apps.notebooks.child", str(job_file)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env=os.environ | environment,
        )
        assert child.stdin is not None
        try:
            return _wait(child, child.stdin, folder / "rows.jsonl", stop, end)
        finally:
            child.stdin.close()  # it ends at once, if it has not
            try:
                child.wait(LAST)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            kill(kernel)


def _wait(
    child: subprocess.Popen[bytes], line: IO[bytes], rows: Path, stop: Stop, end: Stop
) -> int:
    """The child's exit code. The child is asked to stop when `stop` is due, in time for the longest
    wait between two batches of rows so far; STOPPED where it still runs when `end` is due."""
    stopping, longest, changed, size = False, 0.0, 0.0, _size(rows)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(TICK)
        now, size_then = time.monotonic(), size
        size = _size(rows)
        if size != size_then:
            longest = max(longest, now - changed if changed else 0.0)
            changed = now
        if not stopping and stop.due(max(longest, QUIET)):
            stopping = True
            with contextlib.suppress(OSError):  # it has ended meanwhile
                line.write(b"s")
        if stopping and end.due(0.0):
            return STOPPED


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _signal_of(code: int) -> str:
    """The signal behind an exit code, also as a shell writes it; "" where there is none."""
    try:
        return signal.Signals(-code if code < 0 else code - 128).name
    except ValueError:
        return ""


def _reason_of(code: int, folder: Path) -> str:
    """Why an execution failed: the child's own last word, or how the child ended."""
    if name := _signal_of(code):
        cause = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{cause}"
    with (folder / LOG).open("rb") as log:
        log.seek(max(0, _size(folder / LOG) - LOG_TAIL))
        text = log.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if code not in (ERROR, DEAD):
        return f"its process ended with exit code {code}: {lines[-1].strip()[:400]}"
    reasons = [line.removeprefix(REASON) for line in lines if line.startswith(REASON)]
    return reasons[-1][:400] if reasons else ""
