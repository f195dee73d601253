"""The stage `upscale`: an upscaler, or a chain of them, enlarges a picture to its exact target."""

from __future__ import annotations

from dataclasses import dataclass

from realkit.base import measure
from realkit.base.measure import Stopwatch
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Tool, jobs_of_one
from realkit.runs.stages.artifacts import picture, read_picture
from realkit.sweeps import ids
from realkit.sweeps.cell import Cell
from realkit.upscalers import upscale
from realkit.upscalers.chain import Chain
from realkit.upscalers.upscale import Loaded
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class Upscale:
    """A picture to a larger one, of the cells that have an upscaler."""

    kit: Kit
    name = "upscale"
    separable = False

    def jobs(self, planned: list[Planned]) -> list[Job]:
        enlarged = [item for item in planned if item.cell.upscaler is not None]
        return jobs_of_one((item.ids.image, _tool(item.cell), item) for item in enlarged)

    def locks(self, tool: Tool) -> list[Lock]:
        locks = list(self.kit.upscalers[tool.name].values())
        return locks + self.kit.models[tool.model].locks if tool.model else locks

    def load(self, tool: Tool) -> Loaded:
        locks, model = self.kit.upscalers[tool.name], self.kit.models.get(tool.model)
        return upscale.load_upscaler(
            Chain.parse(tool.name), locks, model, dtype=tool.dtype, **self.kit.where
        )

    def work(self, tool: Loaded, job: Job, files: Files) -> list[Output]:
        item, device = job.planned[0], tool.device
        native = read_picture(files, item.source(self.name))
        size = item.cell.pixels
        tool.warm(native.size, size)
        with Stopwatch(device) as upscaling:
            image, used = tool(native, size, ids.settings_of(item.cell, tool.chain))
        determined = ids.of_cell(item.cell, self.kit.upscalers, self.kit.models[item.cell.model])
        measured = {"upscale_s": upscaling.seconds, **used, **measure.memory(device)}
        measured |= measure.energy_of(self.name, upscaling)
        return [picture(self.kit, self.name, item, image, device, measured, determined)]


def _tool(cell: Cell) -> Tool:
    """The upscaler of a cell, with the cell's model and number format where it redraws."""
    name = str(cell.upscaler)
    if Chain.parse(name).redraws:
        return Tool("upscaler", name, cell.model, cell.dtype)
    return Tool("upscaler", name)
