"""One notebook in a process of its own: `python -m realkit.apps.notebooks.child JOB.json`. The exit
code says what became of it, a last line `realkit: …` why.

Whoever starts it holds the other end of its standard input. A byte there asks it to stop: the cell
in work is interrupted and none begun. Where the input ends, its owner is gone or wants it gone: the
kernel is killed at once.
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

OK, ERROR, DEAD, STOPPED = (
    0,
    3,
    4,
    5,
)  # exit codes: done; a cell raised; the kernel died; asked to stop
SAID = "realkit: "  # begins the line that says why
PATIENCE = 5.0  # seconds for what a cell does about Ctrl-C
EVERY = 2.0  # seconds between the requests after that


class Stopped(Exception):
    """No further cell is begun."""


def main() -> int:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    pid, asked = Path(job["kernel"]), threading.Event()
    threading.Thread(target=_listen, args=(pid, asked), daemon=True).start()
    code, why = _execute(job, pid, asked)
    pid.unlink(missing_ok=True)  # the kernel was shut down: its number may be another's soon
    if asked.is_set() and code != OK:
        code, why = STOPPED, "asked to stop"
    if why:
        print(f"\n{SAID}{' '.join(why.split())}", flush=True)
    return code


def _execute(job: dict[str, Any], pid: Path, asked: threading.Event) -> tuple[int, str]:
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets import default
    from traitlets.config import Config

    class Kernel(AsyncKernelManager):
        """The kernel of this very interpreter, whatever kernelspecs named python3 lie about; its
        number is left in a file."""

        @default("kernel_spec_manager")
        def _own(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])  # then it is made from sys.executable

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**options)
            pid.write_text(str(self.provisioner.pid))  # type: ignore[union-attr]

    def begin(**_: Any) -> None:
        if asked.is_set():
            raise Stopped

    notebook, made = (
        job[name].replace("{", "{{").replace("}", "}}") for name in ("notebook", "made")
    )  # papermill fills braces in
    try:
        papermill.execute_notebook(
            notebook,
            made,
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
        return DEAD, "its kernel died, as one does that is killed for want of memory"
    except RuntimeError as error:  # what jupyter says of a kernel that never came to life
        return DEAD, str(error)
    return OK, ""


def _listen(pid: Path, asked: threading.Event) -> None:
    while os.read(0, 1):
        if not asked.is_set():
            asked.set()
            threading.Thread(target=_press, args=(pid,), daemon=True).start()
    kill(pid)
    os._exit(STOPPED)


def _press(pid: Path) -> None:
    """Ask the cell in work to end, as Ctrl-C does; then, should it go on to something else, by
    SIGTERM: a run of ours takes it for the same request, and what knows no such request ends by
    it."""
    _signal(pid, signal.SIGINT)
    time.sleep(PATIENCE)
    while True:
        _signal(pid, signal.SIGTERM)
        time.sleep(EVERY)


def _signal(pid: Path, number: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # not begun yet, or ended
        os.kill(int(pid.read_text()), number)


def kill(pid: Path) -> None:
    """End a kernel whose number lies in this file, and what it has started, at once; nothing where
    there is none."""
    with contextlib.suppress(OSError, ValueError):
        number = int(pid.read_text())
        if hasattr(os, "killpg"):
            os.killpg(number, signal.SIGKILL)
        else:
            os.kill(number, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
