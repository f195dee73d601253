"""Judgements about the installed libraries."""

from __future__ import annotations

from realkit.apps.doctor.builds import (
    APART,
    NEW_TORCH,
    first_capability,
    kernels_fix,
    numbers,
    paired,
    partner,
    restarted,
    unserved,
    version_of,
    vision_fails,
)
from realkit.apps.doctor.facts import Facts
from realkit.apps.doctor.finding import Judgements
from realkit.apps.doctor.probe import USED

# Required, but pictures are made without them: by the notebooks, and by this doctor.
ASIDE = ("papermill", "ipykernel", "ipywidgets", "nbformat", "nvidia-ml-py")


def libraries(facts: Facts) -> Judgements:
    missing = [name for name in facts.required if facts.versions.get(name) is None]
    if needed := [name for name in missing if name not in ASIDE]:
        what = f"Not installed, and nothing is made without: {', '.join(needed)}"
        yield "failure", what, _install(facts, needed)
    if aside := [name for name in missing if name in ASIDE]:
        what = f"Not installed, needed by the notebooks or by this check: {', '.join(aside)}"
        yield "warning", what, _install(facts, aside)
    old = []
    for name, lowest in facts.required.items():
        if facts.versions.get(name) and version_of(facts, name) < numbers(lowest):
            old.append(name)
    for name in old:
        what = f"{name} {facts.versions[name]}: realkit needs {facts.required[name]} or newer"
        if name == "diffusers" and _cannot_read_single_files(facts):
            what += (
                f". With transformers {facts.versions['transformers']} it cannot read single-file"
                " Stable Diffusion 1 checkpoints"
            )
        pair = ["torch", "torchvision"]  # each fits one other only
        yield "warning", what, _install(facts, pair if name in pair else [name])
    if not missing and not old:
        main = [f"{name} {facts.versions[name]}" for name in facts.required if name in USED]
        yield "ok", ", ".join(main), ""


def _cannot_read_single_files(facts: Facts) -> bool:
    return version_of(facts, "diffusers") < (0, 41) and version_of(facts, "transformers") >= (5, 6)


def _install(facts: Facts, names: list[str]) -> str:
    return "pip install --upgrade " + " ".join(
        f'"{name}>={facts.required[name]}"' if name in facts.required else name for name in names
    )


def torchvision(facts: Facts) -> Judgements:
    torch, vision = facts.versions.get("torch"), facts.versions.get("torchvision")
    if torch is None or vision is None or "torch" in facts.broken:
        return
    if not vision_fails(facts):
        yield "ok", f"torchvision {vision} fits torch {torch}, and its operators work", ""
        return
    what = f"torchvision {vision} does not fit torch {torch}"
    if not paired(torch, vision, facts.torchvision_needs):
        what += f": it needs torch {facts.torchvision_needs or f'2.{numbers(vision)[1] - APART}'}"
    for name, error in facts.broken.items():
        what += f"; import {USED[name][0]} fails: {error}"
    if unserved(facts):  # another torch is needed anyway
        yield "failure", what, kernels_fix(facts)
    else:
        yield "failure", what, restarted(facts, partner(torch))


def imports(facts: Facts) -> Judgements:
    if "torch" in facts.broken:  # everything else needs it
        what = f"import torch fails: {facts.broken['torch']}"
        yield "failure", what, restarted(facts, NEW_TORCH)
    elif not vision_fails(facts):  # else transformers and diffusers fail for the same reason
        for name, error in facts.broken.items():
            lowest = facts.required.get(name, "0")
            again = f'pip install --force-reinstall --no-deps "{name}>={lowest}"'
            fix = f"{_install(facts, [name])}   (if that changes nothing: {again})"
            yield "failure", f"import {USED[name][0]} fails: {error}", fix


def optional(facts: Facts) -> Judgements:
    if facts.versions.get("xformers") and facts.gpus and first_capability(facts) < (7, 0):
        what = f"xformers has no kernels for {facts.gpus[0].name}: attention that uses it dies"
        yield "warning", what, "pip uninstall -y xformers"
    engines = [name for name in ("basicsr", "realesrgan") if facts.versions.get(name)]
    if engines and version_of(facts, "torchvision") >= (0, 17):
        what = (
            f"{' and '.join(engines)} (an optional engine) import"
            " torchvision.transforms.functional_tensor, which torchvision 0.17 removed"
        )
        fix = (
            "Before basicsr is imported: import sys, torchvision.transforms.functional;"
            ' sys.modules["torchvision.transforms.functional_tensor"] ='
            " torchvision.transforms.functional"
        )
        yield "warning", what, fix
    if facts.place == "Colab" and version_of(facts, "ipywidgets")[:1] == (7,):
        widgets = facts.versions["ipywidgets"]
        yield "ok", f"ipywidgets {widgets}, Colab's own: its core widgets are enough", ""
