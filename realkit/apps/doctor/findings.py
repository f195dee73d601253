"""Preflight: what a machine's facts mean for making pictures, and how to mend what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from realkit.apps.doctor.facts import NOTEBOOKS, USED, Facts
from realkit.base.cache import CACHE
from realkit.base.credentials import NAMES, Service
from realkit.base.device import has_kernels

WHEELS = "https://download.pytorch.org/whl"
# The last CUDA with kernels for capability 5.0 to 7.0. The "+cu126" is needed: pip takes an
# installed 2.10.0+cu128 for 2.10.0 and does nothing.
CU126_TORCH = (
    f"pip install torch==2.10.0+cu126 torchvision==0.25.0+cu126 --index-url {WHEELS}/cu126"
)
NEW_TORCH = "pip uninstall -y torch torchvision && pip install torch torchvision"
CUDA_NEEDS_DRIVER = {
    11: 450,
    12: 525,
    13: 580,
}  # NVIDIA's minor version compatibility: CUDA's major version → oldest driver
SMALL_GPU = 4  # GiB; with less, Stable Diffusion 1.5 leaves too little to work in
SHOWN = 20  # inputs named
# from torch 2.14 on, torchvision (0.29.1) asks for a torch at least as new, no longer for exactly
# one
LOWER_BOUND = 14


@dataclass(frozen=True)
class Finding:
    """A judgement. A failure means that pictures cannot be made or enlarged; whatever is not ok
    says in `mend` what to run or to set."""

    level: Literal["ok", "warning", "failure"]
    topic: str
    what: str
    mend: str = ""


def findings(facts: Facts) -> list[Finding]:
    """What the facts mean, one topic after the other."""
    topics = (
        _python,
        _gpu,
        _libraries,
        _torchvision,
        _imports,
        _optional,
        _disk,
        _memory,
        _hub,
        _tokens,
        _place,
    )
    return [finding for topic in topics for finding in topic(facts)]


def passes(found: list[Finding]) -> bool:
    """Whether the main job, making pictures and enlarging them, can run."""
    return all(finding.level != "failure" for finding in found)


def _python(facts: Facts) -> Iterator[Finding]:
    if numbers(facts.python) < (3, 11):
        newer = {
            "Kaggle": "Notebook settings > Environment > Always use latest environment",
            "Colab": "Runtime > Change runtime type > Runtime version > Latest",
        }
        mend = newer.get(facts.place, "make PYTHON=python3.12 demo")
        yield Finding(
            "failure", "python", f"Python {facts.python}: realkit needs 3.11 or newer", mend
        )
    else:
        yield Finding("ok", "python", f"Python {facts.python}")


def _gpu(facts: Facts) -> Iterator[Finding]:
    if facts.versions.get("torch") is None or "torch" in facts.broken:
        return
    for number, gpu in enumerate(facts.gpus):
        named = f"{gpu.name}, {gpu.memory_gib:.1f} GiB" if gpu.memory_gib else gpu.name
        capability = gpu.capability or (0, 0)
        dotted = f"capability {capability[0]}.{capability[1]}"
        if has_kernels(capability, list(facts.archs)):
            native = (
                "bf16 is native"
                if capability >= (8, 0)
                else "no native bf16: half precision is float16"
            )
            yield Finding(
                "ok",
                "gpu",
                f"{named}, {dotted}, has kernels in torch {facts.versions['torch']}; {native}",
            )
            if number == 0 and gpu.memory_gib and gpu.memory_gib < SMALL_GPU:
                what = (
                    f"{gpu.name} has {gpu.memory_gib:.1f} GiB of memory: Stable Diffusion 1.5 in"
                    " half precision takes 2.6 GB of it before it begins"
                )
                yield Finding(
                    "warning",
                    "gpu",
                    what,
                    "The rehearsal models; or --rung group-offload (in Python"
                    ' rung="group-offload"), which keeps one layer at a time there',
                )
        else:
            what = (
                f"{named}, {dotted}: torch calls it available, but {facts.versions['torch']} has"
                f" kernels for {', '.join(facts.archs) or 'none'} only"
            )
            if number == 0:
                yield Finding(
                    "failure",
                    "gpu",
                    f"{what}, so its first operation would die, and realkit leaves it idle",
                    _kernels_mend(facts),
                )
            else:
                yield Finding("warning", "gpu", what, "CUDA_VISIBLE_DEVICES=0 leaves this GPU out")
    if len(facts.gpus) > 1:
        yield Finding(
            "ok",
            "gpu",
            f"{len(facts.gpus)} GPUs: a process uses the first; CUDA_VISIBLE_DEVICES=1 gives"
            " another process the second",
        )
    if not facts.gpus:
        yield _no_gpu(facts)


def _no_gpu(facts: Facts) -> Finding:
    if not facts.driver_gpus:
        return Finding(
            "warning",
            "gpu",
            "No GPU: rehearsal models run in a minute, Stable Diffusion 1.5 takes minutes a"
            " picture",
            {
                "Kaggle": "Notebook settings > Accelerator > GPU T4 x2",
                "Colab": "Runtime > Change runtime type > T4 GPU",
            }.get(
                facts.place,
                "Run on a machine with an NVIDIA GPU: Kaggle's and Colab's T4 cost nothing",
            ),
        )
    seen, cuda, driver = facts.driver_gpus[0], facts.torch_cuda, numbers(facts.driver or "")
    if cuda is None:
        what = (
            f"{seen.name} is there, but torch {facts.versions['torch']} is built for the CPU: the"
            " GPU stays idle"
        )
        return Finding(
            "warning",
            "gpu",
            what,
            _restarted(facts, NEW_TORCH if (seen.capability or (0, 0)) >= (10, 0) else CU126_TORCH),
        )
    if facts.visible is not None and facts.visible.strip() in ("", "-1"):
        return Finding(
            "warning",
            "gpu",
            f"{seen.name} is hidden by CUDA_VISIBLE_DEVICES={facts.visible!r}",
            "unset CUDA_VISIBLE_DEVICES",
        )
    oldest = CUDA_NEEDS_DRIVER.get(numbers(cuda)[0], 0)
    if driver and driver[0] < oldest:
        fits = driver[0] >= CUDA_NEEDS_DRIVER[12]
        mend = (
            _restarted(facts, CU126_TORCH)
            if fits
            else f"Update the NVIDIA driver to {oldest} or newer"
        )
        return Finding(
            "warning",
            "gpu",
            f"{seen.name} has driver {facts.driver}; torch's CUDA {cuda} needs {oldest} or newer,"
            " so the GPU stays idle",
            mend,
        )
    what = (
        f"{seen.name} is there, but torch cannot use it: {facts.cuda_error or 'it names no reason'}"
    )
    return Finding(
        "warning",
        "gpu",
        what,
        "Restart the notebook's session or the machine; nvidia-smi should then list the GPU",
    )


def _kernels_mend(facts: Facts) -> str:
    capability = facts.gpus[0].capability or (0, 0)
    if capability >= (7, 5):  # newer than the build
        return _restarted(facts, NEW_TORCH)
    mend = (
        _restarted(facts, CU126_TORCH)
        if capability >= (5, 0)
        else "Take another GPU, or CUDA_VISIBLE_DEVICES=-1 for the CPU"
    )
    return (
        f"Notebook settings > Accelerator > GPU T4 x2; or {mend}"
        if facts.place == "Kaggle"
        else mend
    )


def _restarted(facts: Facts, line: str) -> str:
    return line if facts.place == "plain" else f"{line}   (then restart the notebook's kernel)"


def _libraries(facts: Facts) -> Iterator[Finding]:
    missing = [name for name in facts.required if facts.versions.get(name) is None]
    if needed := [name for name in missing if name not in NOTEBOOKS]:
        yield Finding(
            "failure",
            "libraries",
            f"Not installed, and nothing is made without: {', '.join(needed)}",
            _install(facts, needed),
        )
    if wanted := [name for name in missing if name in NOTEBOOKS]:
        yield Finding(
            "warning",
            "libraries",
            f"Not installed, and the notebooks need it: {', '.join(wanted)}",
            _install(facts, wanted),
        )
    old = [
        name
        for name, lowest in facts.required.items()
        if (v := facts.versions.get(name)) and numbers(v) < numbers(lowest)
    ]
    for name in old:
        what = f"{name} {facts.versions[name]}: realkit is made for {facts.required[name]} or newer"
        if (
            name == "diffusers"
            and _version(facts, "diffusers") < (0, 41)
            and _version(facts, "transformers") >= (5, 6)
        ):
            what += (
                f", and with transformers {facts.versions['transformers']} this one cannot read"
                " single-file Stable Diffusion 1 checkpoints"
            )
        yield Finding(
            "warning",
            "libraries",
            what,
            _install(
                facts, ["torch", "torchvision"] if name in ("torch", "torchvision") else [name]
            ),
        )
    if not missing and not old:
        yield Finding(
            "ok",
            "libraries",
            ", ".join(f"{name} {facts.versions[name]}" for name in facts.required if name in USED),
        )


def _install(facts: Facts, names: list[str]) -> str:
    return "pip install --upgrade " + " ".join(
        f'"{name}>={facts.required[name]}"' if name in facts.required else name for name in names
    )


def _torchvision(facts: Facts) -> Iterator[Finding]:
    torch, vision = facts.versions.get("torch"), facts.versions.get("torchvision")
    if torch is None or vision is None or "torch" in facts.broken:
        return
    if not _vision_fails(facts):
        yield Finding(
            "ok", "torchvision", f"torchvision {vision} fits torch {torch}, and its operators work"
        )
        return
    what = f"torchvision {vision} does not fit torch {torch}"
    if not _paired(torch, vision, facts.torchvision_needs):
        what += f": it needs torch {facts.torchvision_needs or f'2.{numbers(vision)[1] - 15}'}"
    for name, error in facts.broken.items():
        what += f"; import {USED[name][0]} fails: {error}"
    unserved = facts.gpus and not has_kernels(facts.gpus[0].capability or (0, 0), list(facts.archs))
    yield Finding(
        "failure",
        "torchvision",
        what,
        _kernels_mend(facts) if unserved else _restarted(facts, _partner(torch)),
    )


def _vision_fails(facts: Facts) -> bool:
    torch, vision = facts.versions.get("torch"), facts.versions.get("torchvision")
    return bool(torch and vision) and (
        "torchvision" in facts.broken
        or not _paired(torch or "", vision or "", facts.torchvision_needs)
    )


def _paired(torch: str, vision: str, needs: str | None) -> bool:
    """Whether torchvision's own requirement is met (an exact one in its first two numbers); without
    one, whether torch 2.N stands beside 0.(N + 15)."""
    have = numbers(torch)  # "2.10.0+cu128" stands for 2.10.0
    bounds = re.findall(r"(==|>=|<=|<|>)\s*([\d.]+)", needs or "")
    if not bounds:
        minor = numbers(vision)[1:2]
        return (
            have[:1] != (2,)
            or minor == (have[1] + 15,)
            or (have[1] > LOWER_BOUND and minor >= (LOWER_BOUND + 15,))
        )
    compare: dict[str, Callable[[tuple[int, ...]], bool]] = {
        "==": lambda b: have[:2] == b[:2],
        ">=": lambda b: have >= b,
        "<=": lambda b: have <= b,
        "<": lambda b: have < b,
        ">": lambda b: have > b,
    }
    return all(compare[sign](numbers(bound)) for sign, bound in bounds)


def _partner(torch: str) -> str:
    """The line that installs the torchvision of this torch, from the wheels of the same CUDA, and
    leaves torch alone."""
    major, minor = numbers(torch)[:2]
    if major != 2:
        return NEW_TORCH
    wanted = (
        f"torchvision==0.{minor + 15}.*"
        if minor < LOWER_BOUND
        else f"torchvision>=0.{LOWER_BOUND + 15}"
    )
    label = re.search(r"\+(cu\d+|cpu)$", torch)
    return f'pip install --force-reinstall --no-deps "{wanted}"' + (
        f" --index-url {WHEELS}/{label[1]}" if label else ""
    )


def _imports(facts: Facts) -> Iterator[Finding]:
    if "torch" in facts.broken:  # everything else needs it
        yield Finding(
            "failure",
            "imports",
            f"import torch fails: {facts.broken['torch']}",
            _restarted(facts, NEW_TORCH),
        )
    elif not _vision_fails(facts):  # transformers and what builds on it fail for the same reason
        for name, error in facts.broken.items():
            again = (
                f'pip install --force-reinstall --no-deps "{name}>={facts.required.get(name, "0")}"'
            )
            mend = f"{_install(facts, [name])}   (if that changes nothing: {again})"
            yield Finding("failure", "imports", f"import {USED[name][0]} fails: {error}", mend)


def _optional(facts: Facts) -> Iterator[Finding]:
    if (peft := facts.versions.get("peft")) is None or numbers(peft) < (0, 17):
        what = (
            f"peft {peft or 'is not installed'}: models that are a LoRA (LCM, Hyper-SD) do not load"
        )
        yield Finding("warning", "optional", what, 'pip install --upgrade "peft>=0.17"')
    if (
        facts.versions.get("xformers")
        and facts.gpus
        and (facts.gpus[0].capability or (0, 0)) < (7, 0)
    ):
        yield Finding(
            "warning",
            "optional",
            f"xformers has no kernels for {facts.gpus[0].name}: attention that uses it dies",
            "pip uninstall -y xformers",
        )
    engine = [name for name in ("basicsr", "realesrgan") if facts.versions.get(name)]
    if engine and _version(facts, "torchvision") >= (0, 17):
        what = (
            f"{' and '.join(engine)} (an optional engine) import"
            " torchvision.transforms.functional_tensor, which torchvision 0.17 removed"
        )
        alias = (
            'sys.modules["torchvision.transforms.functional_tensor"] ='
            " torchvision.transforms.functional"
        )
        yield Finding(
            "warning",
            "optional",
            what,
            f"Before basicsr is imported: import sys, torchvision.transforms.functional; {alias}",
        )
    if facts.place == "Colab" and _version(facts, "ipywidgets")[:1] == (7,):
        yield Finding(
            "ok",
            "optional",
            f"ipywidgets {facts.versions['ipywidgets']}, Colab's own: its core widgets are enough",
        )


def _disk(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        what = f"{disk.free_gb:.1f} GB free for {disk.holds} ({disk.path})"
        if disk.free_gb >= 10:
            yield Finding("ok", "disk", what)
            continue
        ways = (
            ["delete old results folders or give --out on another disk"]
            if "results" in disk.holds
            else []
        )
        if "hub's cache" in disk.holds:
            other = (
                "HF_HOME=/tmp/huggingface keeps it out of /kaggle/working"
                if facts.place == "Kaggle"
                else "HF_HOME=FOLDER moves it to another disk"
            )
            ways.append(f"hf cache ls lists the hub's cache, hf cache rm empties it, {other}")
        if "downloads" in disk.holds:
            ways.append(f"{CACHE}=FOLDER moves the downloads to another disk")
        limit = "; /kaggle/working holds 20 GB in all" if facts.place == "Kaggle" else ""
        level: Literal["warning", "failure"] = "failure" if disk.free_gb < 1 else "warning"
        short = (
            "nothing can be made"
            if level == "failure"
            else "Stable Diffusion 1.5 in half precision takes 2.6 GB, SDXL 7 GB"
        )
        yield Finding(level, "disk", f"{what}: {short}", "; ".join(ways) + limit)


def _memory(facts: Facts) -> Iterator[Finding]:
    free = facts.ram_free_gib
    mend = "Shut down other notebooks and programs" + (
        "; or Runtime > Change runtime type > High-RAM" if facts.place == "Colab" else ""
    )
    if free is not None and free < 1:
        yield Finding(
            "failure",
            "memory",
            f"{free:.1f} GiB of RAM free: torch and the smallest model take about one",
            mend,
        )
    elif free is not None and free < 8:
        yield Finding(
            "warning",
            "memory",
            f"{free:.1f} GiB of RAM free: SDXL's weights pass through 7 GB of it",
            mend,
        )
    elif free is not None:
        yield Finding("ok", "memory", f"{free:.1f} GiB of RAM free")


def _hub(facts: Facts) -> Iterator[Finding]:
    if facts.hub == "reached":
        yield Finding("ok", "hub", f"{facts.hub_host} answers")
    elif facts.hub == "offline":
        what = (
            "HF_HUB_OFFLINE is set: only models that are in the cache, in folders or in the package"
            " load"
        )
        yield Finding("warning", "hub", what, "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE")
    else:
        here = "Notebook settings > Internet > on; or attach the models: Add Input > Models"
        mend = (
            here
            if facts.place == "Kaggle"
            else (
                "Check the network and the proxy; or give models as folders or files. The rehearsal"
                " models need no hub"
            )
        )
        yield Finding(
            "warning",
            "hub",
            f"{facts.hub_host} cannot be reached: {facts.hub_error or 'no answer'}",
            mend,
        )


def _tokens(facts: Facts) -> Iterator[Finding]:
    lost: dict[Service, str] = {
        "huggingface": "gated models (Stable Diffusion 3) cannot be fetched",
        "civitai": "Civitai refuses many downloads",
    }
    for service, loss in lost.items():
        if source := facts.tokens.get(service):
            yield Finding("ok", "tokens", f"{service}: from {source}")
            continue
        name = NAMES[service][0]
        ways = {
            "Kaggle": f"Add-ons > Secrets > {name}",
            "Colab": f"Key symbol at the left > {name}",
        }
        plain = "hf auth login" if service == "huggingface" else f"export {name}=YOUR_TOKEN"
        yield Finding(
            "warning", "tokens", f"{service}: none, so {loss}", ways.get(facts.place, plain)
        )


def _place(facts: Facts) -> Iterator[Finding]:
    where = {
        "Kaggle": "a Kaggle notebook",
        "Colab": "Colab",
        "Jupyter": "a notebook",
        "plain": "an ordinary Python",
    }[facts.place]
    yield Finding("ok", "place", f"Runs in {where}")
    if facts.place == "Kaggle" or facts.inputs:
        more = f" and {len(facts.inputs) - SHOWN} more" if len(facts.inputs) > SHOWN else ""
        yield Finding(
            "ok",
            "place",
            (
                f"Attached: {', '.join(facts.inputs[:SHOWN])}{more}"
                if facts.inputs
                else "No inputs attached"
            ),
        )


def numbers(text: str) -> tuple[int, ...]:
    """The release part of a version, at least three numbers: "2.10+cu128" → (2, 10, 0)."""
    release = re.match(r"\d+(\.\d+)*", text)
    return (
        tuple(
            int(part)
            for part in f"{release[0]}.0.0".split(".")[: max(3, release[0].count(".") + 1)]
        )
        if release
        else ()
    )


def _version(facts: Facts, name: str) -> tuple[int, ...]:
    return numbers(facts.versions.get(name) or "")
