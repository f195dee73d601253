"""Timing, memory and the facts about the machine that a number must not be read without."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from realkit.errors import RequestError

if TYPE_CHECKING:
    import torch

THAT_MATTER = ("torch", "diffusers", "transformers", "open_clip_torch", "spandrel", "numpy")  # versions that can change a result


class Stopwatch:
    """Wall-clock seconds of a block, the device synchronised at both ends; on CUDA also peak memory, GiB."""

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
    """Peak memory in GiB: of the GPU since the last stopwatch started, of this process since it started (None on Windows)."""
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
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20), 3)


def environment(device: torch.device) -> dict[str, Any]:
    """What a run records of its machine: device, driver, versions and the code's revision."""
    import torch

    facts: dict[str, Any] = {"device": device.type, "python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    facts["versions"] = {name: _version(name) for name in THAT_MATTER}
    facts["revision"] = _revision()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "vram_gib": round(properties.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    else:
        facts["cpu"] = _cpu()
    return facts


def same_versions(before: Mapping[str, Any], now: Mapping[str, Any], whose: str) -> None:
    """Raise RequestError, beginning with `whose`, where results would come from library versions that may draw differently."""
    if changed := [f"{name} {then} → {now.get(name)}" for name, then in before.items() if then != now.get(name)]:
        raise RequestError(f"{whose} other versions ({', '.join(changed)}): install those, or use a new folder")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The code's git revision, where it is a checkout."""
    here = Path(__file__).parent.parent
    if not (here / ".git").exists() or which("git") is None:
        return None
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or None


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
