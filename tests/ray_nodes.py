"""Ray clusters on this machine, started by Ray's own command: each node a process tree of its own,
in its own folder and with its own cache."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ACCESS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}  # of nodes and drivers, before they import ray


class Nodes:
    """`address` for drivers; `start` adds a node, `kill` ends one with all its processes at
    once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._processes = folder, []
        self.address = f"127.0.0.1:{random.randint(20_000, 30_000)}"

    def start(self, cpus: int = 1, **environment: str) -> int:
        number = len(self._processes)
        home = self._folder / f"node-{number}"
        home.mkdir(parents=True)
        where = (
            [f"--address={self.address}"]
            if number
            else [
                "--head",
                f"--port={self.address.rpartition(':')[2]}",
                "--include-dashboard=false",
            ]
        )
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            *where,
            f"--num-cpus={cpus}",
            "--object-store-memory=150000000",
            "--block",
        ]
        told = os.environ | ACCESS | {"REALKIT_CACHE": str(home / "cache")} | environment
        log = (home / "log.txt").open("w")
        self._processes.append(
            subprocess.Popen(
                command, stdout=log, stderr=log, cwd=home, env=told, start_new_session=True
            )
        )
        end = time.monotonic() + 60
        while "Ray runtime started" not in (said := (home / "log.txt").read_text()):
            assert time.monotonic() < end and self._processes[-1].poll() is None, said
            time.sleep(0.2)
        return number

    def cache(self, number: int) -> Path:
        return self._folder / f"node-{number}" / "cache"

    def workers(self, number: int | None = None) -> list[psutil.Process]:
        """The processes of realkit's workers, of one node or of all."""
        nodes = self._processes if number is None else [self._processes[number]]
        below = [
            process
            for node in nodes
            if node.poll() is None
            for process in psutil.Process(node.pid).children(recursive=True)
        ]
        return [process for process in below if is_worker(process)]

    def kill(self, number: int) -> None:
        node = psutil.Process(self._processes[number].pid)
        for process in [*node.children(recursive=True), node]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._processes[number].wait()

    def stop(self) -> None:
        for number, process in reversed([*enumerate(self._processes)]):
            if process.poll() is None:
                self.kill(number)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process, which may end meanwhile, is a worker of realkit's."""
    try:
        return " ".join(process.cmdline()).startswith("ray::Worker")
    except psutil.Error:
        return False


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    made = Nodes(folder)
    try:
        yield made
    finally:
        made.stop()
