"""The device and number format in which this machine runs models, and the room of its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import warnings
from typing import TYPE_CHECKING

from realkit.base.errors import RequestError, shown
from realkit.base.errors import out_of_memory as out_of_memory
from realkit.base.suggest import instead

if TYPE_CHECKING:
    import torch

USED_GPUS = "an NVIDIA GPU with a CUDA build of torch, or an AMD GPU with a ROCm build"
# AMD's architectures that multiply matrices in bfloat16, by how their names begin: CDNA 2 to 4,
# RDNA 3 and 4 (https://rocm.docs.amd.com/en/latest/reference/precision-support.html)
GFX_BF16 = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
DTYPES = ("float32", "float16", "bfloat16")
# Tests alone set this: half precision on a CPU as on a GPU, where it shows the same wrong formats.
half_on_cpu = False


def device_for(name: str | None) -> torch.device:
    """The device of this name, or the default one for None. Raises RequestError."""
    import torch

    if name not in (None, "cpu", "cuda"):
        raise RequestError(f"device {shown(name)}: expected 'cuda' or 'cpu'")
    default = default_device()
    if name == "cuda" and default.type != "cuda":
        raise RequestError(
            "device 'cuda': this machine has no GPU that this torch build supports. To find out why"
            " and to fix this, run: realkit doctor"
        )
    return torch.device(name) if name else default


def default_device() -> torch.device:
    """The GPU if this torch build has kernels for it, else the CPU; warns of a GPU that goes
    unused."""
    import torch

    if not torch.cuda.is_available():
        if line := _not_used():
            warnings.warn(line, RuntimeWarning, stacklevel=2)
        return torch.device("cpu")
    capability, built, gfx = torch.cuda.get_device_capability(), torch.cuda.get_arch_list(), _gfx()
    if has_kernels(capability, built, gfx):
        return torch.device("cuda")
    needed = gfx or "sm_{}{}".format(*capability)
    warnings.warn(
        f"{torch.cuda.get_device_name()} is not used: this torch build has kernels for"
        f" {', '.join(built) or 'no GPU'}, and it needs {needed}. To fix this, run: realkit doctor",
        RuntimeWarning,
        stacklevel=2,
    )
    return torch.device("cpu")


def _not_used() -> str:
    """A line on a GPU that torch sees and realkit does not use; "" where there is none."""
    import torch

    name = ""
    if torch.backends.mps.is_available():
        name = "Apple's GPU (MPS)"
    elif hasattr(torch, "xpu") and torch.xpu.is_available():
        name = f"{torch.xpu.get_device_name()} (XPU)"
    return name and f"{name} is not used, the CPU is: realkit needs {USED_GPUS}"


def _gfx(on: torch.device | None = None) -> str:
    """The architecture of an AMD GPU on ROCm, such as "gfx90a"; "" on CUDA."""
    import torch

    if not torch.version.hip:
        return ""
    name = getattr(torch.cuda.get_device_properties(on), "gcnArchName", "")
    return str(name).partition(":")[0]  # "gfx90a:sramecc+:xnack-"


def has_kernels(capability: tuple[int, int], built: list[str], gfx: str = "") -> bool:
    """Whether a torch build's architectures ("sm_75", "sm_90a", …) serve a device of this
    capability: the same major, no newer minor. On ROCm they must name the device's own, `gfx`.

    `torch.cuda.is_available()` is True on a P100 whose kernels the build lacks; the first
    operation then fails.
    """
    if gfx:
        return gfx in built
    for arch in built:
        if not arch.startswith("sm_"):
            continue
        number = arch.removeprefix("sm_").rstrip("af")
        major, minor = int(number[:-1]), int(number[-1])
        if major == capability[0] and minor <= capability[1]:
            return True
    return False


def dtype_for(
    on: torch.device, name: str | None = None, half_overflows: bool = False
) -> torch.dtype:
    """The number format of this name, else the fastest one that the device computes well.

    float32 on a CPU, where half precision is many times slower; bfloat16 from capability 8.0 on;
    else float16, or float32 where the family's values overflow float16. Raises RequestError for
    float16 where it is slow or overflows, and for an unknown name.
    """
    import torch

    if name is not None:
        _check_dtype(on, name, half_overflows)
        return getattr(torch, name)  # type: ignore[no-any-return]
    if on.type != "cuda":
        return torch.float32
    gfx = _gfx(on)
    if gfx.startswith(GFX_BF16) if gfx else torch.cuda.get_device_capability(on)[0] >= 8:
        return torch.bfloat16
    return torch.float32 if half_overflows else torch.float16


def _check_dtype(on: torch.device, name: str, half_overflows: bool) -> None:
    if name not in DTYPES:
        raise RequestError(f"dtype {shown(name)}{instead(name, DTYPES)}")
    if name == "float16" and not computes_half(on):
        raise RequestError(
            "dtype 'float16' on a CPU: it is 10 to 50 times slower there than float32, take float32"
            " or bfloat16"
        )
    if name == "float16" and half_overflows:
        raise RequestError(
            "dtype 'float16': this family's values overflow it, take bfloat16 (from capability 8.0"
            " on) or float32"
        )


def computes_half(on: torch.device) -> bool:
    """Whether half precision is of use on a device: on a GPU."""
    return on.type == "cuda" or half_on_cpu


def release() -> None:
    """Give unreferenced memory back: to Python, to the driver, and to the system."""
    if "torch" not in sys.modules:
        return
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def batch_limit(on: torch.device, pixels: int) -> int:
    """Images in a denoising batch: 1 to 16 by half the free GPU memory at 2.5 GiB per 512×512
    image; 8 on a CPU."""
    import torch

    if on.type != "cuda":
        return 8
    free = torch.cuda.mem_get_info(on)[0]
    return max(1, min(16, int(free * 0.5 / (2.5 * 2**30 * pixels / 512**2))))
