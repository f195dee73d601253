"""Ids of cells of every kind are those recorded in tests/golden/ids.json, whatever the code is.

A failure here means that finished results folders would be made again. The one function that
knows the code's inside is tests.golden.record.planned; how to add cells stands in that file too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.golden import record
from tests.golden.sweeps import SWEEPS

ROOT = Path(__file__).parents[2]
GOLDEN = record.stored()


@pytest.fixture(scope="module")
def now():
    """The cells as planned by a process of its own, whose catalogue and folder are new."""
    told = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tests.golden.record", "--print"]
    done = subprocess.run(command, env=told, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_sweep_is_recorded():
    assert list(GOLDEN) == list(SWEEPS)


@pytest.mark.parametrize("sweep", GOLDEN)
def test_cells_and_ids_are_as_recorded(now, sweep):
    assert len(now[sweep]) == len(GOLDEN[sweep])
    for cell, golden in zip(now[sweep], GOLDEN[sweep], strict=True):
        assert cell == golden


def test_a_new_sweep_is_added_and_a_change_refused():
    added = {"another": GOLDEN["plain"]}
    assert record.extended(GOLDEN, GOLDEN | added) == GOLDEN | added
    changed = json.loads(json.dumps(GOLDEN))
    changed["plain"][0]["ids"]["latents"] = "0" * 16
    with pytest.raises(click.ClickException, match="'plain' differ: ids never change"):
        record.extended(GOLDEN, changed)
    without = {name: cells for name, cells in GOLDEN.items() if name != "adaptive"}
    with pytest.raises(click.ClickException, match="'adaptive' differ"):
        record.extended(GOLDEN, without)
