"""A notebook or a sweep run on Kaggle: what it needs assembled and pushed by the official command,
waited for, and what it made merged here."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realkit.apps.kaggle import client, parcel
from realkit.apps.kaggle.client import KaggleError, Unreachable
from realkit.apps.kaggle.parcel import DATASET
from realkit.base import credentials
from realkit.base.errors import RequestError, shown
from realkit.runs import stopping

FOLDER = ".kaggle"  # below the results folder: what was assembled, and the logs
FIRST_S, LONGEST_S, GROWTH = 10.0, 60.0, 1.3  # waits between two questions
PATIENCE = 10  # questions in a row that may go unanswered
DATASET_S = 1800.0  # for Kaggle to unpack what was uploaded
GOING = ("queued", "running", "new_script")


@dataclass(frozen=True)
class Order:
    """What to run on Kaggle: a notebook, a sweep in the notebook made for that, or a notebook of
    one's own with what a sweep says.

    That one gets it as its parameter `sweep`, or, where it has none, each of the sweep's keys as
    the parameter of that name.
    """

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

    def kernel(self, owner: str) -> tuple[str, str]:
        """The kernel's OWNER/SLUG and its title. Raises RequestError where there is nothing to run,
        or no such title."""
        named = self.sweep or self.notebook
        if named is None:
            raise RequestError(
                "Expected a notebook, or --sweep SWEEP.yaml, which runs in a notebook of its own"
            )
        title = parcel.plain(self.title or f"realkit {named.stem}")
        return f"{owner}/{parcel.slug(title)}", title


def assemble(order: Order, out: Path, owner: str, previous: bool) -> tuple[str, str]:
    """Put what travels below out/.kaggle: kernel/ and dataset/; the kernel's OWNER/SLUG and the
    hash of the dataset. Raises RequestError."""
    name, title = order.kernel(owner)
    parameters = dict(order.parameters)
    if order.budget is not None:
        stopping.seconds(order.budget)
        parameters["budget"] = order.budget
    made = parcel.notebook(order.notebook, parameters, _sweep(order) if order.sweep else {})
    kernel, dataset = (_emptied(out / FOLDER / part) for part in ("kernel", "dataset"))
    parcel.kernel(
        kernel,
        made,
        owner=owner,
        title=title,
        accelerator=order.accelerator,
        internet=order.internet,
        public=order.public,
        models=list(order.models),
        datasets=[f"{owner}/{DATASET}", *order.datasets],
        kernels=[name] if previous else [],
    )
    return name, parcel.dataset(dataset, owner)


def _sweep(order: Order) -> dict[str, Any]:
    """A sweep file as a notebook's parameters. Raises RequestError for one that is wrong, or that
    names what cannot be had there."""
    from realkit.models.spec import MODELS
    from realkit.sweeps.sweep import Sweep
    from realkit.upscalers.table import UPSCALERS

    assert order.sweep is not None
    sweep = Sweep.from_yaml(order.sweep)
    cells = sweep.cells()
    named = {
        part for cell in cells for part in (cell.model, *(cell.upscaler or "").split(" + ")) if part
    }
    attached = [ref.lower() for ref in (*order.models, *order.datasets)]
    for name in sorted(named - MODELS.keys() - UPSCALERS.keys()):
        ref = name.removeprefix("kaggle:").strip("/").lower()
        if name.startswith("kaggle:"):
            if not any(
                f"{ref}/".startswith(f"{one}/") or one.startswith(f"{ref}/") for one in attached
            ):
                raise RequestError(
                    f"{shown(name)} is not attached: add --model"
                    " OWNER/MODEL/FRAMEWORK/VARIATION/VERSION, or --dataset OWNER/SLUG"
                )
        elif Path(name).expanduser().exists():
            raise RequestError(
                f"{shown(name)} is on this machine, and does not travel: upload it to Kaggle,"
                " --model or --dataset it, and name it kaggle:OWNER/SLUG/…"
            )
    far = sorted(
        name
        for name in {cell.model for cell in cells}
        if not name.startswith(("rehearsal/", "merge("))
    )
    if far and not order.internet and not attached:
        raise RequestError(
            f"{shown(far[0])} cannot be had without internet, and nothing is attached: add --model"
            " or --dataset, or leave --no-internet out"
        )
    return json.loads(sweep.model_dump_json(exclude_defaults=True))


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RequestError(
            f"{str(folder)!r} cannot be made: {error.strerror}. Give another --out"
        ) from None
    return folder


def push(order: Order, out: Path, say: Callable[[str], object]) -> str:
    """Assemble, upload what has changed, and start the kernel; its OWNER/SLUG. Raises RequestError
    before anything is uploaded, KaggleError after."""
    order.kernel("")
    owner = client.owner()
    if order.owner and order.owner != owner:
        raise RequestError(
            f"owner {shown(order.owner)}: the kaggle command is logged in as {owner!r}, expected"
            " the same"
        )
    kernel = order.kernel(owner)[0]
    before = client.state(kernel)
    if before and before[0] in GOING:
        raise RequestError(
            f"{kernel} is {before[0]} on Kaggle: wait for it (realkit kaggle fetch), or give"
            " another --title"
        )
    _, digest = assemble(order, out, owner, previous=bool(before) and order.resume)
    dataset = f"{owner}/{DATASET}"
    if (there := client.contents(dataset)) != digest:
        say(f"Uploading the wheels as {dataset}")
        client.upload(
            out / FOLDER / "dataset",
            new=there is None and not client.dataset_state(dataset),
            note=f"contents {digest}",
        )
    _ready(dataset)
    shutil.rmtree(out / FOLDER / "dataset")  # 120 MB, which are on Kaggle now
    try:
        page = client.push(out / FOLDER / "kernel")
    except KaggleError as error:
        hint = (
            ". Push with --no-resume to leave the previous version's output out"
            if "kernel sources" in str(error)
            else ""
        )
        begun = (
            f", after cancelling what it began all the same on https://www.kaggle.com/code/{kernel}"
            if "not valid" in str(error)
            else ""
        )
        raise KaggleError(f"{error}{hint}{begun}") from None
    attached = (
        ", with the output of its previous version attached" if before and order.resume else ""
    )
    say(f"Pushed {kernel}{attached}: {page}")
    return kernel


def _ready(dataset: str) -> None:
    began, wait, silent = time.monotonic(), FIRST_S / 5, 0
    while (state := client.dataset_state(dataset)) != "ready":
        silent = 0 if state else silent + 1
        if (
            state in ("failed", "deleted")
            or silent > PATIENCE
            or time.monotonic() - began > DATASET_S
        ):
            raise KaggleError(
                f"The dataset {dataset} is {state or 'unknown'} on Kaggle: look at its page, then"
                " push again"
            )
        time.sleep(wait)
        wait = min(wait * GROWTH, LONGEST_S)


def wait(kernel: str, say: Callable[[str], object]) -> tuple[str, str]:
    """Wait until a kernel has ended; its state and why it failed. Says each change. Raises
    KaggleError where Kaggle does not answer."""
    last, pause, silent, began = "", FIRST_S, 0, time.monotonic()
    while True:
        time.sleep(
            pause
        )  # the first question too: just after a push Kaggle may still speak of the version before
        try:
            found = client.state(kernel)
        except Unreachable:
            found = None
        silent = 0 if found else silent + 1
        if silent > PATIENCE:
            raise KaggleError(
                f"Kaggle does not say what {kernel} is doing: realkit kaggle fetch {kernel} asks"
                " again"
            )
        if found and found[0] not in (*GOING, "cancel_requested"):
            return found
        if found and found[0] != last:
            last, pause = found[0], FIRST_S
            say(f"{kernel} is {last} ({(time.monotonic() - began) / 60:.0f} min)")
        pause = min(pause * GROWTH, LONGEST_S)


def fetch(kernel: str, out: Path, say: Callable[[str], object]) -> None:
    """Download what the last version of a kernel left and merge its results folders into `out`; the
    log goes to out/.kaggle. Raises KaggleError where it failed."""
    from realkit.runs.combine import merge

    kernel = kernel.removeprefix("https://www.kaggle.com/code/").strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", kernel):
        raise RequestError(
            f"kernel {shown(kernel)}: expected OWNER/SLUG, as in its address on Kaggle"
        )
    state = client.state(kernel)
    if state is None:
        raise RequestError(f"{kernel} is not on Kaggle, or not this account's: look at its address")
    if state[0] in (*GOING, "cancel_requested"):
        raise KaggleError(f"{kernel} is still {state[0]}: fetch it when it has ended")
    logs = out / FOLDER
    folder = _emptied(logs / "output")
    try:
        client.output(kernel, folder)
    except KaggleError as error:
        if state[0] == "complete" or not state[1]:
            raise
        raise KaggleError(
            f"{kernel} ended with {state[0]}: {state[1]}. Its output cannot be had: {error}"
        ) from None
    log = _log(folder, logs)
    held = any((path.parent / "runs.jsonl").is_file() for path in folder.rglob("rows.jsonl"))
    if held:
        say(
            f"{merge(folder, out)} rows merged into {out}"
        )  # where it is refused, what was downloaded stays there
    shutil.rmtree(folder)
    if state[0] != "complete":
        raise KaggleError(
            f"{kernel} ended with {state[0]}: {state[1] or _last_error(log)}. The log: {logs}"
        )
    if not held:
        raise KaggleError(
            f"{kernel} made nothing: expected a results folder below /kaggle/working, with"
            f" rows.jsonl. The log: {logs}"
        )


def _log(folder: Path, logs: Path) -> str:
    """Keep the logs of a fetched output; what they say."""
    said = []
    for path in sorted(folder.glob("*.log")):
        text = path.read_text(encoding="utf-8", errors="replace")
        (logs / path.name).write_text(credentials.scrub(text), encoding="utf-8")
        said.append(_told(text))
    return "\n".join(said)


def _told(text: str) -> str:
    """What a log says: Kaggle's is a JSON list of pieces {"stream_name", "time", "data"}."""
    try:
        return "".join(str(piece.get("data", "")) for piece in json.loads(text))
    except (ValueError, TypeError, AttributeError):
        return text


def _last_error(log: str) -> str:
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in log.splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b.*", line)]
    return ([*[line for line in lines if line], *errors] or ["it says nothing"])[-1][:300]


def counted(out: Path) -> str:
    """How many cells of a results folder are in which state."""
    from realkit.runs.folder import read

    counts = read(out).table()["status"].value_counts()
    return ", ".join(f"{count} cells {status}" for status, count in counts.items())
