"""Published scorers agree with other people's implementations on the same weights, which are
installed beside this environment."""

import json
import os
import subprocess
import sys

import pytest

from realkit.scorers.table import SCORERS
from tests.hub_server import ROOT
from tests.wheels import no_index

PACKAGES = [
    "image-evaluator==0.7.0", "diffsynth==2.1.12", "hpsv2==1.2.0", "pyiqa==0.1.16", "addict",
    "facexlib", "filterpy", "einops",
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(ours, theirs) by scorer, of two pictures."""
    if reason := no_index():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("references")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--target", str(root / "packages"), *PACKAGES], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.scorers.by_references", root / "packages", root],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"REALKIT_CACHE": str(root / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pickscore", "hpsv2.1", "image-reward", "laion-aesthetic", "topiq", "musiq"]
)
def test_a_number_is_that_of_another_implementation(results, name):
    ours, theirs = results[name]
    low, high = SCORERS[name].range
    assert ours == pytest.approx(theirs, abs=1e-3 * min(high - low, 100))
    assert abs(ours[0] - ours[1]) > 1e-4  # pictures have numbers of their own
