"""The stages of a cell's way, one a file."""

from __future__ import annotations

from realkit.runs.jobs import Kit, Stage
from realkit.runs.stages.decode import Decode
from realkit.runs.stages.denoise import FirstLeg, SecondLeg
from realkit.runs.stages.embed import Embed
from realkit.runs.stages.score import Score
from realkit.runs.stages.upscale import Upscale


def stages(kit: Kit) -> list[Stage]:
    """The stages of a run in their order."""
    return [FirstLeg(kit), SecondLeg(kit), Decode(kit), Upscale(kit), Score(kit), Embed(kit)]
