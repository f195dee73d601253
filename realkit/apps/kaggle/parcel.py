"""What travels to Kaggle: a wheel of this package and the wheels it needs, as a dataset; a notebook
with its parameters and metadata, as a kernel."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from realkit.apps.doctor import facts
from realkit.apps.notebooks import entries
from realkit.base import credentials
from realkit.base.credentials import NAMES
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.version import __version__

PACKAGE = Path(__file__).parents[2]
RUN = Path(__file__).parent / "run.ipynb"  # the notebook that runs a sweep
DATASET = "realkit-wheels"
TITLE = (5, 50)  # characters
# What Kaggle's image (Python 3.12) lacks or has too old, and all that these need in turn but for
# what any such image has: pure Python or small. Never torch.
# Each travels in the version that is installed here, so that a sweep gone on with next week meets
# the same ones.
OFFLINE = (
    "accelerate", "anyio", "click", "diffusers", "einops", "ftfy", "h11", "hf-xet", "httpcore2",
    "httpx2", "huggingface_hub", "idna", "importlib_metadata", "lazy-importer",
    "open_clip_torch", "peft", "regex", "safetensors", "spandrel", "timm", "tokenizers", "torchsde",
    "trampoline", "transformers", "truststore", "wcwidth", "zipp",
)  # fmt: skip
IMAGE = (
    "--python-version=3.12",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux2014_x86_64",
    "--only-binary=:all:",
    "--no-deps",
)
# machine_shape → what it is; the others of Kaggle's list are for competitions and staff
ACCELERATORS = {
    "NvidiaTeslaT4": "two T4 of 15 GB",
    "NvidiaL4": "L4",
    "NvidiaL4X1": "one L4",
    "NvidiaTeslaA100": "A100",
    "NvidiaH100": "H100",
    "NvidiaRtxPro6000": "RTX Pro 6000",
    "none": "no GPU",
}
HUB_TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_(?:oauth_)?[A-Za-z0-9]{30,}")  # anybody's
_WHEEL = "Wheel-Version: 1.0\nGenerator: realkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_ENTRY = "[console_scripts]\nrealkit = realkit.apps.cli.main:main\n"


def wheel(folder: Path) -> Path:
    """Write the wheel of this package as it stands, from a checkout or an installation alike. The
    same files give the same bytes."""
    path = folder / f"realkit-{__version__}-py3-none-any.whl"
    info = f"realkit-{__version__}.dist-info"
    needs = "".join(
        f"Requires-Dist: {name}>={lowest}\n" for name, lowest in facts.lower_bounds().items()
    )
    about = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: realkit\nVersion: {__version__}\nLicense:"
            f" MIT\nRequires-Python: >=3.11\n{needs}"
        ),
        f"{info}/WHEEL": _WHEEL,
        f"{info}/entry_points.txt": _ENTRY,
        f"{info}/licenses/LICENSE": _licence(),
    }
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in [
            *((name, found.read_bytes()) for name, found in _files()),
            *((name, text.encode()) for name, text in about.items()),
        ]:
            file.writestr(
                zipfile.ZipInfo(name),
                data,
                zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED,
            )
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
        file.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join([*record, f"{info}/RECORD,,\n"]))
    return path


def _files() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*")):
        within = path.relative_to(PACKAGE.parent)
        if path.is_file() and not any(
            part == "__pycache__" or part.startswith(".") for part in within.parts
        ):
            yield within.as_posix(), path


def _licence() -> str:
    if (beside := PACKAGE.parent / "LICENSE").is_file():
        return beside.read_text(encoding="utf-8")
    try:
        return distribution("realkit").read_text("licenses/LICENSE") or ""
    except PackageNotFoundError:
        return ""


def dataset(folder: Path, owner: str) -> str:
    """Put the wheels and dataset-metadata.json into a folder; the hash of the contents, which a
    file's name in it bears. Raises RequestError."""
    wheel(folder)
    _bring(folder)
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.whl"))
    }
    digest = hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
    (folder / f"contents-{digest}.txt").write_text(
        "".join(f"{sha}  {name}\n" for name, sha in sums.items()), encoding="utf-8"
    )
    metadata = {
        "id": f"{owner}/{DATASET}",
        "title": "realkit wheels",
        "licenses": [{"name": "other"}],
    }
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return digest


def _bring(folder: Path) -> None:
    """Download the wheels of OFFLINE for Kaggle's Python, in the versions that are installed
    here."""
    have = {}
    for name in OFFLINE:
        try:
            have[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            raise RequestError(
                f"{name} is not installed here, so its version for Kaggle is unknown: pip install"
                " -r requirements.txt"
            ) from None
    names = [f"{name}=={number}" for name, number in have.items()]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        *IMAGE,
        f"--dest={folder}",
        *names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RequestError(
            "The wheels for Kaggle cannot be downloaded:"
            f" {(told or done.stderr.splitlines() or ['pip failed'])[-1][:300]}"
        )


def plain(title: str) -> str:
    """A title in ASCII: Kaggle spells other letters out in the address by tables of its own
    ("größe" as "grosse")."""
    return unicodedata.normalize("NFKD", html.unescape(title)).encode("ascii", "ignore").decode()


def slug(title: str) -> str:
    """What Kaggle makes of a title in addresses, of one that is `plain`. Raises RequestError for
    one that it does not take."""
    found = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=\d),(?=\d)", "", title.lower())).strip("-")
    if not TITLE[0] <= len(title) <= TITLE[1] or len(found) < TITLE[0]:
        raise RequestError(
            f"title {shown(title)}: expected {TITLE[0]} to {TITLE[1]} characters, at least"
            f" {TITLE[0]} of them Latin letters or digits"
        )
    return found


def notebook(
    source: Path | None,
    parameters: Mapping[str, Any],
    sweep: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The notebook (None: the one that runs a sweep) with these parameters after its own, and with
    a sweep as its `sweep`, else each of its keys by name.

    One without a cell tagged `bootstrap` begins with ours: without it realkit is not there on
    Kaggle. Raises RequestError for a parameter that it does not have or that is of another kind,
    and for one that holds a secret.
    """
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    path = source or RUN
    try:
        found = load_notebook_node(str(path))
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise RequestError(
            f"Notebook {str(path)!r} cannot be read: {one_line(error)[:200]}"
        ) from None
    known = declared(found, path.name)
    if sweep:
        parameters = {**({"sweep": dict(sweep)} if "sweep" in known else sweep), **parameters}
    if unknown := [name for name in parameters if name not in known]:
        raise RequestError(
            f"{path.name} has no parameter {shown(unknown[0])}: expected one of"
            f" {', '.join(known) or 'none: it has no cell tagged parameters'}"
        )
    for name, value in parameters.items():
        entries.check(name, value, known[name], path.name)
    if not (
        found.cells and any("bootstrap" in cell.metadata.get("tags", []) for cell in found.cells)
    ):
        ours = load_notebook_node(str(RUN)).cells
        found.cells.insert(
            0, next(cell for cell in ours if "bootstrap" in cell.metadata.get("tags", []))
        )
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    made = (
        parameterize_notebook(
            found, dict(parameters), report_mode=False, kernel_name="python3", language="python"
        )
        if parameters
        else found
    )
    _without_secrets(parameters, nbformat.writes(made))
    made.metadata.pop("papermill", None)
    for cell in made.cells:
        cell.metadata.pop("papermill", None)
    return made


def declared(found: Any, where: str) -> dict[str, Any]:
    """The names that a notebook's cell tagged `parameters` sets, with their values as far as they
    are literal. Raises RequestError where it is not Python, or there are several."""
    cells = [
        cell.source
        for cell in found.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if (
        len(cells) > 1
    ):  # papermill puts what is given after the first: the others would take it back
        raise RequestError(
            f"{where} has {len(cells)} cells tagged 'parameters': tag the one that holds its"
            " settings"
        )
    return entries.assigned(cells[0], where) if cells else {}


def _without_secrets(parameters: Mapping[str, Any], text: str) -> None:
    for name, value in parameters.items():
        if credentials.holds_secret(f"{name}={value}") or credentials.holds_secret(
            json.dumps(value, default=str)
        ):
            raise RequestError(
                f"parameter {name!r} holds a secret: it would stand in the notebook. Leave it out,"
                " and add it on Kaggle: Add-ons > Secrets"
            )
    if HUB_TOKEN.search(text) or any(
        (value := credentials.token(service)) and value in text for service in NAMES
    ):
        raise RequestError(
            "The notebook holds an access token: take it out, and add it on Kaggle: Add-ons >"
            " Secrets"
        )


def kernel(
    folder: Path,
    made: Any,
    *,
    owner: str,
    title: str,
    accelerator: str,
    internet: bool,
    datasets: list[str],
    models: list[str],
    kernels: list[str],
    public: bool,
) -> str:
    """Write a notebook and kernel-metadata.json into a folder; the kernel's OWNER/SLUG. Raises
    RequestError for what Kaggle would refuse or change."""
    import nbformat

    name = f"{owner}/{slug(title)}"
    if "p100" in accelerator.lower():
        raise RequestError(
            f"accelerator {shown(accelerator)}: Kaggle has retired the P100 and would give T4s"
            " instead. Expected NvidiaTeslaT4, which is two T4"
        )
    if accelerator not in ACCELERATORS:
        raise RequestError(
            f"accelerator {shown(accelerator)}: expected one of {', '.join(ACCELERATORS)}"
        )
    for source, form, parts in (
        (datasets, "OWNER/SLUG", 2),
        (kernels, "OWNER/SLUG", 2),
        (models, "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION", 5),
    ):
        for ref in source:
            if (
                len(ref.split("/")) != parts
                or not all(ref.split("/"))
                or (parts == 5 and not ref.rpartition("/")[2].isdecimal())
            ):
                raise RequestError(
                    f"source {shown(ref)}: expected {form}, as in its address on Kaggle"
                )
    code_file = f"{slug(title)}.ipynb"
    metadata = {
        "id": name,
        "title": title,
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": not public,
        "enable_gpu": accelerator != "none",
        "enable_tpu": False,
        "enable_internet": internet,
        **({"machine_shape": accelerator} if accelerator != "none" else {}),
        "dataset_sources": datasets,
        "competition_sources": [],
        "kernel_sources": kernels,
        "model_sources": models,
        "keywords": [],
        "docker_image_pinning_type": (
            "original"
        ),  # the image of its first version: results of other library versions are not gone on with
    }
    nbformat.write(made, folder / code_file)
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return name
