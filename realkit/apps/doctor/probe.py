"""Imports of the main libraries, tried in a process of their own, which may die of them.

`python -m realkit.apps.doctor.probe NAME …` prints one JSON line for each library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from realkit.base.errors import one_line

# Library → its module, and names to take out of it: the lazy imports of transformers and diffusers
# prove nothing until a name is used.
USED: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("torch", ()),
    "torchvision": ("torchvision", ()),
    "transformers": ("transformers", ("CLIPTextModel", "CLIPTokenizer")),
    "diffusers": ("diffusers", ("StableDiffusionPipeline", "AutoencoderKL")),
    "accelerate": ("accelerate", ()),
    "open_clip_torch": ("open_clip", ()),
    "spandrel": ("spandrel", ()),
}
PROBE_S = 120.0  # for all imports together: a cold disk takes a minute
Outcomes = dict[str, dict[str, Any]]  # library → {"error": "" or why, "facts": of CHECKS}


def tried(names: list[str]) -> Outcomes:
    """Import each of these libraries (keys of USED) in a process of their own."""
    return collect(start(names), names, time.monotonic() + PROBE_S)


def start(names: list[str]) -> subprocess.Popen[str]:
    """Start the process. It finds the modules that this process would find."""
    return subprocess.Popen(
        [sys.executable, "-m", "realkit.apps.doctor.probe", *names],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def collect(process: subprocess.Popen[str], names: list[str], deadline: float) -> Outcomes:
    """Wait for the outcomes until `deadline` (time.monotonic). A library that kills the process
    gets that as its error, and a new process tries the libraries after it."""
    late = False
    try:
        printed = process.communicate(timeout=max(0.1, deadline - time.monotonic()))[0]
    except subprocess.TimeoutExpired:
        process.kill()
        printed, late = process.communicate()[0], True
    lines = [json.loads(line) for line in printed.splitlines()]
    outcomes: Outcomes = {line["name"]: line for line in lines}
    remaining = [name for name in names if name not in outcomes]
    if not remaining:
        return outcomes
    if late:
        outcomes[remaining[0]] = {"error": f"it did not end within {PROBE_S:.0f} seconds"}
        return outcomes
    outcomes[remaining[0]] = {"error": f"Python died of it (exit code {process.returncode})"}
    return outcomes | collect(start(remaining[1:]), remaining[1:], deadline)


def main(names: list[str]) -> None:
    """Import each library and print its outcome."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print must not mix with the outcomes
    for name in names:
        outcome: dict[str, Any] = {"name": name, "error": ""}
        module_name, attributes = USED[name]
        try:
            module = import_module(module_name)
            for attribute in attributes:
                getattr(module, attribute)
            if name in CHECKS:
                outcome["facts"] = CHECKS[name](module)
        except BaseException as error:
            outcome["error"] = f"{type(error).__name__}: {one_line(error, 300)}"
        print(json.dumps(outcome), file=out, flush=True)


def _torch(torch: Any) -> dict[str, Any]:
    """The build of torch, and the GPUs as it sees them: (name, major, minor, GiB, gfx) of each."""
    gpus, reason = [], ""
    hip = getattr(torch.version, "hip", None)  # ROCm's version
    if torch.version.cuda or hip:
        try:
            torch.cuda.init()
            for number in range(torch.cuda.device_count()):
                gpu = torch.cuda.get_device_properties(number)
                gfx = (
                    gpu.gcnArchName.partition(":")[0] if getattr(torch.version, "hip", None) else ""
                )
                memory = round(gpu.total_memory / 2**30, 1)
                gpus.append((gpu.name, gpu.major, gpu.minor, memory, gfx))
        except Exception as error:
            reason = one_line(error, 200)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": hip,
        "archs": torch.cuda.get_arch_list(),
        "gpus": gpus,
        "error": reason,
    }


def _torchvision(torchvision: Any) -> None:
    """Raises where the operators were built for another torch: the import alone can pass."""
    import torch

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)


CHECKS: dict[str, Callable[[Any], Any]] = {"torch": _torch, "torchvision": _torchvision}

if __name__ == "__main__":
    main(sys.argv[1:])
