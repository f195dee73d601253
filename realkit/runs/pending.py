"""The jobs of a stage that are left to do."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from realkit.runs.jobs import Job, Planned, Stage
from realkit.runs.records import ABOUT, FILED
from realkit.runs.store import Row, Store

# An artifact of these stages is needed only until one of a later stage exists:
# (later stage, field of Ids).
LATER = {
    "denoise": (("upscale", "image"), ("decode", "decoded"), ("refine", "latents")),
    "refine": (("upscale", "image"), ("decode", "decoded")),
    "decode": (("upscale", "image"),),
}


def pending(stage: Stage, planned: list[Planned], store: Store) -> list[Job]:
    """The jobs that miss an artifact that is needed. Cells without a source are left out of them:
    the source's row says why there is none."""
    rows = store.ok_rows()

    jobs = [_with_sources(stage.name, job, rows) for job in stage.jobs(planned)]
    parents: dict[str, str | None] = {}
    for job in jobs:
        for artifact, item in zip(job.artifacts, job.planned, strict=True):
            parents[artifact] = item.parent(stage.name)

    def done(name: str, artifact: str) -> bool:
        if artifact not in rows:
            return False
        if name in ABOUT and rows[artifact]["parent"] != parents[artifact]:
            return False  # what it says is of the picture that its row names
        return name not in FILED or store.has_file(name, artifact)

    needed = set(chain.from_iterable(job.artifacts for job in jobs))
    if later := LATER.get(stage.name):
        needed.clear()
        for item in planned:
            artifact = item.artifact(stage.name)
            # Of what a later stage used up, the row is still needed: the table reads it.
            if artifact not in rows or not any(
                done(name, getattr(item.ids, field)) for name, field in later
            ):
                needed.add(artifact)
    missing = {artifact for artifact in needed if not done(stage.name, artifact)}
    return [job for job in jobs if not missing.isdisjoint(job.artifacts)]


def _with_sources(stage: str, job: Job, rows: dict[str, Row]) -> Job:
    """The job without the cells whose source could not be made, and perhaps without any."""
    artifacts, items = [], []
    for artifact, item in zip(job.artifacts, job.planned, strict=True):
        parent = item.parent(stage)
        if parent is None or parent in rows:
            artifacts.append(artifact)
            items.append(item)
    weight = job.weight * len(items) // len(job.planned)
    return replace(job, artifacts=tuple(artifacts), planned=tuple(items), weight=weight)
