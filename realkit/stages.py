"""The stages of a cell's way. Each says what it loads, what is pending, and what one batch makes: files and rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from realkit import enlarging, loading, measure, pictures, pipelines, placement, provenance, scorers, upscalers
from realkit.measure import Stopwatch
from realkit.samplers import SAMPLERS
from realkit.store import Store, write_atomically
from realkit.sweep import Cell, Ids, denoise_determined, name_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from realkit.hub import Lock
    from realkit.models import ModelLock

    Tools = dict[str, dict[str, Lock]]  # the locks of each upscaler's tools, by its name

Row = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A cell with its ids and the denoising batch it belongs to."""

    cell: Cell
    ids: Ids
    batch: int


@dataclass(frozen=True)
class Job:
    """One batch of one stage: the artifact ids it makes, the cells they belong to, how heavy it is."""

    tool: str
    makes: tuple[str, ...]
    planned: tuple[Planned, ...]
    weight: int = 1


@dataclass(frozen=True)
class Stage:
    """`jobs(planned)` lists all work of the stage, done or not; `load(tool)` its tool; `work(tool, job)` one row an artifact."""

    name: str
    jobs: Callable[[list[Planned]], list[Job]]
    load: Callable[[str], Any]
    work: Callable[[Any, Job], list[Row]]


def stages(store: Store, locks: dict[str, ModelLock], tools: Tools, scoring: list[str], run: str, where: dict[str, Any]) -> Iterator[Stage]:
    """The stages in their order, bound to a results folder; `where` holds the device and first rung that were asked for."""

    def leg(tool: str, second: bool) -> pipelines.Model:
        name, number = _named(tool)
        lock = locks[name].then if second else locks[name]
        assert lock is not None
        return loading.load(lock.name, lock, dtype=number, decoder=False, **where)

    yield Stage("denoise", partial(_denoise_jobs, second=False), lambda tool: leg(tool, False), lambda tool, job: _denoise(store, tool, job))
    if any(lock.then for lock in locks.values()):
        yield Stage("refine", partial(_denoise_jobs, second=True), lambda tool: leg(tool, True), lambda tool, job: _denoise(store, tool, job, locks))
    opener: dict[str, str] = {}  # the first model of each VAE: models that share one share its loading
    for name, lock in locks.items():
        opener.setdefault(lock.vae_fingerprint, name)
    vae_of = {name: opener[lock.vae_fingerprint] for name, lock in locks.items()}
    yield Stage(
        "decode",
        lambda planned: _decode_jobs(planned, vae_of),
        lambda tool: loading.load_decoder(locks[_named(tool)[0]], dtype=_named(tool)[1], **where),
        lambda tool, job: _decode(store, locks, run, tool, job),
    )

    def upscaler(tool: str) -> enlarging.Loaded:
        name, by = (tool, "") if tool in tools else tool.rsplit(" by ", 1)
        model, number = _named(by)
        return enlarging.load(name, tools[name], locks.get(model), dtype=number, **where)

    yield Stage("upscale", _upscale_jobs, upscaler, lambda tool, job: _upscale(store, locks, tools, run, tool, job))
    yield Stage("score", lambda planned: _score_jobs(planned, scoring), scorers.load, lambda tool, job: _score(store, tool, job))


def _tool(model: str, cell: Cell) -> str:
    """What a stage loads for a cell: a model, in a number format where one is asked for."""
    return f"{model} in {cell.dtype}" if cell.dtype else model


def _named(tool: str) -> tuple[str, str | None]:
    model, _, number = tool.rpartition(" in ")
    return (model, number) if number in placement.DTYPES else (tool, None)


def _denoise_jobs(planned: list[Planned], second: bool) -> list[Job]:
    """Batches of the first leg, or of the second."""
    batches: dict[int, dict[str, Planned]] = {}
    for item in planned:
        if not second or item.ids.begun:
            batches.setdefault(item.batch, {}).setdefault(item.ids.latents if second else item.ids.begun or item.ids.latents, item)
    jobs = []
    for _, items in sorted(batches.items()):
        first = next(iter(items.values())).cell
        calls = SAMPLERS[first.sampler].nfe(first.steps) * len(items)
        jobs.append(Job(_tool(first.model, first), tuple(items), tuple(items.values()), calls))
    return jobs


def _denoise(store: Store, model: pipelines.Model, job: Job, locks: dict[str, ModelLock] | None = None) -> list[Row]:
    """Denoise a batch; with `locks`, its second leg, from what the first left."""
    import torch
    from safetensors.torch import load_file, save

    first = job.planned[0].cell
    requests = [pipelines.Request(item.cell.prompt, item.cell.negative, item.cell.seed) for item in job.planned]
    went, begun, start = (first.sampler, first.steps, first.guidance), None, 0.0
    if locks is not None:
        spec = locks[first.model].spec
        assert spec.then is not None
        went, start = pipelines.second_leg(*went, model.spec), spec.then.at
        begun = torch.stack([_opened(store.path("denoise", item.ids.begun), load_file)["latents"] for item in job.planned])
    made = model.denoise(requests, *went, (first.width, first.height), begun=begun, start=start)
    size = len(requests)
    shared = {
        "load_s": model.load_s, "encode_s": made.encode_s / size, "denoise_s": made.denoise_s / size, "batch": size, "nfe": made.nfe,
        "network_passes": made.network_passes, "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type, "rung": model.rung,
        **measure.memory(model.device), "scheduler": made.scheduler,
    }  # fmt: skip
    rows = []
    for artifact, item, latents, truncated in zip(job.makes, job.planned, made.latents, made.truncated, strict=True):
        row = {"id": artifact, "parent": None if locks is None else item.ids.begun, "truncated_tokens": truncated, **shared}
        if latents.isfinite().all():
            data = save({"latents": latents.contiguous()})
            write_atomically(store.path("denoise", artifact), partial(_pour, data))
            rows.append(row | {"status": "ok"})
        else:
            rows.append(row | {"status": "failed", "error_type": "FloatingPointError", "error": "the latents are not finite: try float32"})
    return rows


def _pour(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _decode_jobs(planned: list[Planned], vae_of: dict[str, str]) -> list[Job]:
    items = {item.ids.decoded: item for item in reversed(planned)}
    return _by_tool([Job(_tool(vae_of[item.cell.model], item.cell), (artifact,), (item,)) for artifact, item in reversed(items.items())])


def _decode(store: Store, locks: dict[str, ModelLock], run: str, decode: pipelines.Decoder, job: Job) -> list[Row]:
    from safetensors.torch import load_file

    item = job.planned[0]
    latents = _opened(store.path("denoise", item.ids.latents), load_file)["latents"]
    with Stopwatch(decode.device) as decoding:
        image = decode(latents)
    return [
        _filed(store, locks, run, "decode", item, item.ids.latents, image, {"decode_s": decoding.seconds, "device": decode.device.type, "rung": decode.rung})
    ]


def _upscale_jobs(planned: list[Planned]) -> list[Job]:
    items = {item.ids.image: item for item in reversed(planned) if item.cell.upscaler is not None}
    return _by_tool([Job(_upscaler(item.cell), (artifact,), (item,)) for artifact, item in reversed(items.items())])


def _upscaler(cell: Cell) -> str:
    """What the upscale stage loads for a cell: an upscaler, and the model that it redraws with."""
    name = str(cell.upscaler)
    return f"{name} by {_tool(cell.model, cell)}" if "model" in upscalers.uses(name) else name


def _by_tool(jobs: list[Job]) -> list[Job]:
    """The same jobs, those of one tool together, tools in the order they are first met."""
    tools = list(dict.fromkeys(job.tool for job in jobs))
    return sorted(jobs, key=lambda job: tools.index(job.tool))


def _upscale(store: Store, locks: dict[str, ModelLock], tools: Tools, run: str, enlarge: enlarging.Loaded, job: Job) -> list[Row]:
    item, on = job.planned[0], enlarge.device
    native = _opened(store.path("decode", item.ids.decoded), _picture)
    assert item.cell.target is not None
    size = pictures.target_size(native.size, item.cell.target)
    enlarge.warm(native.size, size)
    with Stopwatch(on) as upscaling:
        image, used = enlarge(native, size, upscalers.settings_of(item.cell))
    how = upscalers.of_cell(item.cell, tools, locks[item.cell.model])
    measured = {"upscale_s": upscaling.seconds, "device": on.type, **used, **measure.memory(on)}
    return [_filed(store, locks, run, "upscale", item, item.ids.decoded, image, measured, how)]


def _opened(path: Path, opener: Callable[[Path], Any]) -> Any:
    """What a file artifact holds. One that is damaged is removed, so that the next run makes it again."""
    try:
        return opener(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name} was damaged and is removed: run again to make it anew") from error


def _picture(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image


def _filed(store: Store, locks: dict[str, ModelLock], run: str, stage: str, item: Planned, parent: str, image: Image, measured: Row, how: Any = None) -> Row:
    """File a picture with its provenance; return its row."""
    artifact = item.ids.decoded if stage == "decode" else item.ids.image
    cell, lock = asdict(item.cell), locks[item.cell.model]
    determined = denoise_determined(item.cell, lock) | {"vae": lock.vae_fingerprint}
    if stage == "decode":
        cell |= {"upscaler": None, "target": None, "strength": None}
    else:
        determined |= {"upscaler": how, "target": image.size}
    pixels = provenance.pixel_hash(image)
    record = {"id": artifact, "stage": stage, "cell": cell, "determined": determined, "run": run, "pixels": pixels}
    write_atomically(store.path(stage, artifact), lambda file: provenance.save(provenance.annotate(image, record), file))
    return {"id": artifact, "parent": parent, "status": "ok", "pixels": pixels, "image_width": image.width, "image_height": image.height, **measured}


def _score_jobs(planned: list[Planned], scoring: list[str]) -> list[Job]:
    jobs = []
    for name in scoring:
        settings = scorers.determined(name)
        items: dict[str, Planned] = {}
        for item in planned:
            prompt = item.cell.prompt if scorers.uses_prompt(name) else None
            items.setdefault(name_of("score", {"image": item.ids.image, "scorer": settings, "prompt": prompt}), item)
        jobs += [Job(name, (artifact,), (item,)) for artifact, item in items.items()]
    return jobs


def _score(store: Store, rate: scorers.Rate, job: Job) -> list[Row]:
    item, on = job.planned[0], placement.device()
    image = _opened(store.path("upscale", item.ids.image), _picture)
    with Stopwatch(on) as scoring:
        value = rate(image, item.cell.prompt)
    if not math.isfinite(value):
        raise FloatingPointError(f"scorer {job.tool} gave {value}")
    prompt = item.cell.prompt if scorers.uses_prompt(job.tool) else None
    row = {"id": job.makes[0], "parent": item.ids.image, "status": "ok", "scorer": job.tool, "prompt": prompt, "value": value}
    return [row | {"score_s": scoring.seconds, "device": on.type}]
