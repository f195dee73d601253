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


@pytest.mark.slow
def test_compare_runs_and_leaves_its_pictures(tmp_path):
    import papermill

    small = {
        "samplers": ["Euler", "DDIM"],
        "seeds": 1,
        "steps": 2,
        "target": 256,
        "out": str(tmp_path / "out"),
    }
    papermill.execute_notebook(
        ROOT / "notebooks" / "compare.ipynb",
        tmp_path / "made.ipynb",
        small,
        kernel_name="python3",
        progress_bar=False,
    )
    assert {"grid.png", "pareto.png", "upscaled.png", "table.csv", "verdicts.csv"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    papermill.execute_notebook(
        ROOT / "notebooks" / "findings.ipynb",
        tmp_path / "findings.ipynb",
        {"folder": str(tmp_path / "out"), "out": str(tmp_path / "found")},
        kernel_name="python3",
        progress_bar=False,
    )
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "ends.png", "pareto.png", "table.csv", "verdicts.csv", "verdicts.png",
    }  # fmt: skip


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
    import papermill

    small = {"steps": [2, 4], "seeds": 1, "out": str(tmp_path / "out"), **given}
    papermill.execute_notebook(
        ROOT / "notebooks" / "samplers.ipynb",
        tmp_path / "made.ipynb",
        small,
        kernel_name="python3",
        progress_bar=False,
    )
    assert {"convergence.png", "distance.png", "pictures.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    printed = "".join(
        output.get("text", "")
        for cell in nbformat.read(tmp_path / "made.ipynb", 4).cells
        for output in cell.get("outputs", [])
    )
    assert all(words in printed for words in said)


@pytest.mark.slow
def test_upscalers_runs_and_leaves_its_figures(tmp_path):
    import papermill

    (tmp_path / "bad.pth").write_text("no weights")
    small = {
        "count": 2,
        "size": 256,
        "upscalers": ["Lanczos", "rehearsal/compact-x4", str(tmp_path / "bad.pth")],
        "out": str(tmp_path / "out"),
    }
    papermill.execute_notebook(
        ROOT / "notebooks" / "upscalers.ipynb",
        tmp_path / "made.ipynb",
        small,
        kernel_name="python3",
        progress_bar=False,
    )
    assert {"table.csv", "verdicts.csv", "pareto.png", "crops-0.png", "crops-1.png"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    printed = "".join(
        output.get("text", "")
        for cell in nbformat.read(tmp_path / "made.ipynb", 4).cells
        for output in cell.get("outputs", [])
    )
    assert all(
        words in printed for words in ("bad.pth", "rehearsal/compact-x4: +", "Worth their time")
    )


@pytest.mark.slow
def test_claims_are_answered_with_intervals(tmp_path):
    import papermill

    small = {"prompts": "suite:rehearsal", "steps": [2, 4, 6], "plateau": 4, "guidance": [1, 3, 5],
             "samplers": ["DDPM", "Euler a"], "out": str(tmp_path / "out")}  # fmt: skip
    made = papermill.execute_notebook(
        ROOT / "notebooks" / "claims.ipynb",
        tmp_path / "claims.ipynb",
        small,
        kernel_name="python3",
        progress_bar=False,
    )
    said = str(made.cells)
    assert "rehearsal/clip by steps" in said and "rehearsal/clip over guidance" in said
    assert {"steps.png", "guidance.png", "sampler.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
