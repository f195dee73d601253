"""Where a model runs, in which number format, and on which rung of the memory ladder: chosen from facts about the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any

from realkit.errors import RequestError

if TYPE_CHECKING:
    import torch

# The ladder: what out-of-memory climbs, rung by rung. Each holds less on the device than the one before; each is slower.
RUNGS = {
    "resident": "all parts on the device",
    "vae-tiling": "and the VAE decodes tile by tile",
    "model-offload": "one part at a time on the device, the others in main memory",
    "group-offload": "one layer at a time on the device; on a CPU, the others on disk",
}
LADDERS: dict[str, dict[str, tuple[str, ...]]] = {  # of a stage that loads no VAE, of one that loads nothing else, and of a whole model
    "denoise": {"cuda": ("resident", "model-offload", "group-offload"), "cpu": ("resident", "group-offload")},
    "decode": {"cuda": ("resident", "vae-tiling", "group-offload"), "cpu": ("resident", "vae-tiling", "group-offload")},
    "both": {"cuda": tuple(RUNGS), "cpu": ("resident", "vae-tiling", "group-offload")},
}
WORKING = 2 << 30  # bytes that a batch's activations need beside the weights; where it needs more, the ladder is climbed
DTYPES = ("float32", "float16", "bfloat16")


def device() -> torch.device:
    """The GPU if this torch build has kernels for it, else the CPU; warns of a GPU that goes unused."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    if has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        return torch.device("cuda")
    name = torch.cuda.get_device_name()
    warnings.warn(f"{name} is not used: this torch build has no kernels for it. The mend: realkit doctor", RuntimeWarning, stacklevel=2)
    return torch.device("cpu")


def has_kernels(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether a torch build's architectures ("sm_75", "sm_90a", …) serve a device of this capability: the same major, no newer minor.

    `torch.cuda.is_available()` says True on a P100 whose kernels the build lacks; the first operation then dies.
    """
    numbers = [arch.removeprefix("sm_").rstrip("af") for arch in built if arch.startswith("sm_")]
    return any(int(number[:-1]) == capability[0] and int(number[-1]) <= capability[1] for number in numbers)


def dtype(on: torch.device, asked: str | None = None, half_overflows: bool = False) -> torch.dtype:
    """float32 on a CPU, where half precision is many times slower; bfloat16 from capability 8.0 on; else float16, or float32 where that overflows.

    `asked` overrides it, by name; raises RequestError for float16 on a CPU and for a name that is none.
    """
    import torch

    if asked is not None:
        if asked not in DTYPES:
            raise RequestError(f"dtype {asked!r}: expected one of {', '.join(DTYPES)}")
        if asked == "float16" and on.type == "cpu":
            raise RequestError("dtype 'float16' on a CPU: it is 10 to 50 times slower there than float32, take float32 or bfloat16")
        if asked == "float16" and half_overflows:
            raise RequestError("dtype 'float16': this family's values overflow it, take bfloat16 (from capability 8.0 on) or float32")
        return getattr(torch, asked)  # type: ignore[no-any-return]
    if on.type != "cuda":
        return torch.float32
    if torch.cuda.get_device_capability(on)[0] >= 8:
        return torch.bfloat16
    return torch.float32 if half_overflows else torch.float16


def vae_dtype(config: dict[str, Any], number: torch.dtype) -> torch.dtype:
    """float32 for a VAE whose config says that float16 overflows it (SDXL's own: `force_upcast`), where float16 is what the rest runs in."""
    import torch

    return torch.float32 if number == torch.float16 and config.get("force_upcast") else number


def first_rung(on: torch.device, rungs: tuple[str, ...], parts: list[int]) -> str:
    """The lowest rung whose weights (bytes of each part) fit beside a batch in what is free."""
    if on.type != "cuda":
        return rungs[0]
    import torch

    free = torch.cuda.mem_get_info(on)[0]
    if sum(parts) + WORKING <= free:
        return rungs[0]
    if "model-offload" in rungs and max(parts) + WORKING <= free:
        return "model-offload"
    return rungs[-1]


def nearest(asked: str | None, rungs: tuple[str, ...]) -> str | None:
    """The rung of a ladder that holds no less than the one asked for: that one, or the next below it."""
    order = list(RUNGS)
    return asked and max((rung for rung in rungs if order.index(rung) <= order.index(asked)), key=order.index)


def place(tool: Any, rung: str, on: torch.device) -> None:
    """Put a pipeline, or one network, on a rung. What an earlier rung hooked into it is taken off first."""
    import torch

    vae = tool if hasattr(tool, "enable_tiling") else getattr(tool, "vae", None)
    if rung != "resident" and vae is not None and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if hasattr(tool, "remove_all_hooks"):
        tool.remove_all_hooks()
    if rung == "model-offload":
        tool.to("cpu")
        tool.enable_model_cpu_offload(device=on)
    elif rung == "group-offload":
        tool.to("cpu")
        tool.enable_group_offload(onload_device=on, offload_device=torch.device("cpu"), offload_type="leaf_level", **_to_disk(on))
    else:
        tool.to(on)


def _to_disk(on: torch.device) -> dict[str, Any]:
    """Where layers wait on a CPU: in a folder that goes when the process does."""
    if on.type != "cpu":
        return {}
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="realkit-offload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"offload_to_disk_path": folder}


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is memory that could not be had."""
    import torch

    while error is not None:
        said = str(error)
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "CUBLAS_STATUS_ALLOC_FAILED" in said or "can't allocate memory" in said:
            return True
        error = error.__cause__
    return False


def release() -> None:
    """Give back the memory of what is no longer referenced: to Python, to the driver, and to the system."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # of another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def batch_limit(on: torch.device, pixels: int) -> int:
    """Images a denoising batch may hold: by free GPU memory at 2.5 GiB a 512×512 image, or 8 on a CPU."""
    import torch

    if on.type != "cuda":
        return 8
    free = torch.cuda.mem_get_info(on)[0]
    return max(1, min(16, int(free * 0.5 / (2.5 * 2**30 * pixels / 512**2))))
