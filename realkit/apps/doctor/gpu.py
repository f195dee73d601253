"""Judgements about GPUs, their drivers and the kernels of the torch build."""

from __future__ import annotations

from realkit.apps.doctor.builds import (
    CU126_TORCH,
    CUDA_NEEDS_DRIVER,
    NEW_TORCH,
    ROCM_TORCH,
    kernels_fix,
    numbers,
    restarted,
)
from realkit.apps.doctor.facts import Facts, Gpu
from realkit.apps.doctor.finding import Judgements
from realkit.base.device import GFX_BF16, USED_GPUS, has_kernels

SMALL_GPU = 4  # GiB; with less, Stable Diffusion 1.5 leaves too little memory to work in
NVIDIA = "Run on a machine with an NVIDIA GPU: Kaggle's and Colab's T4 cost nothing"
ACCELERATORS = {
    "Kaggle": "Notebook settings > Accelerator > GPU T4 x2",
    "Colab": "Runtime > Change runtime type > T4 GPU",
}


def gpu(facts: Facts) -> Judgements:
    if facts.versions.get("torch") is None or "torch" in facts.broken:
        return
    for number, card in enumerate(facts.gpus):
        yield from _card(facts, number, card)
    if len(facts.gpus) > 1:
        what = (
            f"{len(facts.gpus)} GPUs: a process uses the first; CUDA_VISIBLE_DEVICES=1 gives"
            " another process the second"
        )
        yield "ok", what, ""
    if not facts.gpus and facts.driver_gpus:
        yield "warning", *_idle(facts)
    elif not facts.gpus and facts.other_gpus:
        yield "warning", *_of_other_makers(facts)
    elif not facts.gpus:
        what = (
            "No GPU: rehearsal models run in a minute, Stable Diffusion 1.5 takes minutes a picture"
        )
        yield "warning", what, ACCELERATORS.get(facts.place, NVIDIA)


def _of_other_makers(facts: Facts) -> tuple[str, str]:
    """Why a GPU that is no NVIDIA's is not used, and what it would need."""
    names, torch = " and ".join(facts.other_gpus), facts.versions["torch"]
    what = f"the GPU of {names} is not used, the CPU is: realkit needs {USED_GPUS}"
    if "AMD" in facts.other_gpus and facts.torch_hip:
        reason = facts.cuda_error or "it names no reason"
        return (
            f"torch {torch} (ROCm) cannot use the GPU of AMD: {reason}",
            "rocminfo should list it",
        )
    if "AMD" in facts.other_gpus:
        return what, restarted(facts, ROCM_TORCH)
    return what, ACCELERATORS.get(facts.place, NVIDIA)


def _card(facts: Facts, number: int, card: Gpu) -> Judgements:
    """One GPU that torch sees."""
    torch, capability = facts.versions["torch"], card.capability or (0, 0)
    memory = f", {card.memory_gib:.1f} GiB" if card.memory_gib else ""
    about = f"{card.name}{memory}, capability {capability[0]}.{capability[1]}"
    if card.gfx:
        about = f"{card.name}{memory}, {card.gfx}"
    if not has_kernels(capability, list(facts.archs), card.gfx):
        archs = ", ".join(facts.archs) or "none"
        what = f"{about}: torch calls it available, but {torch} has kernels for {archs} only"
        if number:
            yield "warning", what, "CUDA_VISIBLE_DEVICES=0 leaves this GPU out"
        else:
            what += ", so its first operation would die, and realkit leaves it idle"
            yield "failure", what, kernels_fix(facts)
        return
    half = "no native bf16: half precision is float16"
    if card.gfx.startswith(GFX_BF16) if card.gfx else capability >= (8, 0):
        half = "bf16 is native"
    yield "ok", f"{about}, has kernels in torch {torch}; {half}", ""
    if number == 0 and card.memory_gib and card.memory_gib < SMALL_GPU:
        what = (
            f"{card.name} has {card.memory_gib:.1f} GiB of memory: Stable Diffusion 1.5 in half"
            " precision takes 2.6 GB of it before it begins"
        )
        fix = (
            "The rehearsal models; or --rung group-offload (in Python"
            ' rung="group-offload"), which keeps one layer at a time there'
        )
        yield "warning", what, fix


def _idle(facts: Facts) -> tuple[str, str]:
    """Why torch does not use a GPU that the driver sees, and how to fix that."""
    card, cuda, driver = facts.driver_gpus[0], facts.torch_cuda, numbers(facts.driver or "")
    if cuda is None:
        torch = facts.versions["torch"]
        new = (card.capability or (0, 0)) >= (10, 0)
        what = f"torch {torch} is built for the CPU, so {card.name} stays idle"
        return what, restarted(facts, NEW_TORCH if new else CU126_TORCH)
    if facts.visible is not None and facts.visible.strip() in ("", "-1"):
        what = f"{card.name} is hidden by CUDA_VISIBLE_DEVICES={facts.visible!r}"
        return what, "unset CUDA_VISIBLE_DEVICES"
    oldest = CUDA_NEEDS_DRIVER.get(numbers(cuda)[0], 0)
    if driver and driver[0] < oldest:
        what = (
            f"{card.name} has driver {facts.driver}; torch's CUDA {cuda} needs {oldest} or newer,"
            " so the GPU stays idle"
        )
        if driver[0] >= CUDA_NEEDS_DRIVER[12]:
            return what, restarted(facts, CU126_TORCH)
        return what, f"Update the NVIDIA driver to {oldest} or newer"
    what = f"torch cannot use {card.name}: {facts.cuda_error or 'it names no reason'}"
    return what, "Restart the notebook's session or the machine; nvidia-smi should list the GPU"
