"""A notebook's first step on Kaggle, Colab or anywhere: install what is missing, keep the image's
torch, find tokens, and say in one line where it runs.

Only the standard library and modules built on it may be imported here: a library that this installs
must not be loaded before.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from realkit.apps.doctor.builds import CU126_SERVES, CU126_TORCH, numbers
from realkit.apps.doctor.facts import lower_bounds, seen_by_driver
from realkit.apps.doctor.probe import tried
from realkit.base import cache, credentials
from realkit.base.credentials import NAMES, Service
from realkit.base.device import has_kernels
from realkit.base.door import check_kind, door
from realkit.base.errors import RequestError, shown
from realkit.base.measure import or_else
from realkit.base.network import no_answer
from realkit.base.place import Place, place_here
from realkit.base.terminal import say
from realkit.weights.sources import inputs

WORKING = Path("/kaggle/working")
CONTENT = Path("/content")
DRIVE = CONTENT / "drive"
# The image's own, whose binary interface its other libraries build on: never replaced where they
# are new enough.
PINNED = (
    "torch", "torchvision", "torchaudio", "triton", "numpy", "scipy", "pandas", "pyarrow", "pillow",
    "matplotlib", "scikit-image", "opencv-python-headless",
)  # fmt: skip
# A running notebook has what it needs of these; a newer version would change under it.
RUNNING = ("papermill", "ipykernel", "ipywidgets", "nbformat")
MODULES = {
    "open_clip_torch": "open_clip",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "scikit-image": "skimage",
    "opencv-python-headless": "cv2",
}
# What pip says before it has installed anything.
UNRESOLVED = r"No matching|Cannot install|The user requested|\S+ \S+ depends on"
PIP_OPTIONS = (
    "--disable-pip-version-check",
    "--no-input",
    "--no-warn-conflicts",
    "--root-user-action=ignore",
)
NEED = re.compile(r"[A-Za-z0-9][\w.-]*>=\d[\w.]*")
# A kernel sets FORCE_COLOR, and pip's errors would begin with escape codes.
COLOURED = ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS")
SERVICES: dict[Service, str] = {"huggingface": "HF", "civitai": "Civitai"}
# Service → where its token came from, before it was put into the environment.
_handed: dict[str, str] = {}


@dataclass(frozen=True)
class Here:
    """Where a notebook runs. `results` is a folder that outlives the session, or is the session's
    output; None: results lie where the notebook asks for them."""

    place: Place
    results: Path | None

    def out(self, path: str | Path) -> str:
        """Where results called `path` go: its last name in `results`; an absolute path stays."""
        if self.results is None or Path(path).is_absolute():
            return str(path)
        return str(self.results / Path(path).name)

    def earlier(self, out: str | Path) -> list[str]:
        """Attached results folders of this name, from earlier versions, for rk.run(attach=…)."""
        folders = inputs.holding("rows.jsonl", "runs.jsonl")
        return [str(folder) for folder in folders if folder.name == Path(out).name]


@door
def prepare(drive: bool = False) -> Here:
    """Make this notebook's Python ready for realkit, print one line of where it runs, and say where
    results go.

    On Kaggle and Colab it installs what is missing or too old, and nothing else; anywhere else it
    installs nothing. `drive` mounts Google Drive as the results folder on Colab; a Drive that is
    already mounted is always used. Raises RequestError where a library cannot be installed, or the
    kernel must be restarted.
    """
    check_kind("drive", drive, bool)
    place, lacking, installed = place_here(), wanted(), []
    hosted = place in ("Kaggle", "Colab")
    internet = _internet() if hosted else None
    if hosted and lacking:
        installed = _install(lacking, bool(internet))
    gpus = [gpu.name for gpu in or_else((None, ()), seen_by_driver)[1]]
    if hosted and gpus:
        installed = [*_kernels(bool(internet)), *installed]
    _nothing_stale(installed)
    results = _results(place, drive)
    if place == "Colab":
        _hand_down()
    line = _line(place, gpus, results, internet)
    if installed:
        line += f"; installed: {', '.join(f'{name} {_version(name)}' for name in installed)}"
    if lacking and not hosted:
        line += f"; lacking: {', '.join(lacking)} (pip install -r requirements.txt)"
    say(credentials.scrub(line))
    return Here(place, results)


@door
def require(*needs: str) -> None:
    """Install these as well, each as pip names it ("ray>=2.40"), where they are missing or too old.
    Does so on Kaggle and Colab only."""
    bounds = {}
    for need in needs:
        if not NEED.fullmatch(need):
            raise RequestError(f"Package {shown(need)}: expected NAME>=VERSION, such as ray>=2.40")
        name, _, lowest = need.partition(">=")
        bounds[name] = lowest
    lacking = _lacking(bounds)
    if lacking and place_here() in ("Kaggle", "Colab"):
        _nothing_stale(_install(lacking, _internet()))


def wanted() -> list[str]:
    """What is missing or too old, as pip names it, e.g. "diffusers>=0.42"."""
    bounds = lower_bounds()
    return _lacking({name: bounds[name] for name in bounds if name not in RUNNING})


def _lacking(bounds: Mapping[str, str]) -> list[str]:
    lacking = []
    for name, lowest in bounds.items():
        if numbers(_version(name) or "") < numbers(lowest):
            lacking.append(f"{name}>={lowest}")
    return lacking


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kernels(internet: bool) -> list[str]:
    """Install the last torch for a GPU that this torch has no kernels for; the packages installed.
    A process of its own asks torch, so that this one does not load it."""
    facts = tried(["torch"]).get("torch", {}).get("facts", {"gpus": ()})
    for name, major, minor, _, gfx in facts["gpus"]:
        if has_kernels((major, minor), facts["archs"], gfx):
            continue
        what = f"{name} (capability {major}.{minor}) has no kernels in torch {facts['version']}"
        other = "choose the accelerator GPU T4 x2"
        if not CU126_SERVES[0] <= (major, minor) < CU126_SERVES[1]:
            raise RequestError(f"{what}: {other}")
        if not internet:
            raise RequestError(
                f"{what}, and the internet is off: {other}, or turn the internet on, so that an"
                " older build can be installed"
            )
        if error := _pip(shlex.split(CU126_TORCH)[1:]):
            raise RequestError(f"{what}, and an older build cannot be installed: {error}. {other}")
        return ["torch", "torchvision"]
    return []


def _install(needs: list[str], internet: bool) -> list[str]:
    """Install `needs` from attached wheels where they suffice, else from the index; the packages'
    names. pip resolves all of them before it installs any. Raises RequestError."""
    folders: set[str] = set()
    for root in inputs.roots():
        folders |= {str(path.parent) for path in root.glob("**/*.whl")}
    links = [f"--find-links={folder}" for folder in sorted(folders)]
    names, bounds = [need.partition(">=")[0] for need in needs], lower_bounds()
    before = {name: _version(name) for name in (*bounds, *PINNED)}
    pins = []
    for name in PINNED:
        if (own := before[name]) and numbers(own) >= numbers(bounds.get(name, "")):
            pins.append(f"{name}=={own}")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        command = ["install", "--constraint", str(constraints), *links, *needs]
        error = _pip([*command, "--no-index"]) if folders or not internet else "-"
        if error and internet:
            error = _pip(command)
    if error:
        hint = _install_hint(error, internet)
        raise RequestError(f"{', '.join(needs)} cannot be installed: {error}. {hint}")
    for name, old in before.items():  # what came along: the caller sees to `needs`
        if old and name not in names and _version(name) != old:
            _nothing_stale([name])
    return names


def _install_hint(error: str, internet: bool) -> str:
    if not re.search(UNRESOLVED, error):
        return "A part may be installed: restart the session, fix what pip reports, and run again"
    if not internet:
        return "Nothing was installed; turn the internet on, or attach a dataset with its wheel"
    if error.startswith("No matching"):
        return (
            "Nothing was installed; the index does not answer, or has no wheel for this Python: run"
            " again, or try the latest image"
        )
    return (
        "Nothing was installed; it asks for another torch or numpy than the image's: try the latest"
        " image"
    )


def _pip(arguments: list[str]) -> str:
    """Run pip; its error in one line, "" where there is none."""
    command = [sys.executable, "-m", "pip", *arguments, *PIP_OPTIONS]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=uncoloured()
    )
    importlib.invalidate_caches()
    if done.returncode == 0:
        return ""
    text = done.stdout + done.stderr
    causes = re.findall(rf"^\s*(?:ERROR:\s*)?((?:{UNRESOLVED}).*?)\.?\s*$", text, re.M)
    errors = re.findall(r"^ERROR:\s*(.+?)\.?\s*$", text, re.M)
    lines = re.findall(r"^\s*(\S.*?)\.?\s*$", text, re.M)
    reasons = causes or errors[-1:] or lines[-1:]
    return "; ".join(dict.fromkeys(reasons))[:300] or f"pip ended with code {done.returncode}"


def uncoloured() -> dict[str, str]:
    """The environment for a program whose output is read."""
    return {name: value for name, value in os.environ.items() if name not in COLOURED}


def _nothing_stale(installed: list[str]) -> None:
    """Raise RequestError where this process has loaded an older version of what was installed."""
    if stale := [name for name in installed if MODULES.get(name, name) in sys.modules]:
        raise RequestError(
            f"{', '.join(stale)}: an older version is already imported. Restart the kernel, then"
            " run the notebook again"
        )


def _internet() -> bool:
    """Whether the hub answers, even with an error of its own."""
    reason = no_answer(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    return not reason or reason.startswith("HTTP ")


def _results(place: Place, drive: bool) -> Path | None:
    if place == "Kaggle":
        return WORKING if WORKING.is_dir() else Path.cwd()
    if place != "Colab":
        return None
    mine = DRIVE / "MyDrive"
    if drive and not mine.is_dir():
        _mount()
    return mine / "realkit" if mine.is_dir() else CONTENT


def _mount() -> None:
    try:
        from google.colab import drive

        drive.mount(str(DRIVE))
    except Exception as error:  # whatever the dialogue raises; a local runtime has no dialogue
        raise RequestError(
            f"Google Drive cannot be mounted ({type(error).__name__}): allow it in Colab's"
            " dialogue, or prepare(drive=False)"
        ) from None


def _hand_down() -> None:
    """Put Colab's secrets into the environment: papermill's notebooks cannot ask for them."""
    for service in SERVICES:
        if credentials.token_source(service) == "Colab secrets":
            os.environ[NAMES[service][0]] = credentials.token(service) or ""
            _handed[service] = "Colab secrets"


def _line(place: Place, gpus: list[str], results: Path | None, internet: bool | None) -> str:
    """Where this notebook runs, in one line."""
    facts: list[str] = ["plain Python" if place == "plain" else place]
    for name in dict.fromkeys(gpus):
        facts.append(name if gpus.count(name) == 1 else f"{name} ×{gpus.count(name)}")
    if not gpus:
        facts.append("no GPU")
    torch = _version("torch")
    facts.append("Python {}.{}".format(*sys.version_info))
    facts.append(f"torch {torch}" if torch else "no torch")
    facts.append(f"{cache.readable(cache.free_bytes(results or Path.cwd()))} free")
    if internet is not None:
        facts.append(f"internet {'on' if internet else 'off'}")
    tokens = []
    for service, name in SERVICES.items():
        if source := _handed.get(service) or credentials.token_source(service):
            tokens.append(f"{name} token from {source}")
    return ", ".join([*facts, *(tokens or ["no tokens"])])
