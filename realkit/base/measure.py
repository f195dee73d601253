"""Timing, memory and the facts about the machine that a number must not be read without."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def forget_peak() -> None:
    """Let the process's peak memory count from now, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def or_else(otherwise: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except Exception:  # a fact that cannot be found is one that is missing, whatever the reason
        return otherwise


def ram_free() -> float | None:
    """GiB of memory that this process may still take: of the machine, or of its control group where
    that allows less."""
    free = or_else(None, _meminfo)
    if free is None:
        import psutil  # what accelerate brings along, for systems without /proc

        free = psutil.virtual_memory().available
    return round(min([free, *or_else([], _group_free)]) / 2**30, 2)


def _meminfo() -> int | None:
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else None


def _group_free(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Bytes that each memory limit above this process leaves it, for control groups of version 2
    and 1."""
    free: list[int] = []
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inner = top / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                free += or_else([], _left, folder, limit, used)
    return free


def _left(folder: Path, limit: str, used: str) -> list[int]:
    """Limit less use; the file cache, which makes room when asked, is not counted as use. Raises
    ValueError where there is no limit ("max")."""
    stat = (
        folder / "memory.stat"
    )  # version 1 has the value twice, the second time with all groups below
    cache = (
        re.findall(r"^(?:total_)?inactive_file (\d+)", stat.read_text(), re.M)
        if stat.is_file()
        else []
    )
    return [
        int((folder / limit).read_text())
        - int((folder / used).read_text())
        + max(map(int, cache), default=0)
    ]


class Stopwatch:
    """Wall-clock seconds of a block, the device synchronised at both ends; on CUDA also peak
    memory, GiB."""

    seconds = 0.0

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device

    def __enter__(self) -> Stopwatch:
        if self._cuda:
            import torch

            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            import torch

            torch.cuda.synchronize(self._device)
        self.seconds = time.perf_counter() - self._began


def memory(device: torch.device) -> dict[str, float | None]:
    """Peak memory in GiB: of the GPU since the last stopwatch started, of this process since it
    started (None on Windows)."""
    gpu: dict[str, float | None] = {"peak_vram_gib": None, "peak_vram_reserved_gib": None}
    if device.type == "cuda":
        import torch

        gpu = {
            "peak_vram_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 4),
            "peak_vram_reserved_gib": round(torch.cuda.max_memory_reserved(device) / 2**30, 4),
        }
    return gpu | {"peak_ram_gib": _peak_ram()}


def _peak_ram() -> float | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    return round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**30 if sys.platform == "darwin" else 2**20),
        3,
    )
