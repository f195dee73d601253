"""GPUs of other makers than NVIDIA, as the system sees them, whether torch uses them or not."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

DEVICES = Path("/sys/bus/pci/devices")  # https://docs.kernel.org/PCI/sysfs-pci.html
MAKERS = {"0x1002": "AMD", "0x8086": "Intel"}  # PCI's vendor ids
DISPLAY = "0x03"  # begins PCI's class of display controllers


def seen(devices: Path = DEVICES) -> tuple[str, ...]:
    """The makers of GPUs that are here, each once: "AMD", "Intel", "Apple"."""
    if platform.system() == "Darwin":
        return ("Apple",) if platform.machine() == "arm64" else ()
    makers: dict[str, None] = {}
    for device in sorted(devices.glob("*")):
        with suppress(OSError):
            kind = (device / "class").read_text(encoding="ascii")
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
            if kind.startswith(DISPLAY) and vendor in MAKERS:
                makers[MAKERS[vendor]] = None
    return tuple(makers)
