"""What is recorded of a machine: package versions, GPU, driver, git revision; and the versions that
a folder cannot mix."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError

if TYPE_CHECKING:
    import torch

THAT_MATTER = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "spandrel",
    "numpy",
)  # versions that can change a result


def environment(device: torch.device) -> dict[str, Any]:
    """What a run records of its machine: device, driver, versions and the code's revision."""
    import torch

    facts: dict[str, Any] = {
        "device": device.type,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    facts["versions"] = {name: _version(name) for name in THAT_MATTER}
    facts["revision"] = _revision()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "vram_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    else:
        facts["cpu"] = _cpu()
    return facts


def same_versions(before: Mapping[str, Any], now: Mapping[str, Any], whose: str) -> None:
    """Raise RequestError, beginning with `whose`, where results would come from library versions
    that may draw differently."""
    if changed := [
        f"{name} {then} → {now.get(name)}" for name, then in before.items() if then != now.get(name)
    ]:
        raise RequestError(
            f"{whose} other versions ({', '.join(changed)}): install those, or use a new folder"
        )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The code's git revision, where it is a checkout."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists() or which("git") is None:
        return None
    found = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or None


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")),
                platform.machine(),
            )
    except OSError:
        return platform.processor() or platform.machine()
