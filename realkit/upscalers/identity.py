"""What determines an upscaler's result: its locked weights and the settings it uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realkit.base import cache
from realkit.base.errors import RequestError, shown
from realkit.base.pictures import FINISH
from realkit.catalog.lookup import find, meant_of
from realkit.models.lock import ModelLock, lock_model
from realkit.samplers.table import SAMPLERS
from realkit.upscalers.chain import Chain, Part
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import UPSCALERS
from realkit.weights import pickles, reference, resolve
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.sources import disk, inputs

CONFIGS = ("config.json", "model_index.json")  # of which a folder of weights has one


def lock_upscaler(chain: Chain) -> dict[str, Lock]:
    """The locks of a chain's weights, by part; parts without weights are left out. Raises
    RequestError for weights that are missing or of the wrong kind."""
    return {part.name: _lock(part) for part in chain.parts if part.engine.weights}


def _lock(part: Part) -> Lock:
    entry, source = part.entry, part.entry.source or _by_hand(part)
    remote = reference.parse(source).kind == "url"
    if entry.sha256 and remote:
        return Lock(source, "url", files={SINGLE: entry.sha256})
    folder = None if remote else disk.local(source)
    if folder and folder.is_dir() and not any((folder / name).is_file() for name in CONFIGS):
        raise RequestError(
            f"Upscaler {part.name!r}: the folder {shown(source)} has no config.json: expected a"
            " file of weights, or a folder of Swin2SR"
        )
    try:
        with pickles.reading_pickles():
            lock = resolve.lock(source, weights=True)
    except RequestError as error:
        meant = "" if part.name in UPSCALERS else meant_of(UPSCALERS, part.name)
        raise RequestError(f"Upscaler {part.name!r}: {error}{meant and '.' + meant}") from None
    if lock.single != (part.engine.weights == "file"):
        kinds = {"file": "one file of weights", "folder": "a folder with its config.json"}
        raise RequestError(
            f"Upscaler {part.name!r} has the source {source!r}: expected"
            f" {kinds[part.engine.weights]}"
        )
    if entry.sha256 and lock.single and lock.files[SINGLE] != entry.sha256:
        raise RequestError(
            f"Upscaler {part.name!r}: {source!r} does not have the published SHA-256"
            f" {entry.sha256[:12]}…: download it again from {entry.page or 'its page'}"
        )
    return lock


def _by_hand(part: Part) -> str:
    """The path of a file that a person had to download."""
    entry = part.entry
    folder = cache.cache_folder("upscalers")
    path: Path | None = folder / entry.file
    if entry.file and path and not path.is_file():
        path = inputs.file(entry.file, "")
    if entry.file and path:
        return str(path)
    raise RequestError(
        f"Upscaler {part.name!r} must be downloaded by hand: from {entry.page}, the file"
        f" {entry.file!r}, put into {str(folder)!r}"
    )


def determined_upscale(
    chain: Chain,
    settings: Settings,
    locks: Mapping[str, Lock] | None = None,
    model: ModelLock | None = None,
) -> dict[str, Any]:
    """What determines a result: of each part the engine, the weights and the settings it uses; and
    the filter that reaches the exact size.

    `locks` are those of `lock_upscaler`, made where left out. `model` is the lock of the model that
    made the picture, for parts that redraw without a model of their own.
    """
    locks = lock_upscaler(chain) if locks is None else locks
    tools = [_of_part(part, settings, locks, model) for part in chain.parts]
    return {"tools": tools, "finish": FINISH}


def _of_part(
    part: Part, settings: Settings, locks: Mapping[str, Lock], model: ModelLock | None
) -> dict[str, Any]:
    identity: dict[str, Any] = {"engine": part.entry.engine}
    if part.name in locks:
        identity["weights"] = locks[part.name].fingerprint
    identity |= part.engine.identity(part.entry, settings)
    values: dict[str, Any] = {name: getattr(settings, name) for name in part.uses}
    guidance = settings.guidance
    if part.engine.redraws:
        model = redraws_with(part, model)
        guidance = model.spec.settings.guidance if guidance is None else guidance
        values["model"] = {
            **model.fingerprint,
            "vae": model.vae_fingerprint,
            "family": model.spec.family,
            "scheduler": model.scheduler,
            "tile": model.spec.size,
        }
    if model:
        # Only a redraw follows this advice. Ids hold it for the other engines too, and ids never
        # change.
        for name, value in values.items():
            if value is None:
                values[name] = getattr(model.spec.settings, name, None)
    if values.get("sampler") is not None:
        sampler = find(SAMPLERS, values["sampler"])
        values["sampler"] = [sampler, SAMPLERS[sampler].determined]
    idle = part.engine.idle_at(guidance)
    return identity | values | dict.fromkeys(idle)


def redraws_with(part: Part, model: ModelLock | None = None) -> ModelLock:
    """The model that a part redraws with: its entry's own, else `model`, which made the picture.
    Raises RequestError where there is neither."""
    if part.entry.source:
        return lock_model(part.entry.source)
    if model is None:
        raise RequestError(
            f"Upscaler {part.name!r} redraws with a model: name one, model=NAME (realkit list"
            " models)"
        )
    return model
