"""The stage `decode`: a VAE turns latents into a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from realkit.base import measure
from realkit.base.measure import Stopwatch
from realkit.models import loading
from realkit.models.decoder import Decoder
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Tool, jobs_of_one
from realkit.runs.stages.artifacts import picture, read_latents
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class Decode:
    """Latents to a picture of the native size."""

    kit: Kit
    name = "decode"
    separable = False

    @cached_property
    def _owners(self) -> dict[str, str]:
        """Of each model, the first model with the same VAE: the VAE is loaded once, under the
        first model's name."""
        first: dict[str, str] = {}
        owners: dict[str, str] = {}
        for name, lock in self.kit.models.items():
            owners[name] = first.setdefault(lock.vae_fingerprint, name)
        return owners

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return jobs_of_one((item.ids.decoded, self._tool(item), item) for item in planned)

    def _tool(self, item: Planned) -> Tool:
        return Tool("vae", self._owners[item.cell.model], dtype=item.cell.dtype)

    def locks(self, tool: Tool) -> list[Lock]:
        return self.kit.models[tool.name].locks

    def load(self, tool: Tool) -> Decoder:
        lock = self.kit.models[tool.name]
        return loading.load_decoder(lock, dtype=tool.dtype, **self.kit.where)

    def work(self, tool: Decoder, job: Job, files: Files) -> list[Output]:
        item = job.planned[0]
        latents = read_latents(files, item.source(self.name))
        with Stopwatch(tool.device) as decoding:
            image = tool(latents)
        measured = {"decode_s": decoding.seconds, "rung": tool.rung}
        measured |= measure.energy_of(self.name, decoding)
        return [picture(self.kit, self.name, item, image, tool.device, measured)]
