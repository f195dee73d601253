"""Loading: a model's locked files → a pipeline on the device, in the number format and on the rung
of memory that it fits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from realkit.base.device import device_for, dtype_for, out_of_memory
from realkit.base.errors import RequestError, one_line
from realkit.models import ladder
from realkit.models.decoder import Decoder
from realkit.models.families import FAMILIES
from realkit.models.ladder import (
    LADDERS,
    checked_rung,
    climbing_load,
    module_bytes,
    part_bytes,
    placed,
)
from realkit.models.lock import ModelLock, lock_model
from realkit.models.model import Model
from realkit.models.parts import class_at, load_part, load_vae, merge_lora
from realkit.weights import checkpoints, resolve
from realkit.weights.checkpoints import KINDS
from realkit.weights.reference import CONFIG

if TYPE_CHECKING:
    import torch


def load(
    name: str,
    locked: ModelLock | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    rung: str | None = None,
    decoder: bool = True,
) -> Model:
    """A catalogue model, or any other reference, ready on this machine.

    `device` ("cuda", "cpu"), `dtype` ("float32", "float16", "bfloat16") and `rung` (one of
    placement.RUNGS) are chosen from what the machine has where they are left out. Where memory runs
    out, higher rungs are tried. Without `decoder` the VAE is not loaded: the model denoises only.
    Raises RequestError for a name that means nothing, a setting that is none, or files that are
    damaged.
    """
    on = device_for(device)
    rungs = LADDERS["both" if decoder else "denoise"][on.type]
    rung = ladder.nearest(checked_rung(rung, on), rungs)
    locked = locked or lock_model(name)
    family = FAMILIES[locked.spec.family]
    if family.second and decoder and family.vae == "vae":
        decoder = False  # the first leg decodes
    number = dtype_for(on, dtype, family.half_overflows)
    import diffusers

    kind = getattr(diffusers, family.pipeline)  # imports what it needs, before the clock starts
    quiet()
    began = time.perf_counter()
    with _named(locked):
        pipe = climbing_load(lambda: _pipeline(locked, kind, number, decoder))
        start = rung or ladder.first_rung(on, rungs, part_bytes(pipe))
        stands = placed(pipe, start, rungs, on)
    pipe.original_scheduler_config = locked.scheduler

    def load_second(rung: str | None) -> Model:
        assert locked.then is not None
        return load(locked.then.name, locked.then, device=on.type, dtype=dtype, rung=rung)

    return Model(
        locked,
        pipe,
        time.perf_counter() - began,
        on,
        stands,
        rungs,
        dtype,
        load_second if locked.then else None,
    )


def load_decoder(
    locked: ModelLock,
    *,
    device: str | None = None,
    dtype: str | None = None,
    rung: str | None = None,
) -> Decoder:
    """A model's VAE alone, ready on this machine's device; the arguments are those of `load`."""
    locked = locked.decoding
    family, on = FAMILIES[locked.spec.family], device_for(device)
    class_at(family.vae_class)  # imports what it needs, before any clock starts
    quiet()
    with _named(locked):
        vae = climbing_load(lambda: load_vae(locked, dtype_for(on, dtype, family.half_overflows)))
        rungs = LADDERS["decode"][on.type]
        rung = ladder.nearest(checked_rung(rung, on), rungs)
        stands = placed(vae, rung or ladder.first_rung(on, rungs, [module_bytes(vae)]), rungs, on)
    return Decoder(vae, locked.spec.family, on, stands)


def _pipeline(locked: ModelLock, kind: Any, number: torch.dtype, decoder: bool) -> Any:
    family, spec = FAMILIES[locked.spec.family], locked.spec
    index = resolve.read_json(locked.configs, "model_index.json")
    without = [
        part for part, found in index.items() if found == [None, None] and part in modules(kind)
    ] + [p for p, ref in spec.parts.items() if not ref]
    given: dict[str, Any] = dict(family.absent) | dict.fromkeys(without)
    for part, of in locked.parts.items():
        if part != family.vae:
            given[part] = load_part(part, of, number, locked, index.get(part))
    takes_vae = family.vae in modules(kind)
    class_at(family.vae_class)
    if takes_vae:
        given[family.vae] = load_vae(locked, number) if decoder else None
    if locked.main.single:
        shipped = spec.config.removeprefix(CONFIG)
        if shipped in KINDS:
            given = {
                key: value
                for key, value in checkpoints.arguments(shipped).items()
                if key != "config"
            } | given
        pipe = kind.from_single_file(
            str(resolve.fetch(locked.main)),
            config=str(resolve.fetch(locked.configs)),
            dtype=number,
            local_files_only=True,
            **given,
        )
    else:
        pipe = kind.from_pretrained(
            str(resolve.fetch(locked.main)),
            dtype=number,
            local_files_only=True,
            use_safetensors=True,
            **given,
        )
    for ref, of in locked.loras.items():
        merge_lora(pipe, ref, resolve.fetch(of), spec.loras[ref])
    return pipe


def modules(kind: Any) -> set[str]:
    import inspect

    return set(inspect.signature(kind.__init__).parameters)


@contextmanager
def _named(locked: ModelLock) -> Iterator[None]:
    """Turn what the libraries raise while loading into one line that names the model. Out of memory
    stays what it is."""
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AttributeError,
        TypeError,
        ImportError,
    ) as error:
        if isinstance(error, RequestError) or out_of_memory(error):
            raise
        raise RequestError(
            f"Model {locked.name!r} does not load from {locked.main.ref!r}: {one_line(error, 300)}"
        ) from error


def quiet() -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_diffusers.disable_progress_bar()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
