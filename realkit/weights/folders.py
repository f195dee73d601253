"""Which files of a folder or repository a loader reads: of the pipeline's parts one set of weights
each, by variant."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

WEIGHTS = (".safetensors",)
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
READ = (".json", ".txt", ".model")  # configs, vocabularies, sentencepiece models
NOT_READ = {"figures.json"}
# Weights of a part as diffusers and transformers name them:
# STEM[.VARIANT][-00001-of-00002].safetensors, or .bin
PART = re.compile(
    r"^(?P<stem>diffusion_pytorch_model|model|pytorch_model)(\.(?P<variant>[\w-]+?))?(?P<shard>-\d{5}-of-\d{5})?\.(?P<kind>safetensors|bin)$"
)
INDEX = re.compile(
    r"^(?P<stem>diffusion_pytorch_model|model|pytorch_model)\.(?P<kind>safetensors|bin)\.index(\.(?P<variant>[\w-]+))?\.json$"
)
UNUSED = {
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "prior_image_encoder",
}  # parts of a pipeline that are never loaded


def chosen(names: list[str], index: dict[str, Any], variant: str = "") -> tuple[str, list[str]]:
    """(variant found, files read) of a listing: a pipeline's parts by its model_index.json,
    `index`, else the folder itself.

    Each part's weights are those of the variant where it has them, else the plain ones, else the
    only other variant there is; pickled ones only where there is no .safetensors. An open_clip
    folder or a loose collection is taken as it is.
    """
    if index:
        parts = [
            name
            for name, value in index.items()
            if isinstance(value, list) and value[0] and name not in UNUSED
        ]
        places = [
            f"{part}/" for part in parts if any(name.startswith(f"{part}/") for name in names)
        ]
        kept = ["model_index.json"]
    else:
        places, kept = sorted({name[: name.rfind("/") + 1] for name in names}), []
    found = ""
    for place in places:
        own = [
            name for name in names if name.startswith(place) and "/" not in name.removeprefix(place)
        ]
        heavy, took = _weights([name.removeprefix(place) for name in own], variant)
        found = found or took
        plain = [
            name
            for name in own
            if PurePosixPath(name).suffix in READ
            and PurePosixPath(name).name not in (*NOT_READ, "model_index.json")
        ]
        kept += [name for name in plain if not INDEX.match(PurePosixPath(name).name)] + [
            place + name for name in heavy
        ]
    if not index and not any(PurePosixPath(name).suffix in (*WEIGHTS, *PICKLED) for name in kept):
        kept = [
            name
            for name in names
            if PurePosixPath(name).suffix in (*READ, *WEIGHTS)
            and PurePosixPath(name).name not in NOT_READ
        ]
    return found, sorted(set(kept))


def variants(names: list[str]) -> list[str]:
    """The variants of which a listing has .safetensors."""
    return sorted(
        {
            match["variant"]
            for name in names
            if (match := PART.match(PurePosixPath(name).name))
            and match["variant"]
            and match["kind"] == "safetensors"
        }
    )


def canonical(name: str, variant: str) -> str:
    """The name of a chosen file in the plain layout: without its variant, and .safetensors where it
    is pickled. Shards keep theirs: their index lists them."""
    path = PurePosixPath(name)
    if match := PART.match(path.name):
        stem = (
            {"pytorch_model": "model"}.get(match["stem"], match["stem"])
            if match["kind"] == "bin"
            else match["stem"]
        )
        return name if match["shard"] else str(path.with_name(f"{stem}.safetensors"))
    if match := INDEX.match(path.name):
        return str(path.with_name(f"{match['stem']}.{match['kind']}.index.json"))
    return name


def _weights(names: list[str], variant: str) -> tuple[list[str], str]:
    """One part's weight files and the variant they are."""
    for kind in ("safetensors", "bin"):
        sets: dict[str, list[str]] = {}
        for name in names:
            if (match := PART.match(name) or INDEX.match(name)) and match["kind"] == kind:
                sets.setdefault(match["variant"] or "", []).append(name)
        sets = {which: _one(found) for which, found in sets.items()}
        for which in (variant, ""):
            if which in sets:
                return sets[which], which
        if sets:
            return next((found, which) for which, found in sorted(sets.items()))
    return [], ""


def _one(names: list[str]) -> list[str]:
    """The whole file where there is one, else the shards with their index."""
    whole = [name for name in names if (match := PART.match(name)) and not match["shard"]]
    return whole[:1] or names
