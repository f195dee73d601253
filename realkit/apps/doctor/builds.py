"""Builds of torch: which GPU, driver and torchvision each fits, and the line that installs it."""

from __future__ import annotations

import re
from collections.abc import Callable

from realkit.apps.doctor.facts import Facts
from realkit.base.device import has_kernels

WHEELS = "https://download.pytorch.org/whl"
# The last CUDA with kernels for capability 5.0 to 7.0. The "+cu126" is needed: pip takes an
# installed 2.10.0+cu128 for 2.10.0 and does nothing.
CU126_TORCH = (
    f"pip install torch==2.10.0+cu126 torchvision==0.25.0+cu126 --index-url {WHEELS}/cu126"
)
CU126_SERVES = ((5, 0), (7, 5))  # capabilities from, and below, that newer builds leave out
ROCM_TORCH = (
    "Install the newest ROCm build of torch that https://pytorch.org/get-started/locally names"
)
NEW_TORCH = "pip uninstall -y torch torchvision && pip install torch torchvision"
# NVIDIA's minor version compatibility: CUDA's major version → oldest driver.
CUDA_NEEDS_DRIVER = {11: 450, 12: 525, 13: 580}
# Torchvision 0.N+15 belongs to torch 2.N. From torch 2.14 on, torchvision (0.29.1) asks for a torch
# at least as new, no longer for exactly that one.
APART = 15
LOWER_BOUND = 14


def numbers(text: str) -> tuple[int, ...]:
    """The release part of a version: "2.10+cu128" → (2, 10, 0); () without a version."""
    release = re.match(r"\d+(\.\d+)*", text)
    if not release:
        return ()
    parts = [int(part) for part in release[0].split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def version_of(facts: Facts, name: str) -> tuple[int, ...]:
    return numbers(facts.versions.get(name) or "")


def first_capability(facts: Facts) -> tuple[int, int]:
    """The compute capability of the first GPU, (0, 0) where it is unknown."""
    return (facts.gpus[0].capability if facts.gpus else None) or (0, 0)


def restarted(facts: Facts, line: str) -> str:
    """A line that installs, with what a notebook needs after it."""
    return line if facts.place == "plain" else f"{line}   (then restart the notebook's kernel)"


def kernels_fix(facts: Facts) -> str:
    """What serves a first GPU that this build has no kernels for."""
    capability = first_capability(facts)
    if facts.gpus and facts.gpus[0].gfx:
        return restarted(facts, ROCM_TORCH)
    if capability >= CU126_SERVES[1]:  # newer than the build
        return restarted(facts, NEW_TORCH)
    fix = "Take another GPU, or CUDA_VISIBLE_DEVICES=-1 for the CPU"
    if capability >= CU126_SERVES[0]:
        fix = restarted(facts, CU126_TORCH)
    accelerator = "Notebook settings > Accelerator > GPU T4 x2; or "
    return accelerator + fix if facts.place == "Kaggle" else fix


def unserved(facts: Facts) -> bool:
    """Whether this build has no kernels for the first GPU."""
    return bool(facts.gpus) and not has_kernels(
        first_capability(facts), list(facts.archs), facts.gpus[0].gfx
    )


def vision_fails(facts: Facts) -> bool:
    """Whether torchvision does not fit this torch."""
    torch, vision = facts.versions.get("torch"), facts.versions.get("torchvision")
    if not torch or not vision:
        return False
    return "torchvision" in facts.broken or not paired(torch, vision, facts.torchvision_needs)


def paired(torch: str, vision: str, needs: str | None) -> bool:
    """Whether torchvision's own requirement on torch is met (an exact version in its first two
    numbers); without a requirement, whether torch 2.N stands beside 0.(N + 15)."""
    release = numbers(torch)  # "2.10.0+cu128" counts as 2.10.0
    bounds = re.findall(r"(==|>=|<=|<|>)\s*([\d.]+)", needs or "")
    if not bounds:
        minor = numbers(vision)[1]
        exact = release[0] != 2 or minor == release[1] + APART
        return exact or (release[1] > LOWER_BOUND and minor >= LOWER_BOUND + APART)
    compare: dict[str, Callable[[tuple[int, ...]], bool]] = {
        "==": lambda bound: release[:2] == bound[:2],
        ">=": lambda bound: release >= bound,
        "<=": lambda bound: release <= bound,
        "<": lambda bound: release < bound,
        ">": lambda bound: release > bound,
    }
    return all(compare[sign](numbers(bound)) for sign, bound in bounds)


def partner(torch: str) -> str:
    """The line that installs this torch's torchvision, of the same CUDA, and no other torch."""
    major, minor = numbers(torch)[:2]
    if major != 2:
        return NEW_TORCH
    wanted = f"torchvision>=0.{LOWER_BOUND + APART}"
    if minor < LOWER_BOUND:
        wanted = f"torchvision==0.{minor + APART}.*"
    line = f'pip install --force-reinstall --no-deps "{wanted}"'
    label = re.search(r"\+(cu\d+|cpu)$", torch)
    return f"{line} --index-url {WHEELS}/{label[1]}" if label else line
