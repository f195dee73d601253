"""The stage `score`: a scorer gives each picture of a batch a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from realkit.base.device import default_device
from realkit.base.measure import Stopwatch
from realkit.models.identity import name_of
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Row, Tool, batched
from realkit.runs.stages.artifacts import read_picture
from realkit.scorers.score import cut_tokens, determined_score, load_scorer, uses_prompt
from realkit.scorers.table import Rate
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class Score:
    """Pictures, and their prompts where the scorer reads them, to numbers; each of the sweep's
    scorers in turn."""

    kit: Kit
    name = "score"
    separable = True

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return batched(self._scores(planned))

    def _scores(self, planned: list[Planned]) -> Iterator[tuple[str, Tool, Planned, Row]]:
        for name in self.kit.scorers:
            tool = Tool("scorer", name)
            settings = determined_score(name, self.kit.scorers[name])
            reads_prompt = uses_prompt(name)
            for item in planned:
                prompt = item.cell.prompt if reads_prompt else None
                determined = {"image": item.ids.image, "scorer": settings, "prompt": prompt}
                yield name_of("score", determined), tool, item, {"scorer": name, "prompt": prompt}

    def locks(self, tool: Tool) -> list[Lock]:
        return list(self.kit.scorers[tool.name].values())

    def load(self, tool: Tool) -> Rate:
        return load_scorer(tool.name, self.kit.scorers[tool.name])

    def work(self, tool: Rate, job: Job, files: Files) -> list[Output]:
        device, prompts = default_device(), [item.cell.prompt for item in job.planned]
        images = [read_picture(files, item.source(self.name)) for item in job.planned]
        with Stopwatch(device) as scoring:
            values = tool(images, prompts)
        size, locks = len(job.planned), self.kit.scorers[job.tool.name]
        measured = {"status": "ok", "score_s": scoring.seconds / size, "device": device.type}
        outputs = []
        for artifact, item, value in zip(job.artifacts, job.planned, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(f"scorer {job.tool} gave {value}")
            row = job.row(artifact, item, self.name) | measured | {"value": value}
            if cut := cut_tokens(job.tool.name, item.cell.prompt, locks):
                row["cut"] = cut
            outputs.append(Output(row))
        return outputs
