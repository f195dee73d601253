"""The stage `denoise`: a model turns batches of prompts into latents. A second model may continue
them, in the stage `refine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from realkit.base import measure
from realkit.models import legs, loading
from realkit.models.lock import ModelLock
from realkit.models.model import Denoised, Model
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Row, Tool
from realkit.runs.stages.artifacts import read_latents
from realkit.samplers.table import SAMPLERS
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class FirstLeg:
    """The first or only leg: noise to latents."""

    kit: Kit
    name = "denoise"
    separable = False

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return _jobs(self.name, planned)

    def locks(self, tool: Tool) -> list[Lock]:
        return self.kit.models[tool.name].locks

    def load(self, tool: Tool) -> Model:
        return _load(self.kit, self.kit.models[tool.name], tool)

    def work(self, tool: Model, job: Job, files: Files) -> list[Output]:
        denoised = tool.denoise([item.cell for item in job.planned])
        return _rows(self.name, tool, job, denoised)


@dataclass(frozen=True)
class SecondLeg:
    """The second leg, of models that have one: the first leg's latents to the final ones."""

    kit: Kit
    name = "refine"  # as in the rows of every folder so far
    separable = False

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return _jobs(self.name, [item for item in planned if item.ids.begun])

    def locks(self, tool: Tool) -> list[Lock]:
        return self.kit.models[tool.name].locks

    def load(self, tool: Tool) -> Model:
        lock = self.kit.models[tool.name].then
        assert lock is not None
        return _load(self.kit, lock, tool)

    def work(self, tool: Model, job: Job, files: Files) -> list[Output]:
        import torch

        spec = self.kit.models[job.tool.name].spec
        assert spec.then is not None
        requests = [legs.second_leg(item.cell, tool.spec) for item in job.planned]
        begun = torch.stack([read_latents(files, item.source(self.name)) for item in job.planned])
        denoised = tool.denoise(requests, begun=begun, start=spec.then.at)
        return _rows(self.name, tool, job, denoised)


def _jobs(stage: str, planned: Sequence[Planned]) -> list[Job]:
    """A job for each planned batch."""
    batches: dict[int, dict[str, Planned]] = {}
    for item in planned:
        batches.setdefault(item.batch, {}).setdefault(item.artifact(stage), item)
    jobs = []
    for _, items in sorted(batches.items()):
        cell = next(iter(items.values())).cell
        tool = Tool("model", cell.model, dtype=cell.dtype)
        calls = SAMPLERS[cell.sampler].nfe(cell.steps) * len(items)
        jobs.append(Job(tool, tuple(items), tuple(items.values()), calls))
    return jobs


def _load(kit: Kit, lock: ModelLock, tool: Tool) -> Model:
    return loading.load(lock.name, lock, dtype=tool.dtype, decoder=False, **kit.where)


def _rows(stage: str, model: Model, job: Job, denoised: Denoised) -> list[Output]:
    """A row and a file for each picture of a batch; latents that are not finite are a failure."""
    from safetensors.torch import save

    size = len(job.planned)
    shared = {
        "load_s": model.load_s,
        "encode_s": denoised.encode_s / size,
        "denoise_s": denoised.denoise_s / size,
        "batch": size,
        "nfe": denoised.nfe,
        "network_passes": denoised.network_passes,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "rung": model.rung,
        **measure.memory(model.device),
        "scheduler": denoised.scheduler,
    }
    if denoised.denoise_j is not None:
        shared["denoise_j"] = denoised.denoise_j / size
    outputs = []
    pictures = zip(job.planned, denoised.latents, denoised.cut_tokens, strict=True)
    for item, latents, cut in pictures:
        row: Row = {"id": item.artifact(stage), "parent": item.parent(stage)}
        row |= {"truncated_tokens": cut.get("prompt", {}).get("cut", 0)} | shared
        if cut:
            row["cut_tokens"] = cut
        if latents.isfinite().all():
            outputs.append(Output(row | {"status": "ok"}, save({"latents": latents.contiguous()})))
        else:
            error = {"error_type": "FloatingPointError"}
            error["error"] = "the latents are not finite: try float32"
            outputs.append(Output(row | {"status": "failed"} | error))
    return outputs
