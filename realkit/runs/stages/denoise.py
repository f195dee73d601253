"""The stages of a cell's way. Each says what it loads, what is pending, and what one batch makes:
rows, and what is to be filed with them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from realkit.base import device, measure, pictures
from realkit.base.device import DTYPES
from realkit.base.measure import Stopwatch
from realkit.models import legs, loading
from realkit.models.decoder import Decoder
from realkit.models.identity import denoise_determined, name_of
from realkit.models.model import Model
from realkit.runs.jobs import Damaged, Files, Job, Kit, Made, Planned, Row, Stage
from realkit.samplers.table import SAMPLERS
from realkit.scorers.score import determined_score, load_scorer, uses_prompt
from realkit.scorers.table import Rate
from realkit.sweeps import ids
from realkit.sweeps.cell import Cell
from realkit.upscalers import upscale
from realkit.upscalers.table import uses
from realkit.upscalers.upscale import Loaded

if TYPE_CHECKING:
    from PIL.Image import Image

    from realkit.models.lock import ModelLock
    from realkit.runs.jobs import UpscalerLocks
    from realkit.weights.lock import Lock


def stages(kit: Kit) -> Iterator[Stage]:
    """The stages in their order."""
    locks = kit.locks

    def leg(tool: str, second: bool) -> Model:
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
        yield Stage(
            "refine",
            second,
            begun,
            of_model,
            lambda tool: leg(tool, True),
            lambda tool, job, files: _denoise(tool, job, files, locks),
        )
    opener: dict[
        str, str
    ] = {}  # the first model of each VAE: models that share one share its loading
    for name, lock in locks.items():
        opener.setdefault(lock.vae_fingerprint, name)
    vae_of = {name: opener[lock.vae_fingerprint] for name, lock in locks.items()}
    yield Stage(
        "decode",
        lambda planned: _decode_jobs(planned, vae_of),
        lambda job: (("denoise", job.planned[0].ids.latents),),
        of_model,
        lambda tool: loading.load_decoder(
            locks[_named(tool)[0]], dtype=_named(tool)[1], **kit.where
        ),
        lambda tool, job, files: _decode(locks, tool, job, files),
    )

    def parts(tool: str) -> tuple[str, str, str | None]:
        """Of what the upscale stage loads: the upscaler, the model that it redraws with ("": none),
        and its number format."""
        name, by = (tool, "") if tool in kit.tools else tool.rsplit(" by ", 1)
        return (name, *_named(by))

    def upscaler(tool: str) -> Loaded:
        name, model, number = parts(tool)
        return upscale.load_upscaler(
            name, kit.tools[name], locks.get(model), dtype=number, **kit.where
        )

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
        lambda tool: load_scorer(tool, kit.scoring[tool]),
        _score,
    )


def _tool(model: str, cell: Cell) -> str:
    """What a stage loads for a cell: a model, in a number format where one is asked for."""
    return f"{model} in {cell.dtype}" if cell.dtype else model


def _named(tool: str) -> tuple[str, str | None]:
    model, _, number = tool.rpartition(" in ")
    return (model, number) if number in DTYPES else (tool, None)


def _denoise_jobs(planned: list[Planned], second: bool) -> list[Job]:
    """Batches of the first leg, or of the second."""
    batches: dict[int, dict[str, Planned]] = {}
    for item in planned:
        if not second or item.ids.begun:
            batches.setdefault(item.batch, {}).setdefault(
                item.ids.latents if second else item.ids.begun or item.ids.latents, item
            )
    jobs = []
    for _, items in sorted(batches.items()):
        first = next(iter(items.values())).cell
        calls = SAMPLERS[first.sampler].nfe(first.steps) * len(items)
        jobs.append(Job(_tool(first.model, first), tuple(items), tuple(items.values()), calls))
    return jobs


def _denoise(
    model: Model, job: Job, files: Files, locks: dict[str, ModelLock] | None = None
) -> list[Made]:
    """Denoise a batch; with `locks`, its second leg, from what the first left."""
    import torch
    from safetensors.torch import save

    first = job.planned[0].cell
    requests, begun, start = [item.cell for item in job.planned], None, 0.0
    if locks is not None:
        spec = locks[first.model].spec
        assert spec.then is not None
        requests, start = [legs.second_leg(cell, model.spec) for cell in requests], spec.then.at
        begun = torch.stack([_latents(files, item.ids.begun) for item in job.planned])
    made = model.denoise(requests, begun=begun, start=start)
    size = len(requests)
    shared = {
        "load_s": model.load_s,
        "encode_s": made.encode_s / size,
        "denoise_s": made.denoise_s / size,
        "batch": size,
        "nfe": made.nfe,
        "network_passes": made.network_passes,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "rung": model.rung,
        **measure.memory(model.device),
        "scheduler": made.scheduler,
    }
    found = []
    for artifact, item, latents, truncated in zip(
        job.makes, job.planned, made.latents, made.truncated, strict=True
    ):
        row = {
            "id": artifact,
            "parent": None if locks is None else item.ids.begun,
            "truncated_tokens": truncated,
            **shared,
        }
        if latents.isfinite().all():
            found.append(Made(row | {"status": "ok"}, save({"latents": latents.contiguous()})))
        else:
            found.append(
                Made(
                    row
                    | {
                        "status": "failed",
                        "error_type": "FloatingPointError",
                        "error": "the latents are not finite: try float32",
                    }
                )
            )
    return found


def _decode_jobs(planned: list[Planned], vae_of: dict[str, str]) -> list[Job]:
    items = {item.ids.decoded: item for item in reversed(planned)}
    return _by_tool(
        [
            Job(_tool(vae_of[item.cell.model], item.cell), (artifact,), (item,))
            for artifact, item in reversed(items.items())
        ]
    )


def _decode(locks: dict[str, ModelLock], decode: Decoder, job: Job, files: Files) -> list[Made]:
    item = job.planned[0]
    latents = _latents(files, item.ids.latents)
    with Stopwatch(decode.device) as decoding:
        image = decode(latents)
    measured = {"decode_s": decoding.seconds, "device": decode.device.type, "rung": decode.rung}
    return [_drawn(locks, "decode", item, item.ids.latents, image, measured)]


def _upscale_jobs(planned: list[Planned]) -> list[Job]:
    items = {item.ids.image: item for item in reversed(planned) if item.cell.upscaler is not None}
    return _by_tool(
        [
            Job(_upscaler(item.cell), (artifact,), (item,))
            for artifact, item in reversed(items.items())
        ]
    )


def _upscaler(cell: Cell) -> str:
    """What the upscale stage loads for a cell: an upscaler, and the model that it redraws with."""
    name = str(cell.upscaler)
    return f"{name} by {_tool(cell.model, cell)}" if "model" in uses(name) else name


def _by_tool(jobs: list[Job]) -> list[Job]:
    """The same jobs, those of one tool together, tools in the order they are first met."""
    tools = list(dict.fromkeys(job.tool for job in jobs))
    return sorted(jobs, key=lambda job: tools.index(job.tool))


def _upscale(
    locks: dict[str, ModelLock], tools: UpscalerLocks, enlarge: Loaded, job: Job, files: Files
) -> list[Made]:
    item, on = job.planned[0], enlarge.device
    native = _picture(files, "decode", item.ids.decoded)
    assert item.cell.target is not None
    size = pictures.target_size(native.size, item.cell.target)
    enlarge.warm(native.size, size)
    with Stopwatch(on) as upscaling:
        image, used = enlarge(native, size, ids.settings_of(item.cell))
    how = ids.of_cell(item.cell, tools, locks[item.cell.model])
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


def _drawn(
    locks: dict[str, ModelLock],
    stage: str,
    item: Planned,
    parent: str,
    image: Image,
    measured: Row,
    how: Any = None,
) -> Made:
    """A picture with its row, and what is to be noted in it."""
    artifact = item.ids.decoded if stage == "decode" else item.ids.image
    cell, lock = asdict(item.cell), locks[item.cell.model]
    determined = denoise_determined(item.cell, lock) | {"vae": lock.vae_fingerprint}
    if stage == "decode":
        cell |= {"upscaler": None, "target": None, "strength": None}
    else:
        determined |= {"upscaler": how, "target": image.size}
    row = {
        "id": artifact,
        "parent": parent,
        "status": "ok",
        "image_width": image.width,
        "image_height": image.height,
        **measured,
    }
    return Made(
        row, image, {"id": artifact, "stage": stage, "cell": cell, "determined": determined}
    )


def _score_jobs(planned: list[Planned], scoring: list[str]) -> list[Job]:
    jobs = []
    for name in scoring:
        settings = determined_score(name)
        items: dict[str, Planned] = {}
        for item in planned:
            prompt = item.cell.prompt if uses_prompt(name) else None
            items.setdefault(
                name_of("score", {"image": item.ids.image, "scorer": settings, "prompt": prompt}),
                item,
            )
        jobs += [Job(name, (artifact,), (item,)) for artifact, item in items.items()]
    return jobs


def _score(rate: Rate, job: Job, files: Files) -> list[Made]:
    item, on = job.planned[0], device.default_device()
    image = _picture(files, "upscale", item.ids.image)
    with Stopwatch(on) as scoring:
        value = rate(image, item.cell.prompt)
    if not math.isfinite(value):
        raise FloatingPointError(f"scorer {job.tool} gave {value}")
    prompt = item.cell.prompt if uses_prompt(job.tool) else None
    row = {
        "id": job.makes[0],
        "parent": item.ids.image,
        "status": "ok",
        "scorer": job.tool,
        "prompt": prompt,
        "value": value,
    }
    return [Made(row | {"score_s": scoring.seconds, "device": on.type})]
