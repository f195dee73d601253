"""The sample of results is made by the version of realkit that it lies beside."""

import json
from pathlib import Path

import pandas as pd

import realkit as rk
from realkit.base.version import __version__
from realkit.catalog.columns import COLUMNS
from realkit.models.lock import lock_model
from realkit.sweeps.ids import cell_id, ids

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
ANEW = "make it anew: rm -r results/demo, then python -m realkit.apps.demo --sample"


def test_the_sample_is_of_this_version():
    for line in (SAMPLE / "runs.jsonl").read_text().splitlines():
        assert json.loads(line)["realkit"] == __version__, ANEW
    table = pd.read_csv(SAMPLE / "table.csv")
    assert list(table)[: len(COLUMNS)] == list(COLUMNS), ANEW
    assert set(list(table)[len(COLUMNS) :]) <= set(rk.SCORERS), ANEW
    cells = rk.Sweep.from_yaml(SAMPLE / "sweep.yaml").cells()
    locks = {name: lock_model(name) for name in {cell.model for cell in cells}}
    made = {cell_id(vars(cell), ids(cell, locks[cell.model], None).image) for cell in cells}
    assert made <= set(table["cell"]), ANEW  # weights, samplers and prompts are today's too
    assert set(table["status"]) == {"ok"}
