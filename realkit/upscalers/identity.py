"""What determines an upscaler's result: its locked weights and the settings it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realkit.base import cache
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import FINISH
from realkit.catalog.lookup import find
from realkit.models.lock import ModelLock, lock_model
from realkit.samplers.table import SAMPLERS
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import DETECTOR, NETWORKS, Upscaler, chain
from realkit.weights import pickles, resolve
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.sources import disk, inputs


def lock_upscaler(name: str) -> dict[str, Lock]:
    """The references of an upscaler's tools, resolved once: by tool; those without weights are left
    out. Raises RequestError."""
    return {known: found for known, spec in chain(name) if (found := _locked(known, spec))}


def _locked(name: str, spec: Upscaler) -> Lock | None:
    if spec.engine in ("resample", "opencv", "redraw"):
        return None
    source = spec.source or _by_hand(name, spec)
    with pickles.reading_pickles():
        if spec.sha256 and source.startswith(("http://", "https://")):
            return Lock(source, "url", files={SINGLE: spec.sha256})
        there = disk.local(source) if not source.startswith(("http://", "https://")) else None
        if (
            there
            and there.is_dir()
            and not any((there / name).is_file() for name in ("config.json", "model_index.json"))
        ):
            raise RequestError(
                f"Upscaler {name!r}: the folder {shown(source)} has no config.json: expected a file"
                " of weights, or a folder of Swin2SR's"
            )
        try:
            found = resolve.lock(source, weights=True)
        except RequestError as error:
            raise RequestError(f"Upscaler {name!r}: {error}") from None
    wanted = spec.engine in ("spandrel", "realesrgan", "faces")
    if found.single != wanted:
        raise RequestError(
            f"Upscaler {name!r} has the source {source!r}: expected"
            f" {'one file of weights' if wanted else 'a folder with its config.json'}"
        )
    if spec.sha256 and found.single and found.files[SINGLE] != spec.sha256:
        raise RequestError(
            f"Upscaler {name!r}: {source!r} does not have the published SHA-256"
            f" {spec.sha256[:12]}…: get it again from {spec.page or 'its page'}"
        )
    return found


def _by_hand(name: str, spec: Upscaler) -> str:
    """Where a file lies that a person had to fetch."""
    kept = cache.cache_folder("upscalers") / spec.file
    found = inputs.file(spec.file, "") if spec.file else None
    if spec.file and (kept.is_file() or found):
        return str(kept if kept.is_file() else found)
    raise RequestError(
        f"Upscaler {name!r} must be downloaded by hand: from {spec.page}, the file {spec.file!r},"
        f" put into {str(kept.parent)!r}"
    )


def determined_upscale(
    name: str,
    settings: Mapping[str, Any] | None = None,
    locks: Mapping[str, Lock] | None = None,
    model: ModelLock | None = None,
) -> Any:
    """What determines an upscaler's result: of each tool the engine, the weights, and the settings
    it uses; and how the exact size is come by.

    `locks` are those of `lock`, made anew where they are left out; `model` is the lock of the model
    that redraws.
    """
    given = Settings(**settings or {})
    locks = lock_upscaler(name) if locks is None else locks
    return {
        "tools": [_of_tool(known, spec, given, locks, model) for known, spec in chain(name)],
        "finish": FINISH,
    }


def _of_tool(
    name: str, spec: Upscaler, given: Settings, locks: Mapping[str, Lock], model: ModelLock | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"engine": spec.engine}
    if name in locks:
        found["weights"] = locks[name].fingerprint
    elif spec.engine != "redraw":
        found["filter"] = spec.source
    if spec.engine == "realesrgan" and given.tile:  # whose tiles show
        found["tiles"] = [given.tile, given.overlap]
    elif (
        given.overlap is not None and spec.engine in NETWORKS
    ):  # else it covers what the network sees
        found["overlap"] = given.overlap
    if spec.engine in NETWORKS:
        found["pre_pad"] = spec.pre_pad if given.pre_pad is None else given.pre_pad
    if spec.engine == "faces":
        found |= (
            {"detector": DETECTOR} if given.landmarks is None else {"landmarks": given.landmarks}
        )
    if "model" in spec.uses:
        model = redraws_with(name, spec, given, model)
    unguided = (
        spec.engine == "diffusers-latent" and not given.guidance
    )  # its default is none: words then change nothing
    guided = (
        given.guidance if given.guidance is not None or not model else model.spec.settings.guidance
    )
    idle = (
        {"prompt", "negative"}
        if unguided
        else (
            {"negative", "guidance"}
            if spec.engine == "redraw" and guided is not None and guided <= 1
            else set()
        )
    )
    for setting in spec.uses:
        if setting in idle:
            found[setting] = None
            continue
        value = getattr(given, setting)
        if value is None and model and setting in type(model.spec.settings).model_fields:
            value = getattr(model.spec.settings, setting)
        if setting == "model" and model:
            found["model"] = {
                **model.fingerprint,
                "vae": model.vae_fingerprint,
                "family": model.spec.family,
                "scheduler": model.scheduler,
                "tile": model.spec.size,
            }
        elif setting == "sampler" and value is not None:
            found["sampler"] = [find(SAMPLERS, value), SAMPLERS[find(SAMPLERS, value)].determined]
        else:
            found[setting] = value
    return found


def redraws_with(
    name: str, spec: Upscaler, given: Settings, model: ModelLock | None = None
) -> ModelLock:
    """The model that a redraw is made by: the one asked for, else the entry's own, else that of the
    picture. Raises RequestError where there is none."""
    if asked := given.model or spec.source:
        return lock_model(asked)
    if model is None:
        raise RequestError(
            f"Upscaler {name!r} redraws with a model: say which, model=NAME (realkit list models)"
        )
    return model
