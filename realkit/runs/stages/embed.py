"""The stage `embed`: an encoder gives each picture of a batch an embedding, from which
`analysis.sets` and `analysis.edits` compute figures of sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realkit.base.device import default_device
from realkit.base.measure import Stopwatch
from realkit.models.identity import name_of
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Row, Tool, batched
from realkit.runs.stages.artifacts import read_picture
from realkit.scorers.encoders import (
    Loaded,
    Reader,
    as_jpeg,
    determined_encoder,
    engine_of,
    load_encoder,
    space_of,
)
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Embed:
    """Pictures, and their prompts where the encoder reads words, to embeddings; no part of whether
    a cell is ok."""

    kit: Kit
    name = "embed"
    separable = True

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return batched(self._embeddings(planned))

    def _embeddings(self, planned: list[Planned]) -> Iterator[tuple[str, Tool, Planned, Row]]:
        for name, lock in self.kit.encoders.items():
            determined, prompted = determined_encoder(name, lock), engine_of(name).prompted
            facts = {"encoder": name, "space": space_of(name, lock)}
            for item in planned:
                prompt = item.cell.prompt if prompted else None
                what = {"image": item.ids.image, "encoder": determined, "prompt": prompt}
                embedding = name_of("embed", what)
                yield embedding, Tool("encoder", name), item, facts | {"prompt": prompt}

    def locks(self, tool: Tool) -> list[Lock]:
        lock = self.kit.encoders[tool.name]
        return [lock] if lock else []

    def load(self, tool: Tool) -> Loaded:
        return load_encoder(tool.name, self.kit.encoders[tool.name])

    def work(self, tool: Loaded, job: Job, files: Files) -> list[Output]:
        device, size = default_device(), len(job.planned)
        images = [as_jpeg(read_picture(files, item.source(self.name))) for item in job.planned]
        with Stopwatch(device) as embedding:
            embeddings = tool.images(images)
        reader = tool if isinstance(tool, Reader) else None
        texts = reader.prompts([item.cell.prompt for item in job.planned]) if reader else None
        measured = {"status": "ok", "embed_s": embedding.seconds / size, "device": device.type}
        outputs = []
        for place, (artifact, item) in enumerate(zip(job.artifacts, job.planned, strict=True)):
            tensors = {"image": embeddings[place]}
            if reader and texts is not None:
                tensors |= {"prompt": texts[place], "scale": texts.new_tensor([reader.scale])}
            outputs.append(Output(job.row(artifact, item, self.name) | measured, saved(tensors)))
        return outputs


def saved(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors of one embedding as a file: `image` (D,), and where the encoder reads words
    `prompt` (D,) with the `scale` (1,) of their cosines. Raises FloatingPointError where one is not
    finite."""
    from safetensors.torch import save

    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise FloatingPointError("the embedding is not finite")
    return save({name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()})
