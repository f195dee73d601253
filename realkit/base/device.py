"""The device and the number format that this machine runs models in, and what its memory holds."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import warnings
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError

if TYPE_CHECKING:
    import torch


def device_for(asked: str | None) -> torch.device:
    import torch

    found = default_device()
    if asked not in (None, "cpu", "cuda"):
        raise RequestError(f"device {asked!r}: expected 'cuda' or 'cpu'")
    if asked == "cuda" and found.type != "cuda":
        raise RequestError(
            "device 'cuda': this machine has no GPU that this torch build serves. What is wrong,"
            " and the mend: realkit doctor"
        )
    return torch.device(asked) if asked else found


DTYPES = ("float32", "float16", "bfloat16")


def default_device() -> torch.device:
    """The GPU if this torch build has kernels for it, else the CPU; warns of a GPU that goes
    unused."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    if has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        return torch.device("cuda")
    name = torch.cuda.get_device_name()
    warnings.warn(
        f"{name} is not used: this torch build has no kernels for it. The mend: realkit doctor",
        RuntimeWarning,
        stacklevel=2,
    )
    return torch.device("cpu")


def has_kernels(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether a torch build's architectures ("sm_75", "sm_90a", …) serve a device of this
    capability: the same major, no newer minor.

    `torch.cuda.is_available()` says True on a P100 whose kernels the build lacks; the first
    operation then dies.
    """
    numbers = [arch.removeprefix("sm_").rstrip("af") for arch in built if arch.startswith("sm_")]
    return any(
        int(number[:-1]) == capability[0] and int(number[-1]) <= capability[1] for number in numbers
    )


def dtype_for(
    on: torch.device, asked: str | None = None, half_overflows: bool = False
) -> torch.dtype:
    """float32 on a CPU, where half precision is many times slower; bfloat16 from capability 8.0 on;
    else float16, or float32 where that overflows.

    `asked` overrides it, by name; raises RequestError for float16 on a CPU and for a name that is
    none.
    """
    import torch

    if asked is not None:
        if asked not in DTYPES:
            raise RequestError(f"dtype {asked!r}: expected one of {', '.join(DTYPES)}")
        if asked == "float16" and on.type == "cpu":
            raise RequestError(
                "dtype 'float16' on a CPU: it is 10 to 50 times slower there than float32, take"
                " float32 or bfloat16"
            )
        if asked == "float16" and half_overflows:
            raise RequestError(
                "dtype 'float16': this family's values overflow it, take bfloat16 (from capability"
                " 8.0 on) or float32"
            )
        return getattr(torch, asked)  # type: ignore[no-any-return]
    if on.type != "cuda":
        return torch.float32
    if torch.cuda.get_device_capability(on)[0] >= 8:
        return torch.bfloat16
    return torch.float32 if half_overflows else torch.float16


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is memory that could not be had."""
    import torch

    while error is not None:
        said = str(error)
        if (
            isinstance(error, (torch.OutOfMemoryError, MemoryError))
            or "CUBLAS_STATUS_ALLOC_FAILED" in said
            or "can't allocate memory" in said
        ):
            return True
        error = error.__cause__
    return False


def release() -> None:
    """Give back the memory of what is no longer referenced: to Python, to the driver, and to the
    system."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # of another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def batch_limit(on: torch.device, pixels: int) -> int:
    """Images a denoising batch may hold: by free GPU memory at 2.5 GiB a 512×512 image, or 8 on a
    CPU."""
    import torch

    if on.type != "cuda":
        return 8
    free = torch.cuda.mem_get_info(on)[0]
    return max(1, min(16, int(free * 0.5 / (2.5 * 2**30 * pixels / 512**2))))
