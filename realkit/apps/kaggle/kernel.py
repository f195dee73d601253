"""What runs on Kaggle: a notebook with its parameters and metadata, as a kernel."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from realkit.apps.kaggle.wheels import DATASET
from realkit.apps.notebooks.parameters import assigned, check_value, parameters_cell
from realkit.base import credentials
from realkit.base.credentials import NAMES
from realkit.base.door import worded
from realkit.base.errors import RequestError, shown
from realkit.base.suggest import instead

RUN = Path(__file__).parent / "run.ipynb"  # the notebook that runs a sweep
TITLE = (5, 50)  # characters
# NvidiaTeslaT4 is two T4 of 15 GB. The others of Kaggle's list are for competitions and staff.
ACCELERATORS = (
    "NvidiaTeslaT4", "NvidiaL4", "NvidiaL4X1", "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000",
    "none",
)  # fmt: skip
SLUG = re.compile(r"[^/]+/[^/]+")
MODEL = re.compile(r"([^/]+/){4}\d+")
HUB_TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_(?:oauth_)?[A-Za-z0-9]{30,}")  # anybody's


@dataclass(frozen=True)
class Order:
    """What to run on Kaggle: a notebook, a sweep (in our own notebook for sweeps), or a notebook
    that takes a sweep: as its parameter `sweep`, or else one parameter a key."""

    notebook: Path | None = None
    sweep: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    owner: str = ""
    accelerator: str = "NvidiaTeslaT4"
    internet: bool = True
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    resume: bool = True  # attach the output of its previous version, where there is one
    public: bool = False
    budget: str | None = None

    def plain_title(self) -> str:
        """The title as pushed. Raises RequestError where there is nothing to run."""
        file = self.sweep or self.notebook
        if file is None:
            raise RequestError(
                "Expected a notebook, or --sweep SWEEP.yaml, which runs in a notebook of its own"
            )
        return plain(self.title or f"realkit {file.stem}")

    def address(self, owner: str) -> str:
        """The kernel's OWNER/SLUG. Raises RequestError for a title that Kaggle refuses."""
        return f"{owner}/{slug(self.plain_title())}"


def plain(title: str) -> str:
    """A title in ASCII: Kaggle would spell other letters by tables of its own (ß as ss)."""
    return unicodedata.normalize("NFKD", html.unescape(title)).encode("ascii", "ignore").decode()


def slug(title: str) -> str:
    """A `plain` title in an address, as Kaggle spells it. Raises RequestError for a bad title."""
    without_separators = re.sub(r"(?<=\d),(?=\d)", "", title.lower())
    address = re.sub(r"[^a-z0-9]+", "-", without_separators).strip("-")
    if not TITLE[0] <= len(title) <= TITLE[1] or len(address) < TITLE[0]:
        raise RequestError(
            f"title {shown(title)}: expected {TITLE[0]} to {TITLE[1]} characters, at least"
            f" {TITLE[0]} of them Latin letters or digits"
        )
    return address


def notebook(
    source: Path | None,
    parameters: Mapping[str, Any],
    sweep: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The notebook (None: our own, which runs a sweep) with these parameters after its own. A sweep
    becomes its parameter `sweep`, or, where it has no such parameter, one parameter a key.

    A notebook without a cell tagged `bootstrap` gets ours, which installs realkit on Kaggle. Raises
    RequestError for an unknown parameter, an invalid value, and a secret.
    """
    import nbformat
    from papermill.parameterize import parameterize_notebook

    path = source or RUN
    book = _loaded(path)
    cell = parameters_cell(book.cells, path.name)
    defaults = {} if cell is None else assigned(cell, path.name)
    if sweep:
        settings = {"sweep": dict(sweep)} if "sweep" in defaults else sweep
        parameters = {**settings, **parameters}
    for name, value in parameters.items():
        if name not in defaults:
            hint = ": it has no cell tagged parameters"
            if defaults:
                hint = instead(name, defaults)
            raise RequestError(f"{path.name} has no parameter {shown(name)}{hint}")
        check_value(name, value, defaults[name], path.name)
    if not _bootstraps(book):
        book.cells.insert(0, _bootstraps(_loaded(RUN))[0])
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if parameters:
        book = parameterize_notebook(
            book, dict(parameters), report_mode=False, kernel_name="python3", language="python"
        )
    _check_secrets(parameters, nbformat.writes(book))
    for part in (book, *book.cells):
        part.metadata.pop("papermill", None)
    return book


def _loaded(path: Path) -> Any:
    from papermill.iorw import load_notebook_node

    with worded(f"Notebook {str(path)!r} cannot be read"):
        return load_notebook_node(str(path))


def _bootstraps(book: Any) -> list[Any]:
    """The cells tagged `bootstrap`."""
    return [cell for cell in book.cells if "bootstrap" in cell.metadata.get("tags", [])]


def _check_secrets(parameters: Mapping[str, Any], text: str) -> None:
    """Raise RequestError for a secret in the parameters, or a token in the notebook's text."""
    for name, value in parameters.items():
        texts = (f"{name}={value}", json.dumps(value, default=str))
        if any(map(credentials.holds_secret, texts)):
            raise RequestError(
                f"parameter {name!r} holds a secret, which would be stored in the notebook: leave"
                " it out, and add it on Kaggle: Add-ons > Secrets"
            )
    own = [token for token in map(credentials.token, NAMES) if token]
    if HUB_TOKEN.search(text) or any(token in text for token in own):
        raise RequestError(
            "The notebook holds an access token: take it out, and add it on Kaggle: Add-ons >"
            " Secrets"
        )


def check(order: Order) -> None:
    """Raise RequestError for an order that Kaggle would refuse or change."""
    machine = f"accelerator {shown(order.accelerator)}"
    if "p100" in order.accelerator.lower():
        raise RequestError(
            f"{machine}: Kaggle has retired the P100 and would give T4s instead. Expected"
            " NvidiaTeslaT4, which is two T4"
        )
    if order.accelerator not in ACCELERATORS:
        raise RequestError(f"{machine}: expected one of {', '.join(ACCELERATORS)}")
    _check_sources(order.datasets, SLUG, "OWNER/SLUG")
    _check_sources(order.models, MODEL, "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION")


def _check_sources(references: Iterable[str], form: re.Pattern[str], wanted: str) -> None:
    for reference in references:
        if not form.fullmatch(reference):
            raise RequestError(
                f"source {shown(reference)}: expected {wanted}, as in its address on Kaggle"
            )


def write(folder: Path, order: Order, owner: str, book: Any, previous: bool) -> None:
    """Write the notebook and kernel-metadata.json of a checked order into a folder. `previous`
    attaches the output of the kernel's previous version."""
    import nbformat

    address, gpu = order.address(owner), order.accelerator != "none"
    code_file = f"{address.rpartition('/')[2]}.ipynb"
    metadata = {
        "id": address,
        "title": order.plain_title(),
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": not order.public,
        "enable_gpu": gpu,
        "enable_tpu": False,
        "enable_internet": order.internet,
        **({"machine_shape": order.accelerator} if gpu else {}),
        "dataset_sources": [f"{owner}/{DATASET}", *order.datasets],
        "competition_sources": [],
        "kernel_sources": [address] if previous else [],
        "model_sources": list(order.models),
        "keywords": [],
        # The image of the first version: results of other library versions are not resumed.
        "docker_image_pinning_type": "original",
    }
    nbformat.write(book, folder / code_file)
    text = json.dumps(metadata, indent=1)
    (folder / "kernel-metadata.json").write_text(text, encoding="utf-8")
