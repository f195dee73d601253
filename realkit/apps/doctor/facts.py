"""The facts about a machine that decide which pictures it can make. Gathering them raises nothing
and does not hold the GPU."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from realkit.apps.doctor import other_gpus, probe
from realkit.base import cache
from realkit.base.credentials import NAMES, Service, scrub, token_source
from realkit.base.measure import or_else, ram_free
from realkit.base.network import no_answer
from realkit.base.place import Place, place_here
from realkit.weights.sources.inputs import KINDS, roots

OPTIONAL = ("xformers", "basicsr", "realesrgan")


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None
    gfx: str = ""  # architecture of an AMD GPU on ROCm


@dataclass(frozen=True)
class Disk:
    holds: str  # what realkit writes there
    path: str
    free_gb: float  # of 10⁹ bytes, as model sizes are given


@dataclass(frozen=True)
class Facts:
    """A machine, as far as it is known. Error messages in it hold no secret."""

    python: str
    place: Place
    required: dict[str, str]  # library → lowest version
    versions: dict[str, str | None]  # required and optional libraries; None: not installed
    broken: dict[str, str]  # installed main library whose import fails → the error
    torchvision_needs: str | None = None  # torchvision's requirement on torch, e.g. "==2.10.0"
    torch_cuda: str | None = None  # CUDA version of the torch build; None: built for the CPU
    torch_hip: str | None = None  # ROCm's version of the torch build
    archs: tuple[str, ...] = ()  # the build's kernels
    gpus: tuple[Gpu, ...] = ()  # as torch sees them
    cuda_error: str = ""  # why torch sees none
    driver: str | None = None
    driver_gpus: tuple[Gpu, ...] = ()  # as the driver sees them
    other_gpus: tuple[str, ...] = ()  # makers of GPUs that are no NVIDIA's
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    disks: tuple[Disk, ...] = ()
    ram_free_gib: float | None = None
    hub: Literal["reached", "offline", "unreachable"] = "reached"
    hub_host: str = "huggingface.co"
    hub_error: str = ""
    tokens: Mapping[Service, str | None] = field(default_factory=dict)  # service → its source
    inputs: tuple[str, ...] = ()  # attached to a Kaggle notebook, or in $REALKIT_INPUTS


def gather() -> Facts:
    """The facts of this machine. A fact that cannot be found is missing; nothing is raised."""
    deadline = time.monotonic() + probe.PROBE_S
    required = dict.fromkeys(probe.USED, "0") | or_else({}, lower_bounds)
    versions = {name: or_else(None, version, name) for name in (*required, *OPTIONAL)}
    installed = [name for name in probe.USED if versions.get(name)]
    process = or_else(None, probe.start, installed)  # works while the network is asked
    no_hub = ("unreachable", "huggingface.co", "huggingface_hub cannot be imported")
    hub, host, hub_error = or_else(no_hub, _hub)
    driver, driver_gpus = or_else((None, ()), seen_by_driver)
    outcomes = or_else({}, probe.collect, process, installed, deadline)
    broken = {}
    for name in installed:
        if error := outcomes.get(name, {"error": "it could not be tried"})["error"]:
            broken[name] = error
    torch = outcomes.get("torch", {}).get("facts", {})
    if torch:  # the installed metadata may leave out the CUDA version
        versions["torch"] = torch["version"]
    gpus = []
    for name, major, minor, gib, gfx in torch.get("gpus", ()):
        gpus.append(Gpu(name, (major, minor), gib, gfx))
    return Facts(
        python=platform.python_version(),
        place=or_else("plain", place_here),
        required=required,
        versions=versions,
        broken=broken,
        torchvision_needs=or_else(None, _torchvision_needs),
        torch_cuda=torch.get("cuda"),
        torch_hip=torch.get("hip"),
        archs=tuple(torch.get("archs", ())),
        gpus=tuple(gpus),
        cuda_error=torch.get("error", ""),
        driver=driver,
        driver_gpus=driver_gpus,
        other_gpus=or_else((), other_gpus.seen),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        disks=or_else((), _disks),
        ram_free_gib=or_else(None, ram_free),
        hub=hub,
        hub_host=host,
        hub_error=scrub(hub_error),
        tokens={service: or_else(None, token_source, service) for service in NAMES},
        inputs=or_else((), _inputs),
    )


def lower_bounds() -> dict[str, str]:
    """Lowest version by library: from requirements.txt in a checkout, else from the metadata."""
    file = Path(__file__).parents[3] / "requirements.txt"
    if file.is_file() and file.with_name("pyproject.toml").is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
    else:
        lines = requires("realkit") or []
    matches = [re.match(r"([\w.-]+)\s*>=\s*([\d.]+)\s*(#.*)?$", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


def seen_by_driver() -> tuple[str | None, tuple[Gpu, ...]]:
    """The NVIDIA driver's version and its GPUs, whether torch can use them or not; (None, ()) where
    there is no driver, or nvidia-ml-py is not installed yet."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None, ()
    gpus = []
    try:
        for number in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(number)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(device)
            memory_gib = round(pynvml.nvmlDeviceGetMemoryInfo(device).total / 2**30, 1)
            gpus.append(Gpu(pynvml.nvmlDeviceGetName(device), (major, minor), memory_gib))
        return pynvml.nvmlSystemGetDriverVersion(), tuple(gpus)
    finally:
        pynvml.nvmlShutdown()


def _hub() -> tuple[Literal["reached", "offline", "unreachable"], str, str]:
    """Whether the hub answers, its host's name without a password, and why it does not answer."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
    if constants.HF_HUB_OFFLINE:
        return "offline", host, ""
    reason = no_answer(constants.ENDPOINT)
    return ("unreachable" if reason else "reached"), host, reason


def _torchvision_needs() -> str | None:
    for line in requires("torchvision") or []:
        if match := re.match(r"torch\b\s*\(?([^;)]*)", line):
            return match[1].strip()
    return None


def _disks() -> tuple[Disk, ...]:
    """The disks that realkit writes to: results (by default below the working folder), the hub's
    cache, other downloads. One entry a disk."""
    places = {"results": Path.cwd()}
    with suppress(ImportError):
        from huggingface_hub import constants

        places["the hub's cache"] = Path(constants.HF_HUB_CACHE)
    places["downloads"] = cache.cache_root()
    uses: dict[int, list[str]] = {}
    for use, path in places.items():
        uses.setdefault(cache.existing(path).stat().st_dev, []).append(use)
    disks = []
    for first, *others in uses.values():
        path = places[first]
        holds = ", ".join([first, *others[:-1]]) + "".join(f" and {use}" for use in others[-1:])
        disks.append(Disk(holds, str(path), round(cache.free_bytes(path) / 1e9, 2)))
    return tuple(disks)


def _inputs() -> tuple[str, ...]:
    """What is attached to a Kaggle notebook or lies in $REALKIT_INPUTS, in the old form (SLUG) and
    the new form (datasets/OWNER/SLUG)."""
    names = []
    for root in roots():
        for entry in sorted(root.iterdir()):
            paths = sorted(entry.glob("*/*")) if entry.name in KINDS else [entry]
            names += [path.relative_to(root).as_posix() for path in paths]
    return tuple(names)
