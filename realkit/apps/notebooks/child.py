"""One notebook in a process of its own: `python -m realkit.apps.notebooks.child JOB.json`. The exit
code is its outcome, a last line `realkit: …` the reason.

The owner holds the other end of this process's standard input. A byte there asks it to stop: the
running cell is interrupted, and no further cell begins. Where the input ends, the owner is gone or
wants this process gone: the kernel is killed at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Exit codes: done; a cell raised; the kernel died; asked to stop.
OK, ERROR, DEAD, STOPPED = 0, 3, 4, 5
REASON = "realkit: "  # begins the line that says why
PATIENCE = 5.0  # seconds for a cell to end by Ctrl-C
EVERY = 2.0  # seconds between the SIGTERMs after that


class Stopped(Exception):
    """No further cell begins."""


def main() -> int:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    pid, stop = Path(job["kernel"]), threading.Event()
    threading.Thread(target=_listen, args=(pid, stop), daemon=True).start()
    code, reason = _execute(job, pid, stop)
    pid.unlink(missing_ok=True)  # the kernel was shut down: its number may be another's soon
    if stop.is_set():  # a cell may have ended early, whatever its notebook says
        code, reason = STOPPED, "asked to stop"
    if reason:
        print(f"\n{REASON}{' '.join(reason.split())}", flush=True)
    return code


def _execute(job: dict[str, Any], pid: Path, stop: threading.Event) -> tuple[int, str]:
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets import default
    from traitlets.config import Config

    class Kernel(AsyncKernelManager):
        """The kernel of this interpreter, whatever kernelspecs are named python3; its process
        number is written to a file."""

        @default("kernel_spec_manager")
        def _own(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])  # then it is made from sys.executable

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**options)
            pid.write_text(str(self.provisioner.pid))  # type: ignore[union-attr]

    def begin(**_: Any) -> None:
        if stop.is_set():
            raise Stopped

    def escaped(path: str) -> str:  # papermill formats paths: {name} would be a parameter
        return path.replace("{", "{{").replace("}", "}}")

    try:
        papermill.execute_notebook(
            escaped(job["notebook"]),
            escaped(job["executed"]),
            parameters=job["parameters"],
            kernel_name="python3",
            language="python",
            kernel_manager_class=Kernel,
            on_cell_execute=begin,
            cwd=str(Path(job["notebook"]).parent),
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            progress_bar=False,
            start_timeout=300,
            config=Config({"KernelManager": {"transport": "ipc" if os.name == "posix" else "tcp"}}),
        )
    except Stopped:
        return STOPPED, "asked to stop"
    except PapermillExecutionError as error:
        return ERROR, f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return DEAD, "its kernel died, as a kernel does that is killed when memory runs out"
    except RuntimeError as error:  # jupyter's, of a kernel that did not start
        return DEAD, str(error)
    return OK, ""


def _listen(pid: Path, stop: threading.Event) -> None:
    while os.read(0, 1):
        if not stop.is_set():
            stop.set()
            threading.Thread(target=_press, args=(pid,), daemon=True).start()
    kill(pid)
    os._exit(STOPPED)


def _press(pid: Path) -> None:
    """Interrupt the running cell as Ctrl-C does; then, where it continues with other work, send
    SIGTERM. A run of ours takes that for the same request; other code ends by it."""
    _signal(pid, signal.SIGINT)
    time.sleep(PATIENCE)
    while True:
        _signal(pid, signal.SIGTERM)
        time.sleep(EVERY)


def _signal(pid: Path, number: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has not started, or has ended
        os.kill(int(pid.read_text()), number)


def kill(pid: Path) -> None:
    """Kill the kernel whose process number is in this file, if any, and what it started."""
    with contextlib.suppress(OSError, ValueError):
        number = int(pid.read_text())
        if hasattr(os, "killpg"):
            os.killpg(number, signal.SIGKILL)
        else:
            os.kill(number, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
