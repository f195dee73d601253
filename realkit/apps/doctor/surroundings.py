"""Judgements about Python, disks, memory, the hub, tokens and the place."""

from __future__ import annotations

from realkit.apps.doctor.builds import numbers
from realkit.apps.doctor.facts import Disk, Facts
from realkit.apps.doctor.finding import Judgements
from realkit.base.cache import CACHE
from realkit.base.credentials import NAMES, Service

SHOWN = 20  # inputs named
WANTED_GB = 10  # free on a disk; below 1 GB nothing can be made
PLACES = {
    "Kaggle": "a Kaggle notebook",
    "Colab": "Colab",
    "Jupyter": "a notebook",
    "plain": "an ordinary Python",
}
NEWER_PYTHON = {
    "Kaggle": "Notebook settings > Environment > Always use latest environment",
    "Colab": "Runtime > Change runtime type > Runtime version > Latest",
}
LOST: dict[Service, str] = {
    "huggingface": "gated models (Stable Diffusion 3) cannot be fetched",
    "civitai": "Civitai refuses many downloads",
}


def python(facts: Facts) -> Judgements:
    if numbers(facts.python) >= (3, 11):
        yield "ok", f"Python {facts.python}", ""
    else:
        fix = NEWER_PYTHON.get(facts.place, "make PYTHON=python3.12 demo")
        yield "failure", f"Python {facts.python}: realkit needs 3.11 or newer", fix


def disk(facts: Facts) -> Judgements:
    for place in facts.disks:
        free = f"{place.free_gb:.1f} GB" if place.free_gb >= 1 else f"{1000 * place.free_gb:.0f} MB"
        what = f"{free} free for {place.holds} ({place.path})"
        if place.free_gb >= WANTED_GB:
            yield "ok", what, ""
        elif place.free_gb >= 1:
            what += ": Stable Diffusion 1.5 in half precision takes 2.6 GB, SDXL 7 GB"
            yield "warning", what, _room(facts, place)
        else:
            yield "failure", f"{what}: nothing can be made", _room(facts, place)


def _room(facts: Facts, disk: Disk) -> str:
    """How to make room on a disk."""
    kaggle, ways = facts.place == "Kaggle", []
    if "results" in disk.holds:
        ways.append("delete old results folders or give --out on another disk")
    if "hub's cache" in disk.holds:
        move = "HF_HOME=FOLDER moves it to another disk"
        if kaggle:
            move = "HF_HOME=/tmp/huggingface keeps it out of /kaggle/working"
        ways.append(f"hf cache ls lists the hub's cache, hf cache rm empties it, {move}")
    if "downloads" in disk.holds:
        ways.append(f"{CACHE}=FOLDER moves the downloads to another disk")
    if kaggle:
        ways.append("/kaggle/working holds 20 GB in all")
    return "; ".join(ways)


def memory(facts: Facts) -> Judgements:
    free = facts.ram_free_gib
    if free is None:
        return
    what, fix = f"{free:.1f} GiB of RAM free", "Shut down other notebooks and programs"
    if facts.place == "Colab":
        fix += "; or Runtime > Change runtime type > High-RAM"
    if free < 1:
        yield "failure", f"{what}: torch and the smallest model take about one", fix
    elif free < 8:
        yield "warning", f"{what}: SDXL's weights pass through 7 GB of it", fix
    else:
        yield "ok", what, ""


def hub(facts: Facts) -> Judgements:
    if facts.hub == "reached":
        yield "ok", f"{facts.hub_host} answers", ""
    elif facts.hub == "offline":
        what = "HF_HUB_OFFLINE is set: only models in the cache, in folders or in the package load"
        yield "warning", what, "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE"
    else:
        fix = (
            "Check the network and the proxy; or give models as folders or files. The rehearsal"
            " models need no hub"
        )
        if facts.place == "Kaggle":
            fix = "Notebook settings > Internet > on; or attach the models: Add Input > Models"
        what = f"{facts.hub_host} cannot be reached: {facts.hub_error or 'no answer'}"
        yield "warning", what, fix


def tokens(facts: Facts) -> Judgements:
    for service, loss in LOST.items():
        if source := facts.tokens.get(service):
            yield "ok", f"{service}: from {source}", ""
            continue
        name = NAMES[service][0]
        plain = "hf auth login" if service == "huggingface" else f"export {name}=YOUR_TOKEN"
        ways = {
            "Kaggle": f"Add-ons > Secrets > {name}",
            "Colab": f"Key symbol at the left > {name}",
        }
        yield "warning", f"{service}: no token, so {loss}", ways.get(facts.place, plain)


def place(facts: Facts) -> Judgements:
    yield "ok", f"Runs in {PLACES[facts.place]}", ""
    if facts.inputs:
        names, more = ", ".join(facts.inputs[:SHOWN]), len(facts.inputs) - SHOWN
        yield "ok", f"Attached: {names}{f' and {more} more' if more > 0 else ''}", ""
    elif facts.place == "Kaggle":
        yield "ok", "No inputs attached", ""
