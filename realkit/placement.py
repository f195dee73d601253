"""Where a model runs and in which number format, chosen from facts about the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device() -> torch.device:
    """The GPU if this torch build has kernels for it, else the CPU."""
    import torch

    if torch.cuda.is_available() and has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        return torch.device("cuda")
    return torch.device("cpu")


def has_kernels(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether a torch build's architectures ("sm_75", "sm_90a", …) serve a device of this capability: the same major, no newer minor.

    `torch.cuda.is_available()` says True on a P100 whose kernels the build lacks; the first operation then dies.
    """
    numbers = [arch.removeprefix("sm_").rstrip("af") for arch in built if arch.startswith("sm_")]
    return any(int(number[:-1]) == capability[0] and int(number[-1]) <= capability[1] for number in numbers)


def dtype(on: torch.device) -> torch.dtype:
    """float32 on a CPU, where half precision is many times slower; bfloat16 from capability 8.0 on, else float16."""
    import torch

    if on.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(on)[0] >= 8 else torch.float16


def batch_limit(on: torch.device, pixels: int) -> int:
    """Images a denoising batch may hold: by free GPU memory at 2.5 GiB a 512×512 image, or 8 on a CPU."""
    import torch

    if on.type != "cuda":
        return 8
    free = torch.cuda.mem_get_info(on)[0]
    return max(1, min(16, int(free * 0.5 / (2.5 * 2**30 * pixels / 512**2))))
