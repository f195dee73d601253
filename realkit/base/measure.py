"""Time, energy and memory, measured."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base import energy

if TYPE_CHECKING:
    import torch


def forget_peak() -> None:
    """Count the process's peak memory from now on, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def or_else(default: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """A fact about the machine, or the default: a fact that cannot be read is missing, whatever
    the reason."""
    try:
        return ask(*arguments)
    except Exception:
        return default


def ram_free() -> float | None:
    """GiB that this process may still take: of the machine, or of its control group where that
    allows less."""
    free = or_else(None, _meminfo)
    if free is None:
        import psutil  # for systems without /proc; accelerate requires it

        free = psutil.virtual_memory().available
    return round(min([free, *or_else([], _group_free)]) / 2**30, 2)


def _meminfo() -> int | None:
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) * 1024 if match else None


def _group_free(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Bytes that each memory limit above this process leaves it, by control groups of version 2
    and 1."""
    free: list[int] = []
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inner = top / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                with suppress(OSError, ValueError):  # no such file here, or no limit: "max"
                    free.append(_left(folder, limit, usage))
    return free


def _left(folder: Path, limit: str, usage: str) -> int:
    """Limit less usage. The file cache does not count as usage: it makes room when asked."""
    left = int((folder / limit).read_text()) - int((folder / usage).read_text())
    stat = folder / "memory.stat"
    if not stat.is_file():
        return left
    # Version 1 has the value twice, the second time with all groups below: the larger one.
    values = re.findall(r"^(?:total_)?inactive_file (\d+)", stat.read_text(), re.M)
    return left + max(map(int, values), default=0)


class Stopwatch:
    """Wall-clock seconds of a block, the device synchronised at both ends.

    On CUDA it also restarts the count of peak memory, which `memory` reads, and measures the energy
    that the card used: `joules`, None where base.energy cannot tell.
    """

    seconds = 0.0
    joules: float | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Stopwatch:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._energy = energy.millijoules(self._device)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        self.seconds = time.perf_counter() - self._began
        if self._energy is not None:
            after = energy.millijoules(self._device)
            self.joules = energy.joules(self._energy, after, self.seconds)


def energy_of(stage: str, watch: Stopwatch) -> dict[str, float]:
    """The field of a row for the joules of a stage; none where they are not known."""
    return {} if watch.joules is None else {f"{stage}_j": watch.joules}


def memory(device: torch.device) -> dict[str, float | None]:
    """Peak memory in GiB: of the GPU since the last stopwatch started (None on a CPU), of this
    process since its start (None on Windows)."""
    peaks: dict[str, float | None] = {"peak_vram_gib": None, "peak_vram_reserved_gib": None}
    if device.type == "cuda":
        import torch

        allocated = torch.cuda.max_memory_allocated(device)
        peaks["peak_vram_gib"] = round(allocated / 2**30, 4)
        reserved = torch.cuda.max_memory_reserved(device)
        peaks["peak_vram_reserved_gib"] = round(reserved / 2**30, 4)
    return peaks | {"peak_ram_gib": _peak_ram()}


def _peak_ram() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3)
