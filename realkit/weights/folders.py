"""Which files of a folder or repository a loader reads: one set of weights for each part of a
pipeline, by variant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

WEIGHTS = (".safetensors",)
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
READ = (".json", ".txt", ".model")  # configs, vocabularies, sentencepiece models
NOT_READ = {"figures.json"}
# Weights of a part as diffusers and transformers name them:
# STEM[.VARIANT][-00001-of-00002].safetensors, or .bin
STEM = r"^(?P<stem>diffusion_pytorch_model|model|pytorch_model)"
PART = re.compile(
    STEM + r"(\.(?P<variant>[\w-]+?))?(?P<shard>-\d{5}-of-\d{5})?\.(?P<kind>(?i:safetensors|bin))$"
)
INDEX = re.compile(STEM + r"\.(?P<kind>safetensors|bin)\.index(\.(?P<variant>[\w-]+))?\.json$")
UNUSED = {  # parts of a pipeline that are never loaded
    "safety_checker", "feature_extractor", "image_encoder", "prior_image_encoder",
}  # fmt: skip


def ends(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file's name has one of these endings, in whatever case."""
    return name.lower().endswith(endings)


def chosen(names: list[str], index: dict[str, Any], variant: str = "") -> tuple[str, list[str]]:
    """(variant of the weights, files read) of a listing.

    `index` is the pipeline's model_index.json, whose parts are read; {} reads every folder. Each
    part's weights are those of the variant where it has them, else the plain ones, else the first
    other variant; pickled ones only where there is no .safetensors. An open_clip folder or a loose
    collection of weights is read whole.
    """
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, slash, own = name.rpartition("/")
        folders.setdefault(folder + slash, []).append(own)
    files = ["model_index.json"] if index else []
    first_variant = ""
    for folder in _parts(index) if index else sorted(folders):
        weights, of_variant = _weights(folders.get(folder, []), variant)
        first_variant = first_variant or of_variant
        for own in folders.get(folder, []):
            config = _is_read(own) and own != "model_index.json" and not INDEX.match(own)
            if config or own in weights:
                files.append(folder + own)
    if not index and not any(ends(name, WEIGHTS + PICKLED) for name in files):
        files = [name for name in names if ends(name, WEIGHTS) or _is_read(name)]
    return first_variant, sorted(set(files))


def _parts(index: dict[str, Any]) -> list[str]:
    """The folders of the parts that a model_index.json names and a loader reads."""
    folders = []
    for name, value in index.items():
        if isinstance(value, list) and any(value[:1]) and name not in UNUSED:
            folders.append(f"{name}/")
    return folders


def _is_read(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in READ and path.name not in NOT_READ


def variants(names: list[str]) -> list[str]:
    """The variants of which a listing has .safetensors."""
    variants = set()
    for name in names:
        match = PART.match(PurePosixPath(name).name)
        if match and match["variant"] and match["kind"].lower() == "safetensors":
            variants.add(match["variant"])
    return sorted(variants)


def canonical(name: str, variant: str) -> str:
    """A chosen file's name in the plain layout: without its variant, and as .safetensors.

    Shards keep their names, which their index lists.
    """
    path = PurePosixPath(name)
    if match := PART.match(path.name):
        stem = match["stem"]
        if match["kind"].lower() == "bin" and stem == "pytorch_model":
            stem = "model"  # transformers calls its pickled weights so
        return name if match["shard"] else str(path.with_name(f"{stem}.safetensors"))
    if match := INDEX.match(path.name):
        return str(path.with_name(f"{match['stem']}.{match['kind']}.index.json"))
    return name


def weights(names: Iterable[str], variant: str, within: str = "") -> list[str]:
    """The weight files right in a folder `within` of a locked one, by their plain names."""
    files = []
    for name in names:
        here = name.startswith(within) and "/" not in name.removeprefix(within)
        if here and ends(name, WEIGHTS + PICKLED):
            files.append(canonical(name, variant))
    return files


def _weights(names: list[str], variant: str) -> tuple[list[str], str]:
    """One part's weight files and their variant."""
    for kind in ("safetensors", "bin"):
        sets: dict[str, list[str]] = {}
        for name in names:
            match = PART.match(name) or INDEX.match(name)
            if match and match["kind"].lower() == kind:
                sets.setdefault(match["variant"] or "", []).append(name)
        for of_variant in (variant, "", *sorted(sets)):
            if of_variant in sets:
                return _whole(sets[of_variant]), of_variant
    return [], ""


def _whole(names: list[str]) -> list[str]:
    """The unsharded file where there is one, else the shards with their index."""
    for name in names:
        if (match := PART.match(name)) and not match["shard"]:
            return [name]
    return names
