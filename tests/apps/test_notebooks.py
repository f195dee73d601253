import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECTIONS = ["Parameters", "Plan", "Run", "Table", "Plots", "Findings"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_we_keep_them(path):
    cells = nbformat.read(path, 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(
        line.lstrip().startswith(("def ", "class "))
        for cell in code
        for line in cell.source.splitlines()
    )
    assert (
        max(
            len(cell.source.splitlines())
            for cell in code
            if "parameters" not in cell.metadata.get("tags", [])
        )
        <= 8
    )
    assert [
        line[3:]
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ] == SECTIONS
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert all("  # " in line for line in parameters.source.splitlines())


def test_every_notebook_begins_in_the_same_way():
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "urls"
    ]["Repository"]
    read = {
        path: nbformat.read(path, 4).cells
        for path in [*NOTEBOOKS, ROOT / "realkit" / "apps" / "kaggle" / "run.ipynb"]
    }
    cells = {
        path: [cell for cell in found if "bootstrap" in cell.metadata.get("tags", [])]
        for path, found in read.items()
    }
    assert all(
        len(found) == 1 and found[0] is read[path][1] for path, found in cells.items()
    )  # second of all: before the parameters
    (source,) = {found[0].source for found in cells.values()}
    assert (
        re.findall(r"git\+([^\"]+)", source) == [repository]
        and "realkit import bootstrap" in source
    )
    place = repository.removeprefix("https://github.com/")
    for path in NOTEBOOKS:
        assert re.findall(r"https://colab\S+/github/([^)]+)\)", read[path][0].source) == [
            f"{place}/blob/main/notebooks/{path.name}"
        ]
        assert any("here.out(out)" in cell.source for cell in read[path])


def executed(name, tmp_path, **parameters):
    """(what a notebook printed, the names of the files that it left)."""
    import papermill

    out = tmp_path / name
    made = papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        tmp_path / f"{name}.ipynb",
        {"out": str(out), **parameters},
        kernel_name="python3",
        progress_bar=False,
    )
    outputs = [output for cell in made.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    return printed, {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_compare_and_then_findings_leave_their_figures(tmp_path):
    small = {"samplers": ["Euler", "DDIM"], "steps": 2, "target": 256}
    printed, files = executed("compare", tmp_path, **small)
    assert {"grid.png", "pareto.png", "upscaled.png", "table.csv", "verdicts.csv"} <= files
    assert "rehearsal/clip by sampler (12 prompts, higher is better)" in printed
    again, files = executed("findings", tmp_path, folder=str(tmp_path / "compare"))
    assert files == {"ends.png", "pareto.png", "table.csv", "verdicts.csv", "verdicts.png"}
    assert "rehearsal/clip by model (12 prompts" in again and "has no votes" in again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"samplers": ["Euler", "Heun", "Euler a"], "window": [16, 32]},
            ["Measured order: Euler 1.0, Heun 2.1", "Led elsewhere by more steps: Euler a"],
        ),
        (
            {
                "samplers": ["euler A", "dpm adaptive"],
                "window": [16],
                "prompts": ["suite:rehearsal"],
                "schedule": "karras",
            },
            ["Measured order: none has one"],
        ),
    ],
)
def test_samplers_runs_and_leaves_its_plots(tmp_path, given, said):
    printed, files = executed("samplers", tmp_path, steps=[2, 4], seeds=1, **given)
    assert {"convergence.png", "distance.png", "pictures.png"} <= files
    assert all(words in printed for words in said)


@pytest.mark.slow
def test_upscalers_runs_and_leaves_its_figures(tmp_path):
    (tmp_path / "bad.pth").write_text("no weights")
    names = ["Lanczos", "rehearsal/compact-x4", str(tmp_path / "bad.pth")]
    printed, files = executed("upscalers", tmp_path, count=2, size=256, upscalers=names)
    assert files == {"table.csv", "verdicts.csv", "pareto.png", "crops-0.png", "crops-1.png"}
    for words in ("bad.pth", "rehearsal/compact-x4: +", "Worth their time"):
        assert words in printed


@pytest.mark.slow
def test_claims_are_answered_with_intervals(tmp_path):
    small = {"prompts": "suite:rehearsal", "steps": [2, 4, 6], "plateau": 4, "guidance": [1, 3, 5],
             "samplers": ["DDPM", "Euler a"]}  # fmt: skip
    printed, files = executed("claims", tmp_path, **small)
    assert {"steps.png", "guidance.png", "sampler.png"} <= files
    assert "rehearsal/clip by steps" in printed and "rehearsal/clip over guidance" in printed
