"""Loading: a model's locked files → a pipeline on the device, in the number format and on the rung of memory that it fits."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit import hub, placement, single_file
from realkit.errors import RequestError
from realkit.families import FAMILIES
from realkit.models import PART_CLASSES, ModelLock, lock
from realkit.pipelines import Decoder, Model

if TYPE_CHECKING:
    import torch


TINY = "diffusers.AutoencoderTiny"  # what TAESD is


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

    `device` ("cuda", "cpu"), `dtype` ("float32", "float16", "bfloat16") and `rung` (one of placement.RUNGS) are chosen from what the machine has where
    they are left out. Where memory runs out, higher rungs are tried. Without `decoder` the VAE is not loaded: the model denoises only.
    Raises RequestError for a name that means nothing, a setting that is none, or files that are damaged.
    """
    on = device_for(device)
    rungs = placement.LADDERS["both" if decoder else "denoise"][on.type]
    rung = placement.nearest(checked_rung(rung, on), rungs)
    locked = locked or lock(name)
    family = FAMILIES[locked.spec.family]
    if family.second and decoder and family.vae == "vae":
        decoder = False  # the first leg decodes
    number = placement.dtype(on, dtype, family.half_overflows)
    import diffusers

    kind = getattr(diffusers, family.pipeline)  # imports what it needs, before the clock starts
    quiet()
    began = time.perf_counter()
    with _named(locked):
        pipe = climbing_load(lambda: _pipeline(locked, kind, number, decoder))
        start = rung or placement.first_rung(on, rungs, part_bytes(pipe))
        stands = placed(pipe, start, rungs, on)
    pipe.original_scheduler_config = locked.scheduler
    return Model(locked, pipe, time.perf_counter() - began, on, stands, rungs, dtype)


def load_decoder(locked: ModelLock, *, device: str | None = None, dtype: str | None = None, rung: str | None = None) -> Decoder:
    """A model's VAE alone, ready on this machine's device; the arguments are those of `load`."""
    locked = locked.decoding
    family, on = FAMILIES[locked.spec.family], device_for(device)
    _class(family.vae_class)  # imports what it needs, before any clock starts
    quiet()
    with _named(locked):
        vae = climbing_load(lambda: _vae(locked, placement.dtype(on, dtype, family.half_overflows)))
        rungs = placement.LADDERS["decode"][on.type]
        rung = placement.nearest(checked_rung(rung, on), rungs)
        stands = placed(vae, rung or placement.first_rung(on, rungs, [_bytes(vae)]), rungs, on)
    return Decoder(vae, locked.spec.family, on, stands)


def device_for(asked: str | None) -> torch.device:
    import torch

    found = placement.device()
    if asked not in (None, "cpu", "cuda"):
        raise RequestError(f"device {asked!r}: expected 'cuda' or 'cpu'")
    if asked == "cuda" and found.type != "cuda":
        raise RequestError("device 'cuda': this machine has no GPU that this torch build serves. What is wrong, and the mend: realkit doctor")
    return torch.device(asked) if asked else found


def checked_rung(asked: str | None, on: torch.device) -> str | None:
    rungs = placement.LADDERS["both"][on.type]
    if asked is not None and asked not in rungs:
        raise RequestError(f"rung {asked!r}: expected one of {', '.join(rungs)} on a {'GPU' if on.type == 'cuda' else 'CPU'}")
    return asked


def placed(tool: Any, rung: str, rungs: tuple[str, ...], on: torch.device) -> str:
    """Place a tool on a rung or, where memory runs out, on the next that holds it; return that one."""
    for stands in rungs[rungs.index(rung) :]:
        try:
            placement.place(tool, stands, on)
            return stands
        except Exception as error:
            if not placement.out_of_memory(error) or stands == rungs[-1]:
                raise
        placement.release()
    raise AssertionError("unreachable")


def climbing_load(read: Any) -> Any:
    """Read files into main memory; once more after giving back what can be given, where that runs out."""
    try:
        return read()
    except Exception as error:
        if not placement.out_of_memory(error):
            raise
    placement.release()
    return read()


def _pipeline(locked: ModelLock, kind: Any, number: torch.dtype, decoder: bool) -> Any:
    family, spec = FAMILIES[locked.spec.family], locked.spec
    index = hub.read_json(locked.configs, "model_index.json")
    without = [part for part, found in index.items() if found == [None, None] and part in modules(kind)] + [p for p, ref in spec.parts.items() if not ref]
    given: dict[str, Any] = dict(family.absent) | dict.fromkeys(without)
    for part, of in locked.parts.items():
        if part != family.vae:
            given[part] = _part(part, of, number, locked, index.get(part))
    takes_vae = family.vae in modules(kind)
    _class(family.vae_class)
    if takes_vae:
        given[family.vae] = _vae(locked, number) if decoder else None
    if locked.main.single:
        shipped = spec.config.removeprefix(hub.CONFIG)
        if shipped in single_file.KINDS:
            given = {key: value for key, value in single_file.arguments(shipped).items() if key != "config"} | given
        pipe = kind.from_single_file(str(hub.fetch(locked.main)), config=str(hub.fetch(locked.configs)), dtype=number, local_files_only=True, **given)
    else:
        pipe = kind.from_pretrained(str(hub.fetch(locked.main)), dtype=number, local_files_only=True, use_safetensors=True, **given)
    for ref, of in locked.loras.items():
        _merge_lora(pipe, ref, hub.fetch(of), spec.loras[ref])
    return pipe


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    found = importlib.import_module(module)
    if name == "PaellaVQModel" and not hasattr(pipelines := importlib.import_module("diffusers.pipelines"), "wuerstchen"):
        pipelines.wuerstchen = found  # type: ignore[attr-defined]  # where Stable Cascade's index names it, and diffusers has it no more
    return getattr(found, name)


def modules(kind: Any) -> set[str]:
    import inspect

    return set(inspect.signature(kind.__init__).parameters)


def _vae(locked: ModelLock, number: torch.dtype) -> Any:
    """The VAE, from the part that replaces it or the main reference; in float32 where its config says that float16 overflows it."""
    family = FAMILIES[locked.spec.family]
    part = locked.parts.get(family.vae)
    if part and not part.single:
        of, config_at = part, hub.fetch(part)
    else:
        of, config_at = part or locked.main, hub.fetch(locked.configs) / family.vae
    config = hub.json_object(config_at / "config.json")
    number = placement.vae_dtype(config, number)
    kind = _class(TINY if config.get("_class_name") == "AutoencoderTiny" else family.vae_class)
    if of.single:
        return kind.from_single_file(str(hub.fetch(of)), config=str(config_at), dtype=number, local_files_only=True)
    return kind.from_pretrained(str(config_at), dtype=number, local_files_only=True, use_safetensors=True)


def _part(name: str, of: hub.Lock, number: torch.dtype, locked: ModelLock, indexed: Any) -> Any:
    """A part that replaces the model's own, of the class that the model's index names."""
    library, kind = indexed if isinstance(indexed, list) and all(indexed) else PART_CLASSES[name]
    module = getattr(importlib.import_module(library), kind)
    path = hub.fetch(of)
    if name.startswith("tokenizer"):
        return module.from_pretrained(path)
    if of.single:
        if library != "diffusers":
            raise RequestError(f"Part {name!r} of model {locked.name!r} is a single file: expected a folder with its config.json")
        return module.from_single_file(str(path), config=str(hub.fetch(locked.configs) / name), dtype=number, local_files_only=True)
    return module.from_pretrained(path, dtype=number, use_safetensors=True)


def _merge_lora(pipe: Any, ref: str, path: Path, weight: float) -> None:
    """Add a LoRA to the weights, once: no cost while denoising, and no other state to offload."""
    from safetensors.torch import load_file

    try:
        import peft  # noqa: F401
    except ImportError:
        raise RequestError(f"LoRA {ref!r} needs the package peft: pip install peft") from None
    pipe.load_lora_weights(load_file(path), adapter_name="one")
    pipe.fuse_lora(lora_scale=weight)
    pipe.unload_lora_weights()


def part_bytes(pipe: Any) -> list[int]:
    import torch

    return [_bytes(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def _bytes(module: Any) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


@contextmanager
def _named(locked: ModelLock) -> Iterator[None]:
    """Turn what the libraries raise while loading into one line that names the model. Out of memory stays what it is."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        if isinstance(error, RequestError) or placement.out_of_memory(error):
            raise
        raise RequestError(f"Model {locked.name!r} does not load from {locked.main.ref!r}: {' '.join(str(error).split())[:300]}") from error


def quiet() -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_diffusers.disable_progress_bar()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
