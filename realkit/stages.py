"""The stages of a cell's way. Each says what it loads, what is pending, and what one batch makes: rows, and what is to be filed with them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from realkit import enlarging, loading, measure, pictures, pipelines, placement, provenance, scorers, upscalers
from realkit.measure import Stopwatch
from realkit.samplers import SAMPLERS
from realkit.sweep import Cell, Ids, denoise_determined, name_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from realkit.hub import Lock
    from realkit.models import ModelLock

    Tools = dict[str, dict[str, Lock]]  # the locks of each upscaler's tools, by its name

Row = dict[str, Any]
Files = Mapping[tuple[str, str], bytes]  # (stage, artifact) → what that stage filed


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
class Kit:
    """All that any worker must be told to do a job of a run: what names mean, and where (device, rung) tools are asked to stand."""

    locks: dict[str, ModelLock]
    tools: Tools
    scoring: dict[str, Lock | None]  # scorers, with the lock of those whose weights lie in a folder
    where: dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A row and the contents of its file, if it has one: bytes, or a picture that `encoded` turns into them with `record` inside."""

    row: Row
    file: bytes | Image | None = None
    record: dict[str, Any] | None = None

    def encoded(self, run: str) -> Made:
        """The same as bytes; the run that made it goes into a picture's record, the hash of its pixels into both record and row."""
        if self.file is None or isinstance(self.file, bytes):
            return self
        pixels, whole = provenance.pixel_hash(self.file), io.BytesIO()
        provenance.save(provenance.annotate(self.file, {**(self.record or {}), "run": run, "pixels": pixels}), whole)
        return Made(self.row | {"pixels": pixels}, whole.getvalue())


class Damaged(OSError):
    """A file of an earlier stage that cannot be read: it is to be removed, so that the next run makes it again."""

    def __init__(self, stage: str, artifact: str) -> None:
        super().__init__(f"{artifact} of the stage {stage} was damaged and is removed: run again to make it anew")
        self.artifact = (stage, artifact)

    def __reduce__(self) -> Any:
        return type(self), self.artifact


@dataclass(frozen=True)
class Stage:
    """`jobs(planned)` lists all work of the stage, done or not; `reads(job)` the files it needs; `load(tool)` its tool; `work(tool, job, files)` one row an artifact.

    `locks(tool)` are the references that loading a tool reads.
    """

    name: str
    jobs: Callable[[list[Planned]], list[Job]]
    reads: Callable[[Job], tuple[tuple[str, str], ...]]
    locks: Callable[[str], list[Lock]]
    load: Callable[[str], Any]
    work: Callable[[Any, Job, Files], list[Made]]


def stages(kit: Kit) -> Iterator[Stage]:
    """The stages in their order."""
    locks = kit.locks

    def leg(tool: str, second: bool) -> pipelines.Model:
        name, number = _named(tool)
        lock = locks[name].then if second else locks[name]
        assert lock is not None
        return loading.load(lock.name, lock, dtype=number, decoder=False, **kit.where)

    def of_model(tool: str) -> list[Lock]:
        return locks[_named(tool)[0]].locks

    first, second = (partial(_denoise_jobs, second=number) for number in (False, True))
    yield Stage("denoise", first, lambda job: (), of_model, lambda tool: leg(tool, False), _denoise)
    if any(lock.then for lock in locks.values()):
        begun = lambda job: tuple(("denoise", item.ids.begun) for item in job.planned)  # noqa: E731
        yield Stage("refine", second, begun, of_model, lambda tool: leg(tool, True), lambda tool, job, files: _denoise(tool, job, files, locks))
    opener: dict[str, str] = {}  # the first model of each VAE: models that share one share its loading
    for name, lock in locks.items():
        opener.setdefault(lock.vae_fingerprint, name)
    vae_of = {name: opener[lock.vae_fingerprint] for name, lock in locks.items()}
    yield Stage(
        "decode",
        lambda planned: _decode_jobs(planned, vae_of),
        lambda job: (("denoise", job.planned[0].ids.latents),),
        of_model,
        lambda tool: loading.load_decoder(locks[_named(tool)[0]], dtype=_named(tool)[1], **kit.where),
        lambda tool, job, files: _decode(locks, tool, job, files),
    )

    def parts(tool: str) -> tuple[str, str, str | None]:
        """Of what the upscale stage loads: the upscaler, the model that it redraws with ("": none), and its number format."""
        name, by = (tool, "") if tool in kit.tools else tool.rsplit(" by ", 1)
        return (name, *_named(by))

    def upscaler(tool: str) -> enlarging.Loaded:
        name, model, number = parts(tool)
        return enlarging.load(name, kit.tools[name], locks.get(model), dtype=number, **kit.where)

    def of_upscaler(tool: str) -> list[Lock]:
        name, model, _ = parts(tool)
        return [*kit.tools[name].values(), *(locks[model].locks if model else [])]

    yield Stage(
        "upscale",
        _upscale_jobs,
        lambda job: (("decode", job.planned[0].ids.decoded),),
        of_upscaler,
        upscaler,
        lambda tool, job, files: _upscale(locks, kit.tools, tool, job, files),
    )
    yield Stage(
        "score",
        lambda planned: _score_jobs(planned, list(kit.scoring)),
        lambda job: (("upscale", job.planned[0].ids.image),),
        lambda tool: [lock for lock in [kit.scoring[tool]] if lock],
        lambda tool: scorers.load(tool, kit.scoring[tool]),
        _score,
    )


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


def _denoise(model: pipelines.Model, job: Job, files: Files, locks: dict[str, ModelLock] | None = None) -> list[Made]:
    """Denoise a batch; with `locks`, its second leg, from what the first left."""
    import torch
    from safetensors.torch import save

    first = job.planned[0].cell
    requests = [pipelines.Request(item.cell.prompt, item.cell.negative, item.cell.seed) for item in job.planned]
    went, begun, start = (first.sampler, first.steps, first.guidance), None, 0.0
    if locks is not None:
        spec = locks[first.model].spec
        assert spec.then is not None
        went, start = pipelines.second_leg(*went, model.spec), spec.then.at
        begun = torch.stack([_latents(files, item.ids.begun) for item in job.planned])
    made = model.denoise(requests, *went, (first.width, first.height), begun=begun, start=start)
    size = len(requests)
    shared = {
        "load_s": model.load_s, "encode_s": made.encode_s / size, "denoise_s": made.denoise_s / size, "batch": size, "nfe": made.nfe,
        "network_passes": made.network_passes, "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type, "rung": model.rung,
        **measure.memory(model.device), "scheduler": made.scheduler,
    }  # fmt: skip
    found = []
    for artifact, item, latents, truncated in zip(job.makes, job.planned, made.latents, made.truncated, strict=True):
        row = {"id": artifact, "parent": None if locks is None else item.ids.begun, "truncated_tokens": truncated, **shared}
        if latents.isfinite().all():
            found.append(Made(row | {"status": "ok"}, save({"latents": latents.contiguous()})))
        else:
            found.append(Made(row | {"status": "failed", "error_type": "FloatingPointError", "error": "the latents are not finite: try float32"}))
    return found


def _decode_jobs(planned: list[Planned], vae_of: dict[str, str]) -> list[Job]:
    items = {item.ids.decoded: item for item in reversed(planned)}
    return _by_tool([Job(_tool(vae_of[item.cell.model], item.cell), (artifact,), (item,)) for artifact, item in reversed(items.items())])


def _decode(locks: dict[str, ModelLock], decode: pipelines.Decoder, job: Job, files: Files) -> list[Made]:
    item = job.planned[0]
    latents = _latents(files, item.ids.latents)
    with Stopwatch(decode.device) as decoding:
        image = decode(latents)
    measured = {"decode_s": decoding.seconds, "device": decode.device.type, "rung": decode.rung}
    return [_drawn(locks, "decode", item, item.ids.latents, image, measured)]


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


def _upscale(locks: dict[str, ModelLock], tools: Tools, enlarge: enlarging.Loaded, job: Job, files: Files) -> list[Made]:
    item, on = job.planned[0], enlarge.device
    native = _picture(files, "decode", item.ids.decoded)
    assert item.cell.target is not None
    size = pictures.target_size(native.size, item.cell.target)
    enlarge.warm(native.size, size)
    with Stopwatch(on) as upscaling:
        image, used = enlarge(native, size, upscalers.settings_of(item.cell))
    how = upscalers.of_cell(item.cell, tools, locks[item.cell.model])
    measured = {"upscale_s": upscaling.seconds, "device": on.type, **used, **measure.memory(on)}
    return [_drawn(locks, "upscale", item, item.ids.decoded, image, measured, how)]


def _latents(files: Files, artifact: str) -> Any:
    from safetensors.torch import load

    try:
        return load(files["denoise", artifact])["latents"]
    except Exception as error:  # safetensors' own, and what torch makes of wrong sizes
        raise Damaged("denoise", artifact) from error


def _picture(files: Files, stage: str, artifact: str) -> Image:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(files[stage, artifact])) as image:
            image.load()
            return image
    except Exception as error:  # Pillow raises what the bytes provoke
        raise Damaged(stage, artifact) from error


def _drawn(locks: dict[str, ModelLock], stage: str, item: Planned, parent: str, image: Image, measured: Row, how: Any = None) -> Made:
    """A picture with its row, and what is to be noted in it."""
    artifact = item.ids.decoded if stage == "decode" else item.ids.image
    cell, lock = asdict(item.cell), locks[item.cell.model]
    determined = denoise_determined(item.cell, lock) | {"vae": lock.vae_fingerprint}
    if stage == "decode":
        cell |= {"upscaler": None, "target": None, "strength": None}
    else:
        determined |= {"upscaler": how, "target": image.size}
    row = {"id": artifact, "parent": parent, "status": "ok", "image_width": image.width, "image_height": image.height, **measured}
    return Made(row, image, {"id": artifact, "stage": stage, "cell": cell, "determined": determined})


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


def _score(rate: scorers.Rate, job: Job, files: Files) -> list[Made]:
    item, on = job.planned[0], placement.device()
    image = _picture(files, "upscale", item.ids.image)
    with Stopwatch(on) as scoring:
        value = rate(image, item.cell.prompt)
    if not math.isfinite(value):
        raise FloatingPointError(f"scorer {job.tool} gave {value}")
    prompt = item.cell.prompt if scorers.uses_prompt(job.tool) else None
    row = {"id": job.makes[0], "parent": item.ids.image, "status": "ok", "scorer": job.tool, "prompt": prompt, "value": value}
    return [Made(row | {"score_s": scoring.seconds, "device": on.type})]
