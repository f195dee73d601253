"""A notebook or a sweep run on Kaggle: assembled, pushed, awaited, fetched and merged."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from realkit.apps.kaggle import client, kernel, wheels
from realkit.apps.kaggle.client import KaggleError, Unreachable
from realkit.apps.kaggle.kernel import Order
from realkit.apps.kaggle.wheels import DATASET
from realkit.base import credentials, yaml_core
from realkit.base.door import expanded
from realkit.base.errors import RequestError, shown
from realkit.base.files import json_value
from realkit.models.spec import MODELS
from realkit.runs import stopping
from realkit.runs.combine import merge
from realkit.sweeps.sweep import Sweep
from realkit.upscalers.table import UPSCALERS

FOLDER = ".kaggle"  # below the results folder: what was assembled, and the logs
FIRST_S, LONGEST_S, GROWTH = 10.0, 60.0, 1.3  # waits between two questions
PATIENCE = 10  # questions in a row that may go unanswered
DATASET_S = 1800.0  # for Kaggle to unpack what was uploaded
BUSY = ("queued", "running", "new_script")
RUNNING = (*BUSY, "cancel_requested")
ATTACH_MODEL = "--model OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"
NOTICE = (
    "Likenesses of real people need their consent, and no safety filter sees the pictures:"
    " Kaggle's rules hold for your account."
)
Say = Callable[[str], object]


def assemble(order: Order, out: Path, owner: str, previous: bool) -> tuple[str, str]:
    """Write what travels to out/.kaggle: kernel/ and dataset/; the kernel's OWNER/SLUG and the
    hash of the dataset. Raises RequestError."""
    address, parameters = order.address(owner), dict(order.parameters)
    if order.budget is not None:
        stopping.seconds(order.budget)
        parameters["budget"] = order.budget
    book = kernel.notebook(order.notebook, parameters, _sweep(order) if order.sweep else {})
    kernel.check(order)
    kernel.write(_emptied(out / FOLDER / "kernel"), order, owner, book, previous)
    return address, wheels.dataset(_emptied(out / FOLDER / "dataset"), owner)


def written_parameters(assignments: Iterable[str]) -> dict[str, Any]:
    """The values of NAME=VALUE by name, each value read as YAML. Raises RequestError."""
    parameters: dict[str, Any] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise RequestError(f"parameter {name!r}: expected -p NAME=VALUE")
        if name in parameters:
            raise RequestError(f"duplicate parameter {name!r}: give it once")
        try:
            parameters[name] = yaml_core.parsed(value)
        except yaml_core.TooLarge as error:
            raise RequestError(f"parameter {name!r}: {error}") from None
        except (yaml.YAMLError, ValueError, RecursionError):
            raise RequestError(f"parameter {name!r}: its value is not YAML; quote it") from None
    return parameters


def _sweep(order: Order) -> dict[str, Any]:
    """A sweep file as parameters. Raises RequestError for names that Kaggle could not load."""
    assert order.sweep is not None
    sweep = Sweep.from_yaml(order.sweep)
    cells = sweep.cells()
    models = {cell.model for cell in cells}
    names = set(models)
    for cell in cells:
        names.update((cell.upscaler or "").split(" + "))
    attached = [source.lower() for source in (*order.models, *order.datasets)]
    for name in sorted(names - MODELS.keys() - UPSCALERS.keys() - {""}):
        _check_reachable(name, attached)
    if sweep.photographs and expanded(sweep.photographs).exists():
        raise RequestError(
            f"photographs {shown(sweep.photographs)} are on this machine, and do not travel: upload"
            " them as a Kaggle dataset, attach it with --dataset, and name /kaggle/input/SLUG"
        )
    if sweep.photographs and not sweep.photographs.startswith("/kaggle/input/"):
        raise RequestError(
            f"photographs {shown(sweep.photographs)}: on Kaggle they lie below /kaggle/input/, in a"
            " dataset attached with --dataset"
        )
    far = [name for name in sorted(models) if not name.startswith(("rehearsal/", "merge("))]
    if far and not order.internet and not attached:
        raise RequestError(
            f"{shown(far[0])} cannot be fetched without internet, and nothing is attached: add"
            " --model or --dataset, or leave --no-internet out"
        )
    return json.loads(sweep.model_dump_json(exclude_defaults=True))


def _check_reachable(name: str, attached: list[str]) -> None:
    """Raise RequestError for a mount that is not attached, and for a file of this machine."""
    if name.startswith("kaggle:"):
        mount = f"{name.removeprefix('kaggle:').strip('/').lower()}/"
        if not any(_same_mount(mount, f"{source}/") for source in attached):
            raise RequestError(
                f"{shown(name)} is not attached: add {ATTACH_MODEL}, or --dataset OWNER/SLUG"
            )
    elif expanded(name).exists():
        raise RequestError(
            f"{shown(name)} is on this machine, and does not travel: upload it to Kaggle, attach it"
            " with --model or --dataset, and name it kaggle:OWNER/SLUG/…"
        )


def _same_mount(mount: str, source: str) -> bool:
    return mount.startswith(source) or source.startswith(mount)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RequestError(
            f"{str(folder)!r} cannot be created: {error.strerror}. Give another --out"
        ) from None
    return folder


def push(order: Order, out: Path, say: Say) -> str:
    """Assemble, upload what has changed, and start the kernel; its OWNER/SLUG. Raises RequestError
    before anything is uploaded, KaggleError after."""
    order.address("")
    owner = client.owner()
    if order.owner and order.owner != owner:
        raise RequestError(
            f"owner {shown(order.owner)}: the kaggle command is logged in as {owner!r}, expected"
            " the same"
        )
    address = order.address(owner)
    state = client.state(address)
    if state and state[0] in BUSY:
        raise RequestError(
            f"{address} is {state[0]} on Kaggle: wait for it (realkit kaggle fetch), or give"
            " another --title"
        )
    previous = bool(state) and order.resume
    _, digest = assemble(order, out, owner, previous)
    say(NOTICE)
    _upload(f"{owner}/{DATASET}", out / FOLDER / "dataset", digest, say)
    shutil.rmtree(out / FOLDER / "dataset")  # 120 MB, which are on Kaggle now
    try:
        page = client.push(out / FOLDER / "kernel")
    except KaggleError as error:
        hint = ""
        if "kernel sources" in str(error):
            hint += ". Push with --no-resume to leave the previous version's output out"
        if "not valid" in str(error):  # Kaggle starts the kernel all the same
            hint += f", after cancelling the run on https://www.kaggle.com/code/{address}"
        raise KaggleError(f"{error}{hint}") from None
    attached = ", with the output of its previous version attached" if previous else ""
    say(f"Pushed {address}{attached}: {page}")
    return address


def _upload(dataset: str, folder: Path, digest: str, say: Say) -> None:
    """Upload the dataset where its contents have changed, and wait until Kaggle has unpacked it."""
    contents = client.contents(dataset)
    if contents != digest:
        say(f"Uploading the wheels as {dataset}")
        new = contents is None and not client.dataset_state(dataset)
        client.upload(folder, new, f"contents {digest}")
    began, pause, silent = time.monotonic(), FIRST_S / 5, 0
    while (state := client.dataset_state(dataset)) != "ready":
        silent = 0 if state else silent + 1
        late = time.monotonic() - began > DATASET_S
        if state in ("failed", "deleted") or silent > PATIENCE or late:
            raise KaggleError(
                f"The dataset {dataset} is {state or 'unknown'} on Kaggle: look at its page, then"
                " push again"
            )
        time.sleep(pause)
        pause = min(pause * GROWTH, LONGEST_S)


def wait(address: str, say: Say) -> tuple[str, str]:
    """Wait until a kernel has ended; its state and why it failed. Says each change. Raises
    KaggleError where Kaggle does not answer."""
    last, pause, silent, began = "", FIRST_S, 0, time.monotonic()
    while True:
        time.sleep(pause)  # first of all: just after a push Kaggle may report the version before
        pause = min(pause * GROWTH, LONGEST_S)
        try:
            state = client.state(address)
        except Unreachable:
            state = None
        silent = 0 if state else silent + 1
        if silent > PATIENCE:
            raise KaggleError(
                f"Kaggle does not report the state of {address}: ask again with realkit kaggle"
                f" fetch {address}"
            )
        if state and state[0] not in RUNNING:
            return state
        if state and state[0] != last:
            last, pause = state[0], FIRST_S
            say(f"{address} is {last} ({(time.monotonic() - began) / 60:.0f} min)")


def fetch(address: str, out: Path, say: Say) -> None:
    """Download the output of a kernel's last version and merge its results folders into `out`; the
    log goes to out/.kaggle. Raises KaggleError where the kernel failed."""
    address = address.removeprefix("https://www.kaggle.com/code/").strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", address):
        raise RequestError(
            f"kernel {shown(address)}: expected OWNER/SLUG, as in its address on Kaggle"
        )
    answer = client.state(address)
    if answer is None:
        raise RequestError(
            f"{address} is not on Kaggle, or belongs to another account: look at its address"
        )
    state, failure = answer
    if state in RUNNING:
        raise KaggleError(f"{address} is still {state}: fetch it when it has ended")
    logs = out / FOLDER
    folder = _emptied(logs / "output")
    try:
        client.output(address, folder)
    except KaggleError as error:
        if state == "complete" or not failure:
            raise
        raise KaggleError(
            f"{address} ended with {state}: {failure}. Its output cannot be fetched: {error}"
        ) from None
    log = _keep_logs(folder, logs)
    has_results = any((path.parent / "runs.jsonl").is_file() for path in folder.rglob("rows.jsonl"))
    if has_results:  # where the merge is refused, the download stays
        say(f"{merge(folder, out)} rows merged into {out}")
    shutil.rmtree(folder)
    if state != "complete":
        reason = failure or _last_error(log)
        raise KaggleError(f"{address} ended with {state}: {reason}. The log: {logs}")
    if not has_results:
        raise KaggleError(
            f"{address} made nothing: expected a results folder below /kaggle/working, with"
            f" rows.jsonl. The log: {logs}"
        )


def _keep_logs(folder: Path, logs: Path) -> str:
    """Copy the logs of a fetched output without secrets; their text."""
    texts = []
    for path in sorted(folder.glob("*.log")):
        text = path.read_text(encoding="utf-8", errors="replace")
        (logs / path.name).write_text(credentials.scrub(text), encoding="utf-8")
        texts.append(_log_text(text))
    return "\n".join(texts)


def _log_text(text: str) -> str:
    """A log's text: Kaggle's is a JSON list of pieces {"stream_name", "time", "data"}."""
    try:
        return "".join(str(piece.get("data", "")) for piece in json_value(text))
    except (ValueError, TypeError, AttributeError):
        return text


def _last_error(log: str) -> str:
    """The last line of a log that names an exception, else its last line."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", log)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return ["the log is empty", *lines, *errors][-1][:300]
