"""What NVIDIA's management library (NVML) says of GPUs: the energy that one has used, and which
there are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The counter moves every 20 to 100 ms: at a second, its two readings are off by a tenth at most.
LEAST_S = 1.0


def millijoules(device: torch.device) -> int | None:
    """What the whole card has used since its driver was loaded, in mJ; None without a counter: on a
    CPU, on cards older than Volta, and on a share of a card (MIG)."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
        import torch

        index = torch.cuda.current_device() if device.index is None else device.index
        # CUDA_VISIBLE_DEVICES and CUDA's order of cards change an index, and no UUID.
        handle = _handle(str(torch.cuda.get_device_properties(index).uuid))
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except Exception:  # a measurement that cannot be had is missing, whatever the reason
        return None


def joules(before: int | None, after: int | None, seconds: float) -> float | None:
    """The energy between two readings in mJ; None for less than LEAST_S seconds, and where the
    counter was missing or began anew. Sampled power would be no substitute: it is of the time
    before the sample, and a short batch has too few."""
    if before is None or after is None or after <= before or seconds < LEAST_S:
        return None
    return (after - before) / 1000


@lru_cache(maxsize=64)
def _handle(uuid: str) -> Any:
    """NVML's handle of a card, once a process. Raises pynvml.NVMLError where there is none."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


@lru_cache(maxsize=1)
def first_card() -> str:
    """The name of this machine's first NVIDIA GPU, without torch; "" where NVML sees none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except Exception:  # no driver, no GPU, no nvidia-ml-py
        return ""
    return name if isinstance(name, str) else str(name, "utf-8", "replace")
