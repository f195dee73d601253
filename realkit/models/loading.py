"""Loading: a model's locked files → a pipeline on the device, on a rung of memory that fits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.device import device_for, dtype_for
from realkit.base.door import worded
from realkit.models import ladder, loras, tensors
from realkit.models.decoder import Decoder
from realkit.models.ladder import LADDERS, checked_rung
from realkit.models.lock import ModelLock, lock_model
from realkit.models.model import Model
from realkit.models.parts import class_at, load_part, load_tower, load_vae
from realkit.weights import checkpoints, resolve
from realkit.weights.checkpoints import KINDS
from realkit.weights.reference import CONFIG

if TYPE_CHECKING:
    import torch


def load(
    name: str | PathLike[str],
    locked: ModelLock | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    rung: str | None = None,
    decoder: bool = True,
) -> Model:
    """A catalogue model, or any other reference, ready on this machine.

    `device` ("cuda", "cpu"), `dtype` ("float32", "float16", "bfloat16") and `rung` (one of
    ladder.RUNGS) default to what suits the machine. Out of memory, higher rungs are tried. Without
    `decoder` no VAE is loaded: the model can only denoise. Raises RequestError for an unknown name,
    an invalid setting, or damaged files.
    """
    on = device_for(device)
    rungs = LADDERS["both" if decoder else "denoise"][on.type]
    rung = ladder.nearest(checked_rung(rung, on), rungs)
    lock = locked or lock_model(name)
    family = lock.family
    number = dtype_for(on, dtype, family.half_overflows)
    import diffusers

    # The class is lazy: it imports what it needs here, before the clock starts.
    pipeline = getattr(diffusers, family.pipeline)
    quiet()
    with_vae = decoder and not family.refines
    with _one_line_errors(lock):
        tensors.check(lock, pipeline, with_vae)
    began = time.perf_counter()
    with _one_line_errors(lock):
        pipe = ladder.climbing_load(lambda: _pipeline(lock, pipeline, number, with_vae))
        rung = _placed(pipe, rung, rungs, on)
    load_s = time.perf_counter() - began
    pipe.original_scheduler_config = lock.scheduler

    def load_second(rung: str | None) -> Model:
        assert lock.then is not None
        return load(lock.then.name, lock.then, device=on.type, dtype=dtype, rung=rung)

    return Model(
        lock,
        pipe,
        load_s=load_s,
        device=on,
        dtype=dtype,
        rung=rung,
        rungs=rungs,
        load_second=load_second if lock.then else None,
    )


def load_decoder(
    locked: ModelLock,
    *,
    device: str | None = None,
    dtype: str | None = None,
    rung: str | None = None,
) -> Decoder:
    """The VAE of a model alone, ready on this machine. The arguments are those of `load`."""
    lock, on = locked.decoding, device_for(device)
    number = dtype_for(on, dtype, lock.family.half_overflows)
    rungs = LADDERS["decode"][on.type]
    rung = ladder.nearest(checked_rung(rung, on), rungs)
    class_at(lock.family.vae_class)  # imports what it needs, before any clock starts
    quiet()
    with _one_line_errors(lock):
        tensors.check_vae(lock)
        with _one_line_errors(lock, lock.family.vae):
            vae = ladder.climbing_load(lambda: load_vae(lock, number))
        rung = _placed(vae, rung, rungs, on)
    return Decoder(vae, lock.spec.family, on, rung)


def _placed(tool: Any, rung: str | None, rungs: tuple[str, ...], on: torch.device) -> str:
    """Place a pipeline or network on a rung, by default the first that fits; return the rung."""
    start = rung or ladder.first_rung(on, rungs, ladder.part_bytes(tool))
    return ladder.placed(tool, start, rungs, on)


def _pipeline(lock: ModelLock, pipeline: Any, number: torch.dtype, with_vae: bool) -> Any:
    """The pipeline in main memory, with the entry's parts and LoRAs."""
    family, spec = lock.family, lock.spec
    lora_files = lock.lora_files()
    index = resolve.read_json(lock.configs, "model_index.json")
    accepted = modules(pipeline)
    components: dict[str, Any] = dict(family.absent)
    components |= {part: None for part in accepted if index.get(part) == [None, None]}
    components |= {part: None for part, ref in spec.parts.items() if not ref}
    for part, part_lock in lock.parts.items():
        if part != family.vae:
            with _one_line_errors(lock, part):
                components[part] = load_part(part, part_lock, number, lock, index.get(part))
    class_at(family.vae_class)
    if family.vae in accepted:
        with _one_line_errors(lock, family.vae):
            components[family.vae] = load_vae(lock, number) if with_vae else None
    path = str(resolve.fetch(lock.main))
    common = {"dtype": number, "local_files_only": True}
    if lock.main.single:
        kind = spec.config.removeprefix(CONFIG)
        shipped = checkpoints.arguments(kind) if kind in KINDS else {}
        common["config"] = str(resolve.fetch(lock.configs))
        for part in checkpoints.towers_without_level(resolve.fetch(lock.main)) - components.keys():
            kind_of_tower = class_at(".".join(index[part]))
            components[part] = load_tower(part, Path(path), number, lock, kind_of_tower)
        pipe = pipeline.from_single_file(path, **{**shipped, **components, **common})
    else:
        pipe = pipeline.from_pretrained(path, use_safetensors=True, **components, **common)
    loras.merge(pipe, family.denoiser, [(file, spec.loras[file.label]) for file in lora_files])
    return pipe


def modules(pipeline: Any) -> set[str]:
    """The names of what a pipeline class is made of."""
    import inspect

    return set(inspect.signature(pipeline.__init__).parameters)


@contextmanager
def _one_line_errors(lock: ModelLock, part: str = "") -> Iterator[None]:
    """Word a library's error in one line that names the model, or the file of a part of it that
    comes from elsewhere. Out of memory passes, to climb."""
    owner, source = f"Model {lock.name!r}", lock.main
    if part in lock.parts:
        owner, source = f"Part {part!r} of model {lock.name!r}", lock.parts[part]
    with worded(f"{owner} does not load from {source.ref!r}"):
        yield


def quiet() -> None:
    """Silence the progress bars and warnings of diffusers and transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
