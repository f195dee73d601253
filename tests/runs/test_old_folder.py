"""A results folder made by earlier code, tests/data/folder-1, is resumed without any work."""

import io
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

import realkit as rk
from tests.cuts import thinned

OLD = Path(__file__).parents[1] / "data" / "folder-1"
FEW = {
    "samplers": "Euler", "prompts": "a photo of a matte red cube on grass at noon", "steps": 3,
    "size": 64, "scorers": ["rehearsal/clip", "colour-cast"],
}  # fmt: skip
EARLIER = {  # what its earlier runs asked for: sweep.yaml is that of the last
    "two legs": FEW | {"models": "rehearsal/xl+refiner", "seeds": 2},
    "upscaled": FEW | {
        "models": "rehearsal/base", "upscalers": "rehearsal/esrgan-x4", "target": 96
    },
}  # fmt: skip
NETWORKS = ("diffusers", "transformers", "spandrel", "open_clip")  # what models are loaded with
RESUMED = f"""
import sys
import realkit as rk
rk.run(sys.argv[1], sys.argv[2])
print("loaded:", *[name for name in {NETWORKS!r} if name in sys.modules])
"""


@pytest.fixture
def old(tmp_path):
    """A copy of the folder, made with the library versions of this machine, as far as it says.

    A run refuses to go on with other versions, since they may draw differently. That refusal has
    its own tests. Here the versions cannot matter: a folder resumed without work draws nothing,
    and of what an extension draws only the number is compared, no pixel. With the old versions
    left in, the tests would fail on every machine that has newer ones.
    """
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    runs = lines(folder / "runs.jsonl")
    for run in runs:
        run["versions"] = {name: installed(name) for name in run["versions"]}
    text = "".join(json.dumps(run, ensure_ascii=False) + "\n" for run in runs)
    (folder / "runs.jsonl").write_bytes(text.encode())
    return folder


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def artifacts(folder: Path) -> dict[str, bytes]:
    """The files of a folder's pictures and latents, by name."""
    paths = [*(folder / "images").iterdir(), *(folder / "latents").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def values(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns of a table as its CSV file has them."""
    return pd.read_csv(io.StringIO(table[columns].to_csv(index=False)), dtype=str)


@pytest.mark.slow
@pytest.mark.parametrize("asked", thinned(["its own sweep.yaml", *EARLIER], ["two legs"]))
def test_it_is_resumed_without_work(old, asked, tmp_path):
    sweep = tmp_path / "sweep.yaml"
    if asked in EARLIER:
        sweep.write_text(rk.Sweep(**EARLIER[asked]).to_yaml(), encoding="utf-8")
    else:
        shutil.copy(OLD / "sweep.yaml", sweep)
    command = [sys.executable, "-c", RESUMED, str(sweep), str(old)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["loaded:"]
    for name in ("rows.jsonl", "cells.jsonl", "sweep.lock.json"):
        assert (old / name).read_bytes() == (OLD / name).read_bytes(), name
    assert artifacts(old) == artifacts(OLD)


def test_its_table_has_the_values_it_had():
    stored = pd.read_csv(OLD / "table.csv", dtype=str)
    pd.testing.assert_frame_equal(values(rk.read(OLD).table(), list(stored)), stored)


def test_extended_by_a_seed_it_shows_each_old_cell_once(old):
    before = (old / "rows.jsonl").read_bytes()
    sweep = rk.Sweep.from_yaml(OLD / "sweep.yaml").model_copy(update={"seeds": [0, 1, 2]})
    extended = rk.run(sweep, old).table()
    whole = rk.read(old).table()
    known = pd.read_csv(OLD / "table.csv", dtype=str)

    assert extended["seed"].value_counts().to_dict() == {0: 4, 1: 4, 2: 4}
    assert set(extended["status"]) == {"ok"} and whole["cell"].is_unique
    assert whole["cell"].tolist()[: len(known)] == known["cell"].tolist()
    new = whole.iloc[len(known) :]
    assert len(new) == 4 and set(new["seed"]) == {2}
    pd.testing.assert_frame_equal(values(whole.iloc[: len(known)], list(known)), known)

    assert (old / "rows.jsonl").read_bytes().startswith(before)
    made = lines(old / "rows.jsonl")[len(before.splitlines()) :]
    stages = [row["stage"] for row in made]
    assert {name: stages.count(name) for name in stages} == {"denoise": 4, "decode": 4, "score": 8}
    assert artifacts(OLD).items() <= artifacts(old).items()


def test_a_scorer_added_to_it_makes_scores_alone(old):
    before = (old / "rows.jsonl").read_bytes()
    sweep = rk.Sweep.from_yaml(OLD / "sweep.yaml")
    more = sweep.model_copy(update={"scorers": [*sweep.scorers, "cast-green-red"]})
    scored = rk.run(more, old).table()
    assert set(scored["status"]) == {"ok"} and scored["cast-green-red"].notna().all()
    whole = rk.read(old).table()
    assert set(whole["status"]) == {"ok"} and whole["cast-green-red"].isna().any()
    made = lines(old / "rows.jsonl")[len(before.splitlines()) :]
    assert {row["stage"] for row in made} == {"score"}
    assert artifacts(OLD) == artifacts(old)
    assert set(rk.read(OLD).table()["status"]) == {"ok"}  # a copy taken before still opens
