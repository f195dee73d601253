"""What the tests of results folders share."""

from __future__ import annotations

import pytest

import realkit as rk

SWEEP = {
    "models": "rehearsal/base",
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 2,
    "steps": 2,
    "size": 64,
    "scorers": ["colour-cast"],
}


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    """Two runs that share one cell, and have one each of their own; in the second one an upscaler
    too. Leave them as they are."""
    folder = tmp_path_factory.mktemp("halves")
    rk.run(SWEEP | {"seeds": [0, 1]}, folder / "a")
    rk.run(SWEEP | {"seeds": [1, 2], "upscalers": [None, "lanczos"], "target": 200}, folder / "b")
    return folder / "a", folder / "b"
