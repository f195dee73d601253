"""The miniatures of published scorers, in place of the shipped entries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from realkit.scorers.table import SCORERS, Scorer
from tests import scorer_miniatures
from tests.scorer_miniatures import PUBLISHED


@dataclass
class Made:
    root: Path
    folders: dict[str, Path]
    entries: dict[str, Scorer]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    import open_clip
    import torch

    root = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    open_clip.add_model_config(scorer_miniatures.architecture(root / "open_clip"))
    folders = scorer_miniatures.repositories(root)
    head = str(scorer_miniatures.laion(root / "laion" / "sac+logos+ava1-l14-linearMSE.pth"))
    entries = {name: scorer_miniatures.entry(name, folders, head) for name in PUBLISHED}
    return Made(root, folders, entries)


@pytest.fixture
def published(made, monkeypatch):
    monkeypatch.setenv("REALKIT_CACHE", str(made.root / "cache"))
    monkeypatch.setitem(SCORERS.__dict__, "_entries", dict(SCORERS) | made.entries)
