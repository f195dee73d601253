"""The stage `score`: a scorer gives a picture a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from realkit.base.device import default_device
from realkit.base.measure import Stopwatch
from realkit.models.identity import name_of
from realkit.runs.jobs import Files, Job, Kit, Output, Planned, Row, Tool, jobs_of_one
from realkit.runs.stages.artifacts import read_picture
from realkit.scorers.score import cut_tokens, determined_score, load_scorer, uses_prompt
from realkit.scorers.table import Rate
from realkit.weights.lock import Lock


@dataclass(frozen=True)
class Score:
    """A picture, and its prompt where the scorer reads it, to a number; each of the sweep's
    scorers in turn."""

    kit: Kit
    name = "score"

    def jobs(self, planned: list[Planned]) -> list[Job]:
        return jobs_of_one(self._scores(planned))

    def _scores(self, planned: list[Planned]) -> Iterator[tuple[str, Tool, Planned, Row]]:
        for name in self.kit.scorers:
            tool, settings, reads_prompt = (
                Tool("scorer", name),
                determined_score(name),
                uses_prompt(name),
            )
            for item in planned:
                prompt = item.cell.prompt if reads_prompt else None
                determined = {"image": item.ids.image, "scorer": settings, "prompt": prompt}
                yield name_of("score", determined), tool, item, {"scorer": name, "prompt": prompt}

    def locks(self, tool: Tool) -> list[Lock]:
        lock = self.kit.scorers[tool.name]
        return [lock] if lock else []

    def load(self, tool: Tool) -> Rate:
        return load_scorer(tool.name, self.kit.scorers[tool.name])

    def work(self, tool: Rate, job: Job, files: Files) -> list[Output]:
        item, device = job.planned[0], default_device()
        image = read_picture(files, item.source(self.name))
        with Stopwatch(device) as scoring:
            value = tool(image, item.cell.prompt)
        if not math.isfinite(value):
            raise FloatingPointError(f"scorer {job.tool} gave {value}")
        row = {"id": job.artifacts[0], "parent": item.ids.image, "status": "ok", **job.facts}
        measured = {"value": value, "score_s": scoring.seconds, "device": device.type}
        if cut := cut_tokens(job.tool.name, item.cell.prompt):
            measured["cut"] = cut
        return [Output(row | measured)]
