"""The facts about a machine that decide what can be made on it. Everything here is found without
raising, and without holding the GPU."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any, Literal

from realkit.base import cache
from realkit.base.credentials import NAMES, Service, scrub, token_source
from realkit.base.errors import one_line
from realkit.base.measure import or_else, ram_free
from realkit.base.place import Place, place_here, within
from realkit.weights.sources.inputs import KINDS, roots

# What each main library must be able to give. A library of lazy imports proves nothing until
# something is taken out of it.
USED: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("torch", ()),
    "torchvision": ("torchvision", ()),
    "transformers": ("transformers", ("CLIPTextModel", "CLIPTokenizer")),
    "diffusers": ("diffusers", ("StableDiffusionPipeline", "AutoencoderKL")),
    "accelerate": ("accelerate", ()),
    "open_clip_torch": ("open_clip", ()),
    "spandrel": ("spandrel", ()),
}
OPTIONAL = ("peft", "xformers", "basicsr", "realesrgan")
NOTEBOOKS = (
    "papermill",
    "ipykernel",
    "ipywidgets",
    "nbformat",
)  # required, but pictures are made without them
PROBE_S = 120.0  # for all imports together: a cold disk takes a minute
HUB_S = 3.0


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int] | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class Disk:
    holds: str  # what realkit writes there
    path: str
    free_gb: float  # of 10⁹ bytes, as model sizes are given


@dataclass(frozen=True)
class Facts:
    """A machine, as far as it could be found out. Holds no secret."""

    python: str
    place: Place
    required: dict[str, str]  # library → lowest version
    versions: dict[str, str | None]  # required and optional libraries; None: not installed
    broken: dict[str, str]  # installed main library whose import fails → the error
    torchvision_needs: str | None = (
        None  # what torchvision's metadata says of torch, e.g. "==2.10.0"
    )
    torch_cuda: str | None = None  # CUDA version of the torch build; None: built for the CPU
    archs: tuple[str, ...] = ()  # the build's kernels
    gpus: tuple[Gpu, ...] = ()  # as torch sees them
    cuda_error: str = ""  # why torch sees none
    driver: str | None = None
    driver_gpus: tuple[Gpu, ...] = ()  # as the driver sees them
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    disks: tuple[Disk, ...] = ()
    ram_free_gib: float | None = None
    hub: Literal["reached", "offline", "unreachable"] = "reached"
    hub_host: str = "huggingface.co"
    hub_error: str = ""
    tokens: dict[Service, str | None] = field(
        default_factory=dict
    )  # service → where its token comes from
    inputs: tuple[
        str, ...
    ] = ()  # what is attached to a Kaggle notebook, or lies in $REALKIT_INPUTS


def gather() -> Facts:
    """The facts of this machine. The libraries are tried in a process of their own, which may die
    of them, while the network is asked."""
    deadline = time.monotonic() + PROBE_S
    required: dict[str, str] = dict.fromkeys(USED, "0") | or_else({}, lower_bounds)
    versions: dict[str, str | None] = {
        name: or_else(None, version, name) for name in (*required, *OPTIONAL)
    }
    installed = [name for name in USED if versions.get(name)]
    process = or_else(None, _start, installed)
    hub, host, error = or_else(
        ("unreachable", "huggingface.co", "huggingface_hub cannot be imported"), _hub
    )
    sources: dict[Service, str | None] = {
        service: or_else(None, token_source, service) for service in NAMES
    }
    driver, driver_gpus = or_else((None, ()), seen_by_driver)
    facts = Facts(
        python=platform.python_version(),
        place=or_else("plain", place_here),
        required=required,
        versions=versions,
        broken={},
        torchvision_needs=or_else(None, _torchvision_needs),
        driver=driver,
        driver_gpus=driver_gpus,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        disks=or_else((), _disks),
        ram_free_gib=or_else(None, ram_free),
        hub=hub,
        hub_host=host,
        hub_error=error,
        tokens=sources,
        inputs=or_else((), _inputs),
    )
    went: dict[str, dict[str, Any]] = (
        or_else({}, _collect, process, installed, deadline) if process else {}
    )
    broken = {
        name: went.get(name, {"error": "it could not be tried"})["error"] for name in installed
    }
    facts = replace(facts, broken={name: error for name, error in broken.items() if error})
    if seen := went.get("torch", {}).get("facts"):
        facts = replace(
            facts,
            versions=versions
            | {"torch": seen["version"]},  # the metadata may leave out which CUDA it was built for
            torch_cuda=seen["cuda"],
            archs=tuple(seen["archs"]),
            cuda_error=seen["error"],
            gpus=tuple(
                Gpu(name, (major, minor), memory) for name, major, minor, memory in seen["gpus"]
            ),
        )
    return _scrubbed(facts)


def _scrubbed(value: Any) -> Any:
    """The value with no access token in any of its strings: error messages quote requests."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_scrubbed(item) for item in value)
    if isinstance(value, dict):
        return {key: _scrubbed(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{part.name: _scrubbed(getattr(value, part.name)) for part in fields(value)}
        )
    return value


def lower_bounds() -> dict[str, str]:
    """Lower bounds by library, from requirements.txt in a checkout, else from the installed
    package's metadata."""
    file = Path(__file__).parents[3] / "requirements.txt"
    checkout = file.is_file() and file.with_name("pyproject.toml").is_file()
    lines = file.read_text(encoding="utf-8").splitlines() if checkout else requires("realkit") or []
    return {
        match[1]: match[2]
        for line in lines
        if (match := re.match(r"([\w.-]+)\s*>=\s*([\d.]+)\s*(#.*)?$", line))
    }


def _torchvision_needs() -> str | None:
    found = (re.match(r"torch\b\s*\(?([^;)]*)", line) for line in requires("torchvision") or [])
    return next((match[1].strip() for match in found if match), None)


def _inputs() -> tuple[str, ...]:
    """What is attached or lies in $REALKIT_INPUTS, in the old form (/slug) and in the new one
    (/datasets/owner/slug)."""
    entries = [(root, entry) for root in roots() for entry in sorted(root.iterdir())]
    return tuple(
        p.relative_to(root).as_posix()
        for root, entry in entries
        for p in (sorted(entry.glob("*/*")) if entry.name in KINDS else [entry])
    )


def tried(names: list[str]) -> dict[str, dict[str, Any]]:
    """What became of importing each of these libraries (keys of USED), in a process of its own:
    {"error": "", "facts": what CHECKS found}."""
    return _collect(_start(names), names, time.monotonic() + PROBE_S)


def _start(names: list[str]) -> subprocess.Popen[str]:
    """A process that imports the libraries one after the other and prints a JSON line for each; it
    finds what this one would find."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable,
        "-c",
        "import sys; from realkit.apps.doctor.facts import probe; probe(sys.argv[1:])",
        *names,
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _collect(
    process: subprocess.Popen[str], names: list[str], deadline: float
) -> dict[str, dict[str, Any]]:
    """What became of each import. The one that a process died of is named, and the ones behind it
    are tried in a new process."""
    try:
        printed, late = process.communicate(timeout=max(0.1, deadline - time.monotonic()))[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        printed, late = process.communicate()[0], True
    tried = {line["name"]: line for line in map(json.loads, printed.splitlines())}
    left = [name for name in names if name not in tried]
    if not left:
        return tried
    error = (
        f"it did not end within {PROBE_S:.0f} seconds"
        if late
        else f"Python died of it (exit code {process.returncode})"
    )
    tried[left[0]] = {"name": left[0], "error": error}
    return tried if late or not left[1:] else tried | _collect(_start(left[1:]), left[1:], deadline)


def probe(names: list[str]) -> None:
    """Import each library and print how that went. Runs in a process of its own, whose standard
    output it keeps to itself."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in names:
        result: dict[str, Any] = {"name": name, "error": ""}
        try:
            module = import_module(USED[name][0])
            for attribute in USED[name][1]:
                getattr(module, attribute)
            if check := CHECKS.get(name):
                result["facts"] = check(module)
        except BaseException as error:
            result["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        print(json.dumps(result), file=out, flush=True)


def _torch(torch: Any) -> dict[str, Any]:
    facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "archs": torch.cuda.get_arch_list(),
        "gpus": [],
        "error": "",
    }
    if torch.version.cuda:
        try:
            torch.cuda.init()
            for number in range(torch.cuda.device_count()):
                gpu = torch.cuda.get_device_properties(number)
                facts["gpus"].append(
                    (gpu.name, gpu.major, gpu.minor, round(gpu.total_memory / 2**30, 1))
                )
        except Exception as error:
            facts["error"] = one_line(error, 200)
    return facts


def _torchvision_operators(torchvision: Any) -> None:
    """Raises where the operators were built for another torch: the import alone can pass."""
    import torch

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)


CHECKS: dict[str, Callable[[Any], Any]] = {"torch": _torch, "torchvision": _torchvision_operators}


def seen_by_driver() -> tuple[str | None, tuple[Gpu, ...]]:
    """The NVIDIA driver's version and the GPUs that it sees, whatever torch makes of them."""
    if shutil.which("nvidia-smi"):
        for columns in (
            "driver_version,name,memory.total,compute_cap",
            "driver_version,name,memory.total",
        ):  # drivers before 510 do not know the last
            command = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
            )
            lines = [
                line.split(", ")
                for line in done.stdout.splitlines()
                if line.count(", ") == columns.count(",")
            ]
            if done.returncode == 0 and lines:
                return lines[0][0], tuple(_listed(*line[1:]) for line in lines)
    return _driver_from_files()


def _listed(name: str, memory: str, capability: str = "") -> Gpu:
    numbers = re.fullmatch(r"(\d+)\.(\d+)", capability)
    return Gpu(
        name,
        (int(numbers[1]), int(numbers[2])) if numbers else None,
        round(int(memory) / 1024, 1) if memory.isdecimal() else None,
    )


def _driver_from_files(
    root: Path = Path("/proc/driver/nvidia"),
) -> tuple[str | None, tuple[Gpu, ...]]:
    """The same from the kernel module's files: a container may have the driver and no
    nvidia-smi."""
    if not (root / "version").is_file():
        return None, ()
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", (root / "version").read_text())
    models = [
        re.search(r"Model:\s*(.+)", path.read_text())
        for path in sorted(root.glob("gpus/*/information"))
    ]
    return found[1] if found else None, tuple(Gpu(model[1].strip()) for model in models if model)


def _hub() -> tuple[Literal["reached", "offline", "unreachable"], str, str]:
    """Whether the hub answers, its host's name, and what went wrong."""
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
    if constants.HF_HUB_OFFLINE:
        return "offline", host, ""

    def ask() -> str:
        try:
            urlopen(
                Request(constants.ENDPOINT, method="HEAD", headers={"User-Agent": "realkit"}),
                timeout=HUB_S,
            ).close()
        except HTTPError as error:  # an answer, unless a proxy gave it or the hub is down
            return f"HTTP {error.code}" if error.code in (403, 407) or error.code >= 500 else ""
        except Exception as error:
            return (
                " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
            )
        return ""

    error = within(HUB_S + 1, ask)  # looking up the name knows no timeout of its own
    if error is None:
        error = f"no answer within {HUB_S:.0f} seconds"
    return ("unreachable" if error else "reached"), host, error


def _disks() -> tuple[Disk, ...]:
    """Where results go, by default below the current folder, where the hub's cache is, and where
    other downloads are: an entry for each disk."""
    places = {"results": Path.cwd()}
    try:
        from huggingface_hub import constants

        places["the hub's cache"] = Path(constants.HF_HUB_CACHE)
    except ImportError:
        pass
    places["downloads"] = cache.cache_root()
    held: dict[int, list[str]] = {}
    for holds, path in places.items():
        held.setdefault(cache.existing(path).stat().st_dev, []).append(holds)
    return tuple(
        Disk(
            " and ".join([", ".join(all_but_last), last] if all_but_last else [last]),
            str(places[first]),
            round(cache.free_bytes(places[first]) / 1e9, 2),
        )
        for first, (*all_but_last, last) in ((holds[0], holds) for holds in held.values())
    )
