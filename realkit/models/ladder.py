"""The memory ladder: rungs that hold less and less of a model on the device, climbed when memory
runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from realkit.base.device import out_of_memory, release
from realkit.base.errors import RequestError, one_line

if TYPE_CHECKING:
    import torch


def checked_rung(asked: str | None, on: torch.device) -> str | None:
    rungs = LADDERS["both"][on.type]
    if asked is not None and asked not in rungs:
        raise RequestError(
            f"rung {asked!r}: expected one of {', '.join(rungs)} on a"
            f" {'GPU' if on.type == 'cuda' else 'CPU'}"
        )
    return asked


def placed(tool: Any, rung: str, rungs: tuple[str, ...], on: torch.device) -> str:
    """Place a tool on a rung or, where memory runs out, on the next that holds it; return that
    one."""
    for stands in rungs[rungs.index(rung) :]:
        try:
            place(tool, stands, on)
            return stands
        except Exception as error:
            if not out_of_memory(error) or stands == rungs[-1]:
                raise
        release()
    raise AssertionError("unreachable")


def climbing_load(read: Any) -> Any:
    """Read files into main memory; once more after giving back what can be given, where that runs
    out."""
    try:
        return read()
    except Exception as error:
        if not out_of_memory(error):
            raise
    release()
    return read()


def part_bytes(pipe: Any) -> list[int]:
    import torch

    return [
        module_bytes(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module)
    ]


def module_bytes(module: Any) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


class Placed:
    """What stands on a rung of the memory ladder and can climb it: the pipeline, or the one
    network, that its attribute `_held` names."""

    _held: ClassVar[str] = "pipe"
    device: torch.device
    rung: str
    rungs: tuple[str, ...]

    def climb(self) -> bool:
        """Go to the next rung; False on the last."""
        for rung in self.rungs[self.rungs.index(self.rung) + 1 :]:
            self.rung = rung
            release()
            try:
                place(getattr(self, self._held), self.rung, self.device)
                return True
            except Exception as error:
                if not out_of_memory(error):
                    raise
        return False


def climbing(tool: Any, work: Any) -> Any:
    """What `work` gives; out of memory, `tool` climbs its ladder and the work is done again. Raises
    the last error where no rung is left."""
    while True:
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error) or not isinstance(tool, Placed):
                raise
            said = error
        said.__traceback__ = None  # its frames hold the memory
        if not tool.climb():
            tried = ", ".join(tool.rungs[: tool.rungs.index(tool.rung) + 1])
            said.args = (f"{one_line(said, 200)} (on every rung: {tried})",)
            raise said


# The ladder: what out-of-memory climbs, rung by rung. Each holds less on the device than the one
# before; each is slower.
RUNGS = {
    "resident": "all parts on the device",
    "vae-tiling": "and the VAE decodes tile by tile",
    "model-offload": "one part at a time on the device, the others in main memory",
    "group-offload": "one layer at a time on the device; on a CPU, the others on disk",
}
LADDERS: dict[
    str, dict[str, tuple[str, ...]]
] = {  # of a stage that loads no VAE, of one that loads nothing else, and of a whole model
    "denoise": {
        "cuda": ("resident", "model-offload", "group-offload"),
        "cpu": ("resident", "group-offload"),
    },
    "decode": {
        "cuda": ("resident", "vae-tiling", "group-offload"),
        "cpu": ("resident", "vae-tiling", "group-offload"),
    },
    "both": {"cuda": tuple(RUNGS), "cpu": ("resident", "vae-tiling", "group-offload")},
}
WORKING = (
    2 << 30
    # bytes that a batch's activations need beside the weights; where it needs more, the ladder is
    # climbed
)


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
    """The rung of a ladder that holds no less than the one asked for: that one, or the next below
    it."""
    order = list(RUNGS)
    return asked and max(
        (rung for rung in rungs if order.index(rung) <= order.index(asked)), key=order.index
    )


def place(tool: Any, rung: str, on: torch.device) -> None:
    """Put a pipeline, or one network, on a rung. What an earlier rung hooked into it is taken off
    first."""
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
        tool.enable_group_offload(
            onload_device=on,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            **_to_disk(on),
        )
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
