"""A notebook's first step on Kaggle, Colab or anywhere: what is missing installed without touching
the image's torch, tokens found, and one line of where it runs.

Only the standard library may be imported here: what this installs must not have been loaded before.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from realkit.apps.doctor.facts import lower_bounds, seen_by_driver, tried
from realkit.apps.doctor.findings import CU126_TORCH, numbers
from realkit.base import cache, credentials
from realkit.base.credentials import NAMES, Service
from realkit.base.device import has_kernels
from realkit.base.errors import RequestError
from realkit.base.place import Place, place_here, within
from realkit.weights.sources import inputs

WORKING = Path("/kaggle/working")
CONTENT = Path("/content")
DRIVE = CONTENT / "drive"
# The image's own, on whose binary interface its other libraries rest: never replaced where they are
# new enough.
KEPT = (
    "torch",
    "torchvision",
    "torchaudio",
    "triton",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pillow",
    "matplotlib",
    "scikit-image",
    "opencv-python-headless",
)
RUNNING = (
    "papermill",
    "ipykernel",
    "ipywidgets",
    "nbformat",
)  # a notebook that runs has what it needs of these; a newer one would change under it
MODULES = {
    "open_clip_torch": "open_clip",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "scikit-image": "skimage",
    "opencv-python-headless": "cv2",
}
CU126_SERVES = (
    (5, 0),
    (7, 5),
)  # capabilities from, and below: GPUs that newer builds leave out, the P100 among them
UNRESOLVED = (  # what pip says before it has installed anything
    r"No matching|Cannot install|The user requested|\S+ \S+ depends on"
)
SERVICES: dict[Service, str] = {"huggingface": "HF", "civitai": "Civitai"}
HUB_S = 3.0


@dataclass(frozen=True)
class Here:
    """Where a notebook runs."""

    place: Place
    results: (
        Path | None
        # folder that outlives the session, or is the session's output; None: results lie where they
        # are
        # asked for
    )

    def out(self, path: str | Path) -> str:
        """Where results that a notebook calls `path` lie here: a relative path's last name in
        `results`; an absolute path stays."""
        return (
            str(path)
            if self.results is None or Path(path).is_absolute()
            else str(self.results / Path(path).name)
        )

    def earlier(self, out: str | Path) -> list[str]:
        """The results folders of this name among the inputs: outputs of earlier versions, for
        rk.run(…, attach=…)."""
        return [
            str(folder)
            for folder in inputs.holding("rows.jsonl", "runs.jsonl")
            if folder.name == Path(out).name
        ]


def prepare(drive: bool = False) -> Here:
    """Make this notebook's Python ready for realkit, print one line of where it runs, and say where
    results go.

    On Kaggle and Colab it installs what is missing or too old, and nothing else; anywhere else it
    installs nothing. `drive` mounts Google Drive as the results folder on Colab, where a mounted
    one is taken anyway. Raises RequestError where something needed cannot be had, or the kernel
    must be restarted.
    """
    place = place_here()
    hosted = place in ("Kaggle", "Colab")
    gpus = _gpus()
    internet = _internet() if hosted else None
    needed = wanted()
    installed: list[str] = []
    if hosted:
        installed += _kernels(bool(internet)) if gpus else []
        installed += _install(needed, bool(internet)) if needed else []
        _nothing_stale(installed)
    results = _results(place, drive)
    if place == "Colab":
        _hand_down()
    print(_line(place, gpus, results, internet, installed, [] if hosted else needed))
    return Here(place, results)


def require(*needs: str) -> None:
    """Install these as well, each as pip names it ("ray>=2.40"), where they are missing or too old;
    only on Kaggle and Colab, and as `prepare` does."""
    bounds = dict(need.split(">=") for need in needs)
    lacking = [
        f"{name}>={lowest}"
        for name, lowest in bounds.items()
        if numbers(_version(name) or "") < numbers(lowest)
    ]
    if lacking and place_here() in ("Kaggle", "Colab"):
        _nothing_stale(_install(lacking, _internet()))


def wanted() -> list[str]:
    """What is missing or too old, as pip names it, e.g. "diffusers>=0.42"."""
    bounds = {name: lowest for name, lowest in lower_bounds().items() if name not in RUNNING}
    return [
        f"{name}>={lowest}"
        for name, lowest in bounds.items()
        if numbers(_version(name) or "") < numbers(lowest)
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """The names of the GPUs that the driver sees."""
    try:
        return [gpu.name for gpu in seen_by_driver()[1]]
    except (OSError, subprocess.SubprocessError):  # an nvidia-smi that hangs or dies
        return []


def _kernels(internet: bool) -> list[str]:
    """Install the last torch for a GPU that this one has no kernels for; the packages installed.
    torch is asked in a process of its own."""
    facts = tried(["torch"]).get("torch", {}).get("facts")
    if facts is None or not (
        unserved := [
            gpu for gpu in facts["gpus"] if not has_kernels((gpu[1], gpu[2]), facts["archs"])
        ]
    ):
        return []
    name, *capability = unserved[0][:3]
    what = (
        f"{name} (capability {capability[0]}.{capability[1]}) has no kernels in torch"
        f" {facts['version']}"
    )
    if not CU126_SERVES[0] <= tuple(capability) < CU126_SERVES[1]:
        raise RequestError(f"{what}: choose the accelerator GPU T4 x2")
    if not internet:
        raise RequestError(
            f"{what}, and the internet is off: choose the accelerator GPU T4 x2, or turn the"
            " internet on, so that an older build can be installed"
        )
    if error := _pip(shlex.split(CU126_TORCH)[1:]):
        raise RequestError(
            f"{what}, and the build that has them cannot be installed: {error}. Choose the"
            " accelerator GPU T4 x2"
        )
    return ["torch", "torchvision"]


def _install(needed: list[str], internet: bool) -> list[str]:
    """Install what is needed, from attached wheels where they suffice, else from the index; the
    packages' names. pip resolves all before it installs any."""
    folders = sorted(
        {str(path.parent) for root in inputs.roots() for path in root.glob("**/*.whl")}
    )
    links = [f"--find-links={folder}" for folder in folders]
    bounds = lower_bounds()
    pins = [
        f"{name}=={have}"
        for name in KEPT
        if (have := _version(name)) and numbers(have) >= numbers(bounds.get(name, ""))
    ]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        given = ["install", "--constraint", str(constraints), *links, *needed]
        before = {name: _version(name) for name in bounds}
        error = _pip([*given, "--no-index"]) if folders or not internet else "-"
        if error and internet:
            error = _pip(given)
    if error:
        if not re.search(UNRESOLVED, error):
            mend = (
                "It may have installed a part: restart the session, see to what pip says, and run"
                " again"
            )
        elif not internet:
            mend = "Nothing was installed; turn the internet on, or attach a dataset with its wheel"
        elif error.startswith("No matching"):
            mend = (
                "Nothing was installed; the index does not answer or has none for this Python: run"
                " again, or try the latest image"
            )
        else:
            mend = (
                "Nothing was installed; it asks for another torch or numpy than the image's: try"
                " the latest image"
            )
        raise RequestError(f"{', '.join(needed)} cannot be installed: {error}. {mend}")
    names = [re.split(r"\W*>=", line)[0] for line in needed]
    _nothing_stale(
        [
            name
            for name, had in before.items()
            if name not in names and had and _version(name) != had
        ]
    )  # what came along
    return names


def _pip(arguments: list[str]) -> str:
    """Run pip; what went wrong in one line, "" where nothing did."""
    plain = [
        "--disable-pip-version-check",
        "--no-input",
        "--no-warn-conflicts",
        "--root-user-action=ignore",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, *plain],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    importlib.invalidate_caches()
    if done.returncode == 0:
        return ""
    lines = [
        line.removeprefix("ERROR:").strip()
        for line in (done.stdout + done.stderr).splitlines()
        if line.strip()
    ]
    errors = [
        line.removeprefix("ERROR:").strip()
        for line in (done.stdout + done.stderr).splitlines()
        if line.startswith("ERROR:")
    ]
    told = [line for line in lines if re.match(UNRESOLVED, line)]
    return (
        "; ".join(line.rstrip(".") for line in dict.fromkeys(told or errors[-1:] or lines[-1:]))[
            :300
        ]
        or f"pip ended with exit code {done.returncode}"
    )


def _nothing_stale(installed: list[str]) -> None:
    """Raise RequestError where something was installed whose older self this process has loaded."""
    if stale := [name for name in installed if MODULES.get(name, name) in sys.modules]:
        raise RequestError(
            f"{', '.join(stale)} had been imported before it was installed anew: restart the"
            " kernel, then run the notebook again"
        )


def _internet() -> bool:
    """Whether the hub answers, whatever it says."""

    def ask() -> bool:
        with suppress(HTTPError):
            urlopen(
                Request(
                    os.environ.get("HF_ENDPOINT", "https://huggingface.co"),
                    method="HEAD",
                    headers={"User-Agent": "realkit"},
                ),
                timeout=HUB_S,
            ).close()
        return True

    return bool(within(HUB_S + 1, ask))  # looking up a name knows no timeout of its own


def _results(place: Place, drive: bool) -> Path | None:
    if place == "Kaggle":
        return WORKING if WORKING.is_dir() else Path.cwd()
    if place != "Colab":
        return None
    if drive and not (DRIVE / "MyDrive").is_dir():
        _mount()
    return DRIVE / "MyDrive" / "realkit" if (DRIVE / "MyDrive").is_dir() else CONTENT


def _mount() -> None:
    try:
        from google.colab import drive

        drive.mount(str(DRIVE))
    except Exception as error:  # whatever the dialogue ends in; a local runtime has none
        raise RequestError(
            f"Google Drive cannot be mounted ({type(error).__name__}): allow it in Colab's"
            " dialogue, or prepare(drive=False)"
        ) from None


def _hand_down() -> None:
    """Put Colab's secrets into the environment: a notebook that papermill starts cannot ask for
    them."""
    for service in SERVICES:
        if credentials.token_source(service) == "Colab secrets" and (
            value := credentials.token(service)
        ):
            os.environ[NAMES[service][0]] = value
            _handed[service] = "Colab secrets"


_handed: dict[
    str, str
] = {}  # service → where its token came from, before it was put into the environment


def _line(
    place: Place,
    gpus: list[str],
    results: Path | None,
    internet: bool | None,
    installed: list[str],
    lacking: list[str],
) -> str:
    kinds = [
        f"{name} ×{gpus.count(name)}" if gpus.count(name) > 1 else name
        for name in dict.fromkeys(gpus)
    ]
    torch = _version("torch")
    found = [
        f"{shown} token from {_handed.get(service) or where}"
        for service, shown in SERVICES.items()
        if (where := credentials.token_source(service))
    ]
    facts = [
        "plain Python" if place == "plain" else place,
        *(kinds or ["no GPU"]),
        "Python {}.{}".format(*sys.version_info),
        f"torch {torch}" if torch else "no torch",
        f"{cache.free_bytes(results or Path.cwd()) / 1e9:.0f} GB free",
        *([] if internet is None else [f"internet {'on' if internet else 'off'}"]),
        *(found or ["no tokens"]),
    ]
    line = ", ".join(facts)
    if installed:
        line += f"; installed: {', '.join(f'{name} {_version(name)}' for name in installed)}"
    if lacking:
        line += f"; lacking: {', '.join(lacking)} (pip install -r requirements.txt)"
    return credentials.scrub(line)
