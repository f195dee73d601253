"""The memory ladder: rungs that hold ever less of a model on the device, climbed out of memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from realkit.base.device import out_of_memory, release
from realkit.base.errors import RequestError, one_line
from realkit.base.suggest import instead

if TYPE_CHECKING:
    import torch

ResultT = TypeVar("ResultT")

# From the fastest rung to the one that holds least on the device.
RUNGS = {
    "resident": "all parts on the device",
    "vae-tiling": "and the VAE decodes tile by tile",
    "model-offload": "one part at a time on the device, the others in main memory",
    "group-offload": "one layer at a time on the device; on a CPU, the others on disk",
}
CPU_RUNGS = ("resident", "vae-tiling", "group-offload")
# The rungs of a stage that loads no VAE, of one that loads a VAE alone, and of a whole model.
LADDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "denoise": {
        "cuda": ("resident", "model-offload", "group-offload"),
        "cpu": ("resident", "group-offload"),
    },
    "decode": {"cuda": ("resident", "vae-tiling", "group-offload"), "cpu": CPU_RUNGS},
    "both": {"cuda": tuple(RUNGS), "cpu": CPU_RUNGS},
}
# Bytes that a batch's activations need beside the weights. A batch that needs more climbs.
WORKING = 2 << 30


def checked_rung(rung: str | None, on: torch.device) -> str | None:
    """The rung, None where it is open. Raises RequestError for one that the device lacks."""
    rungs = LADDERS["both"][on.type]
    if rung is not None and rung not in rungs:
        device = "GPU" if on.type == "cuda" else "CPU"
        raise RequestError(f"rung {rung!r}{instead(rung, rungs)} on a {device}")
    return rung


def nearest(rung: str | None, rungs: tuple[str, ...]) -> str | None:
    """The rung of a ladder that holds no less than `rung`: the same, or the next below it."""
    if rung is None:
        return None
    order = list(RUNGS)
    below = order[: order.index(rung) + 1]
    return [candidate for candidate in rungs if candidate in below][-1]


def first_rung(on: torch.device, rungs: tuple[str, ...], parts: list[int]) -> str:
    """The lowest rung whose weights (bytes of each part) fit into free memory beside a batch."""
    if on.type != "cuda":
        return rungs[0]
    import torch

    free = torch.cuda.mem_get_info(on)[0]
    if sum(parts) + WORKING <= free:
        return rungs[0]
    if "model-offload" in rungs and max(parts) + WORKING <= free:
        return "model-offload"
    return rungs[-1]


def part_bytes(tool: Any) -> list[int]:
    """Bytes of the weights of each network in a pipeline, or of one network."""
    import torch

    parts = tool.components.values() if hasattr(tool, "components") else [tool]
    return [module_bytes(part) for part in parts if isinstance(part, torch.nn.Module)]


def module_bytes(module: Any) -> int:
    """Bytes of a network's weights."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


class Placed:
    """A tool on a rung, able to climb: `_held` names its pipeline, or its one network."""

    _held: ClassVar[str] = "pipe"
    device: torch.device
    rung: str
    rungs: tuple[str, ...]

    def climb(self) -> bool:
        """Move to the next rung that holds the tool. False where no rung is left."""
        for rung in self.rungs[self.rungs.index(self.rung) + 1 :]:
            self.rung = rung
            release()
            if _fits(getattr(self, self._held), rung, self.device) is None:
                return True
        return False


def climbing(tool: Any, work: Callable[[], ResultT]) -> ResultT:
    """The result of `work`. Out of memory, `tool` climbs its ladder and the work starts again.

    Raises the last error where no rung is left, or where `tool` cannot climb.
    """
    while True:
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error) or not isinstance(tool, Placed):
                raise
            failure = error
        failure.__traceback__ = None  # its frames hold the memory that the next rung needs
        if not tool.climb():
            tried = ", ".join(tool.rungs[: tool.rungs.index(tool.rung) + 1])
            failure.args = (f"{one_line(failure, 200)} (on every rung: {tried})",)
            raise failure


def climbing_load(read: Callable[[], ResultT]) -> ResultT:
    """Read files into main memory. Out of memory, release what is unused and read once more."""
    try:
        return read()
    except Exception as error:
        if not out_of_memory(error):
            raise
    release()
    return read()


def placed(tool: Any, rung: str, rungs: tuple[str, ...], on: torch.device) -> str:
    """Place a pipeline or network on `rung` or, out of memory, on the next that holds it.

    Returns that rung. Raises the last error where no rung holds it.
    """
    failure: Exception | None = None
    for candidate in rungs[rungs.index(rung) :]:
        failure = _fits(tool, candidate, on)
        if failure is None:
            return candidate
        failure.__traceback__ = None
        release()
    assert failure is not None
    raise failure


def _fits(tool: Any, rung: str, on: torch.device) -> Exception | None:
    """Place a pipeline or network on a rung; return the error where memory runs out."""
    try:
        place(tool, rung, on)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return error
    return None


def place(tool: Any, rung: str, on: torch.device) -> None:
    """Put a pipeline or network on a rung, without the hooks of an earlier rung."""

    vae: Any = tool if hasattr(tool, "enable_tiling") else getattr(tool, "vae", None)
    if rung != "resident" and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if hasattr(tool, "remove_all_hooks"):
        tool.remove_all_hooks()
    if rung == "model-offload":
        tool.to("cpu")
        tool.enable_model_cpu_offload(device=on)
    elif rung == "group-offload":
        tool.to("cpu")
        _offload_layers(tool, on)
    else:
        tool.to(on)


def _offload_layers(tool: Any, on: torch.device) -> None:
    """Keep one layer at a time on the device, of a pipeline's networks or of one network."""
    import torch
    from diffusers.hooks import apply_group_offloading

    folder = _offload_folder() if on.type == "cpu" else None
    parts = tool.components if hasattr(tool, "components") else {"network": tool}
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            if folder:
                _untie(part)
            # A layer's file bears its name alone, and two text encoders have the same names: in one
            # folder for all, the second would compute with the layers of the first.
            apply = getattr(part, "enable_group_offload", partial(apply_group_offloading, part))
            apply(
                onload_device=on,
                offload_device=torch.device("cpu"),
                offload_type="leaf_level",
                offload_to_disk_path=str(folder / name) if folder else None,
            )


def _untie(network: torch.nn.Module) -> None:
    """Give each module weights of its own, where two share them as T5's embeddings are shared:
    the second would be written to the disk after the first has let go of its memory."""
    import torch

    seen = set()
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:
                own = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
                setattr(module, name, own)
            seen.add(id(weight))


def _offload_folder() -> Path:
    """A folder for layers that wait on disk, removed when the process ends."""
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="realkit-offload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
