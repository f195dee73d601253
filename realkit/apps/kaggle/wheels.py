"""The dataset that Kaggle installs realkit from: our wheel and the wheels it needs."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from realkit.apps.doctor.facts import lower_bounds
from realkit.apps.notebooks.bootstrap import uncoloured
from realkit.base.errors import RequestError
from realkit.base.version import __version__

PACKAGE = Path(__file__).parents[2]
DATASET = "realkit-wheels"
# What Kaggle's image (Python 3.12) lacks or has too old, with all that these need and not every
# such image has: pure Python or small, never torch. Each travels in the version installed here, so
# that a sweep that is resumed next week meets the same versions.
OFFLINE = (
    "accelerate", "anyio", "click", "diffusers", "einops", "ftfy", "h11", "hf-xet", "httpcore2",
    "httpx2", "huggingface_hub", "idna", "importlib_metadata", "lazy-importer", "nvidia-ml-py",
    "open_clip_torch", "regex", "safetensors", "spandrel", "timm", "tokenizers", "torchsde",
    "trampoline", "transformers", "truststore", "wcwidth", "zipp",
)  # fmt: skip
DOWNLOAD = (
    "download", "--quiet", "--disable-pip-version-check", "--no-input", "--python-version=3.12",
    "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64", "--only-binary=:all:",
    "--no-deps",
)  # fmt: skip
WHEEL = "Wheel-Version: 1.0\nGenerator: realkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
ENTRY_POINTS = "[console_scripts]\nrealkit = realkit.apps.cli.main:main\n"
METADATA = f"""\
Metadata-Version: 2.1
Name: realkit
Version: {__version__}
License: MIT
Requires-Python: >=3.11
"""


def wheel(folder: Path) -> Path:
    """Write the wheel of this package. The same files give the same bytes."""
    info = f"realkit-{__version__}.dist-info"
    needs = [f"Requires-Dist: {name}>={lowest}\n" for name, lowest in lower_bounds().items()]
    members = _package_files() | {
        f"{info}/METADATA": (METADATA + "".join(needs)).encode(),
        f"{info}/WHEEL": WHEEL.encode(),
        f"{info}/entry_points.txt": ENTRY_POINTS.encode(),
        f"{info}/licenses/LICENSE": _licence().encode(),
    }
    path, record = folder / f"realkit-{__version__}-py3-none-any.whl", ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in members.items():
            stored = name.endswith(".safetensors")  # weights do not compress
            method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(name), data, method)  # ZipInfo: always the same date
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        file.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
    return path


def _package_files() -> dict[str, bytes]:
    """The package's files by their name in the wheel, without its pages about the source."""
    files = {}
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE.parent)
        hidden = any(part == "__pycache__" or part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".md":
            files[name.as_posix()] = path.read_bytes()
    return files


def _licence() -> str:
    beside = PACKAGE.parent / "LICENSE"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    try:
        return distribution("realkit").read_text("licenses/LICENSE") or ""
    except PackageNotFoundError:
        return ""


def dataset(folder: Path, owner: str) -> str:
    """Put the wheels and dataset-metadata.json into a folder; the hash of its contents, which the
    name of a file in it bears. Raises RequestError."""
    wheel(folder)
    _download(folder)
    sums = {}
    for path in sorted(folder.glob("*.whl")):
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
    lines = [f"{sha}  {name}\n" for name, sha in sums.items()]
    (folder / f"contents-{digest}.txt").write_text("".join(lines), encoding="utf-8")
    metadata = {
        "id": f"{owner}/{DATASET}",
        "title": "realkit wheels",
        "licenses": [{"name": "other"}],
    }
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return digest


def _download(folder: Path) -> None:
    """Download the wheels of OFFLINE for Kaggle's Python, in the versions installed here."""
    needs = []
    for name in OFFLINE:
        try:
            needs.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            raise RequestError(
                f"{name} is not installed here, so its version for Kaggle is unknown: pip install"
                " -r requirements.txt"
            ) from None
    command = [sys.executable, "-m", "pip", *DOWNLOAD, f"--dest={folder}", *needs]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=uncoloured()
    )
    if done.returncode:
        lines = done.stderr.splitlines() or ["pip failed"]
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or lines)[-1][:300]
        raise RequestError(f"The wheels for Kaggle cannot be downloaded: {reason}")
