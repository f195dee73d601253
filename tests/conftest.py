"""What several test files share: one small finished run, and results folders of one's own."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches out
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
if workers := int(
    os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")
):  # torch would start a thread a core in each worker
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import realkit as rk
from tests.browser import HOSTILE

SMALL = dict(
    models="rehearsal/base", samplers=["Euler", "Euler a"],
    prompts=["a photo of a matte red cube on grass at noon", "a blue sphere"], seeds=2, steps=3,
    size=64, scorers=["rehearsal/clip", "colour-cast"],
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage() -> None:
    """Leave the half million objects of torch, diffusers and pytest out of the garbage collections
    to come.

    A run collects three times, after each model it lets go: without this, most of a small run's
    time.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or libraries bound by nanobind call them leaks


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A finished run of SMALL. Read it, do not write to it."""
    return rk.run(rk.Sweep(**SMALL), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A finished run whose prompts are scripts, two pictures of each of the three. Read it, do not
    write to it."""
    own = dict(prompts=list(HOSTILE), seeds=1, steps=2, scorers=[])
    return rk.run(rk.Sweep(**SMALL | own), tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture(scope="session")
def base():
    return rk.load("rehearsal/base")


@pytest.fixture
def weights() -> Path:
    from realkit.apps.training.ship import WEIGHTS

    return WEIGHTS
