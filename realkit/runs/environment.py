"""The facts of a machine that a run records, and the library versions that a folder cannot mix."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.base.libraries import versions
from realkit.base.version import __version__
from realkit.models.identity import ID_VERSION

if TYPE_CHECKING:
    import torch

FORMAT = 2  # of a folder: what was asked, and the hash of every file, are recorded


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver, package versions and the code's git revision."""
    import torch

    facts: dict[str, Any] = {
        "device": device.type,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "revision": _revision(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = round(properties.total_memory / 2**30, 1)
        facts |= {"gpu": properties.name, "vram_gib": memory, "cuda": torch.version.cuda}
    else:
        facts["cpu"] = _cpu()
    return facts


def run_record(run: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record in runs.jsonl: when it began, by which kit, on which machine."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {"run": run, "started": started, "id_version": ID_VERSION, "realkit": __version__}
    return facts | {"format": FORMAT} | dict(environment)


def same_versions(before: Mapping[str, Any], now: Mapping[str, Any], whose: str) -> None:
    """Raise RequestError, beginning with `whose`, where library versions differ that may draw
    differently."""
    if changes := version_changes(before, now):
        raise RequestError(
            f"{whose} other versions ({changes}): install those, or use a new folder"
        )


def version_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The versions that differ, as text; "" where none does."""
    changes = []
    for name, old in before.items():
        if old != now.get(name):
            changes.append(f"{name} {old} → {now.get(name)}")
    return ", ".join(changes)


def _revision() -> str | None:
    """The git revision of the code; None where it is not a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or which("git") is None:
        return None
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _cpu() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
