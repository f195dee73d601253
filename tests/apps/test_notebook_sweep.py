"""Sweeps of notebooks: what is refused before anything starts, how executions end, what they
leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image

import realkit as rk
from realkit.analysis.page import _thumbnail, summary
from realkit.apps.notebooks.entries import read_entries
from realkit.apps.notebooks.outcome import judged, merge
from realkit.runs.store import Store

ROOT = Path(__file__).parents[2]
PARAMETERS = """%config InlineBackend.figure_format = "png"
how = "fine"  # what becomes of it
count = 2
models = ["a", "b"]
guidance = None
exact = False
settings = {}
root = 2 ** 0.5
out = "somewhere"
"""
WORK = """
import os, sys, time
from pathlib import Path
home = Path(out)
print("works as", how)
(home / "pids").write_text(f"{os.getpid()} {os.getppid()}")
with (home / "begun").open("a") as file:
    file.write(sys.executable + "\\n")
"""
END = """
if how == "raise":
    raise ValueError("no <b>such</b> thing\\nas hf_abcdefghijklmnopqrstuvwxyz0123456789")
if how == "child" or (how == "once" and not (home / "second").exists()):
    (home / "second").touch()
    os.kill(os.getppid(), 9)
    time.sleep(60)
if how == "kernel":
    os.kill(os.getpid(), 9)
if how == "wait":
    time.sleep(60)
if how in ("table", "half"):
    rows = [["Euler", 0.5, "ok"], ["Heun <i>", 0.7, "ok" if how == "table" else "failed"]]
    with (home / "table.csv").open("w") as file:
        file.write("sampler,psnr_db,status\\n")
        for row in rows:
            file.write(",".join(map(str, row)) + "\\n")
"""


def notebook(path, *cells, tags=("parameters",)):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.cells[0].metadata["tags"] = list(tags)
    nbformat.write(made, path)


@pytest.fixture
def place(tmp_path):
    notebook(tmp_path / "probe.ipynb", PARAMETERS, WORK, END)
    return tmp_path


def realkit(*arguments):
    return [sys.executable, "-m", "realkit", *map(str, arguments)]


def sweep_of(place, **entries):
    return {
        "notebook": str(place / "probe.ipynb"),
        "entries": {name: {"how": how} for name, how in entries.items()},
    }


def records(out):
    return [json.loads(line) for line in (out / "entries.jsonl").read_text().splitlines()]


def begun(out, name):
    return len((out / "entries" / name / "begun").read_text().splitlines())


def alive(pids):
    def runs(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


# --- before anything is started

ONE = "entries: {one: {}}\n"
WRONG = [
    ("notebook: twice.ipynb\n" + ONE, "has 2 cells tagged 'parameters'"),
    ("notebook: probe.ipynb\nper: root\n", "per 'root': it is computed, expected a list"),
    ("notebook: probe.ipynb\nentries: {one: {models: &all [*all]}}\n", "value 'all' holds itself"),
    ('notebook: probe.ipynb\nentries: {one: {how: "\\ud800"}}\n', "is not YAML"),
    (
        "notbook: probe.ipynb\n" + ONE,
        "Unknown key 'notbook' in the sweep of notebooks. Did you mean 'notebook'?",
    ),
    ("notebook: probe.ipynb\n", "expected either `entries`"),
    ("notebook: probe.ipynb\nper: models\n" + ONE, "expected either `entries`"),
    ("notebook: probe.ipynb\nentries: {}\n", "it has no entries"),
    ("notebook: probe.ipynb\nentries: [one]\n", "entries: Input should be a valid dictionary"),
    (
        "notebook: probe.ipynb\nentries: {one: 3}\n",
        "entries.one: Input should be a valid dictionary",
    ),
    ("notebook: other.ipynb\n" + ONE, "there is no notebook"),
    ("notebook: sweeps.yaml\n" + ONE, "is no notebook"),
    ("notebook: untagged.ipynb\n" + ONE, "has no cell tagged 'parameters'"),
    ("notebook: nowhere.ipynb\n" + ONE, "have no `out`"),
    ("notebook: broken.ipynb\n" + ONE, "its parameters cell is not Python"),
    (ONE, "notebook None, expected the path of an .ipynb file"),
    (
        "notebook: probe.ipynb\nentries: {one: {modells: [x]}}\n",
        "Unknown parameter 'modells' in entry 'one' (probe.ipynb). Did you mean 'models'?",
    ),
    ("notebook: probe.ipynb\nparameters: {cuont: 1}\n" + ONE, "Did you mean 'count'?"),
    ("notebook: probe.ipynb\nentries: {one: {out: here}}\n", "`out` is set by the sweep"),
    (
        "notebook: probe.ipynb\nentries: {good: {count: 1}, bad: {count: two}}\n",
        "Entry 'bad': parameter 'count' is 'two', expected a number",
    ),
    ("notebook: probe.ipynb\nentries: {one: {count: true}}\n", "expected a number"),
    ("notebook: probe.ipynb\nentries: {one: {models: a}}\n", "expected a list"),
    ("notebook: probe.ipynb\nentries: {one: {models: [1]}}\n", "expected a list of the same kind"),
    ("notebook: probe.ipynb\nentries: {one: {how: 3}}\n", "expected text"),
    ("notebook: probe.ipynb\nentries: {one: {exact: 1}}\n", "expected true or false"),
    ("notebook: probe.ipynb\nentries: {one: {settings: []}}\n", "expected a mapping"),
    ("notebook: probe.ipynb\nentries: {one: {guidance: .nan}}\n", "finite numbers"),
    ("notebook: probe.ipynb\nentries: {one: {exact: yes}}\n", "'yes', expected true or false"),
    ("notebook: probe.ipynb\nentries: {one: {count: 1_000}}\n", "'1_000', expected a number"),
    (
        "notebook: probe.ipynb\nentries:\n" + "".join(f"  {n}:\n" for n in range(10_001)),
        "it has 10,001 entries, expected at most 10,000",
    ),
    (
        "notebook: probe.ipynb\nparameters: {how: "
        + "x" * 300_000
        + "}\nentries:\n"
        + "".join(f"  {n}:\n" for n in range(1_000)),
        "1,000 entries repeat its shared parameters, 300 million characters",
    ),
    (
        "notebook: probe.ipynb\nper: modles\n",
        "Unknown parameter 'modles' in `per`. Did you mean 'models'?",
    ),
    ("notebook: probe.ipynb\nper: count\n", "expected a list of which each value is an entry"),
    ("notebook: probe.ipynb\nper: models\nparameters: {models: [a, a]}\n", "duplicate value"),
    ("notebook: probe.ipynb\nentries: {one: {}, one: {}}\n", "duplicate key 'one'"),
    (
        "notebook: probe.ipynb\nentries: {one: {how: hf_abcdefghijklmnopqrstuvwxyz0123456789}}\n",
        "holds a secret",
    ),
    ("notebook: [", "is not YAML"),
    ("- 1", "holds list"),
]


def test_a_wrong_request_ends_with_2_and_starts_nothing(place):
    from click.testing import CliRunner

    from realkit.apps.cli.main import main

    notebook(place / "untagged.ipynb", PARAMETERS, tags=())
    notebook(place / "twice.ipynb", PARAMETERS, PARAMETERS)
    two = nbformat.read(place / "twice.ipynb", 4)
    two.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(two, place / "twice.ipynb")
    notebook(place / "nowhere.ipynb", "models = []")
    notebook(place / "broken.ipynb", "models = [")
    for text, says in WRONG:
        (place / "sweeps.yaml").write_text(text)
        result = CliRunner().invoke(
            main, ["sweep", str(place / "sweeps.yaml"), "--out", str(place / "made")]
        )
        assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1, (
            text,
            result.stderr,
        )
    (place / "sweeps.yaml").write_text("notebook: probe.ipynb\n" + ONE)
    assert (
        CliRunner()
        .invoke(
            main,
            ["sweep", str(place / "sweeps.yaml"), "--out", str(place / "made"), "--budget", "soon"],
        )
        .exit_code
        == 2
    )
    assert not (place / "made").exists()


def test_a_secret_is_refused_from_python_too(place):
    with pytest.raises(rk.RequestError, match="holds a secret"):
        read_entries(sweep_of(place, one="hf_" + "aB3" * 12))


@pytest.mark.parametrize(
    "given",
    [
        {"count": 3}, {"count": 2.5}, {"count": None}, {"count": [1, 2]},
        {"count": [[640, 480], 512]}, {"how": ["a", None, {"prompt": "x"}]}, {"guidance": "any"},
        {"guidance": [1]}, {"root": "any"}, {"models": [None, "x", {"model": "a", "steps": 3}]},
        {"models": []}, {"exact": True}, {"settings": {"a": 1}},
    ],
)  # fmt: skip
def test_what_a_default_lets_stand(place, given):
    (entry,) = read_entries({"notebook": str(place / "probe.ipynb"), "entries": {"one": given}})
    assert entry.parameters == given


def test_entries_their_folders_and_ids(place):
    (place / "sweeps.yaml").write_text(
        "notebook: probe.ipynb\nparameters: {count: 1}\nper: models\n"
    )
    one, two = read_entries(place / "sweeps.yaml")
    assert (one.name, one.parameters, two.parameters) == (
        "a",
        {"count": 1, "models": ["a"]},
        {"count": 1, "models": ["b"]},
    )
    names = ["plain", "Plain", "../up", "a/b", "a b", "ß", "..", "x" * 200, "x" * 201, 7]
    made = read_entries(
        {"notebook": str(place / "probe.ipynb"), "entries": {name: None for name in names}}
    )
    folders = [entry.folder for entry in made]
    assert (
        folders[0] == "plain"
        and len({folder.lower() for folder in folders}) == len(names)
        and made[-1].name == "7"
    )
    assert all(
        folder == Path(folder).name and not folder.startswith(".") and len(folder) < 60
        for folder in folders
    )
    notebook(place / "other.ipynb", PARAMETERS + "\n# another", WORK, END)
    given = {
        "notebook": str(place / "probe.ipynb"),
        "parameters": {"count": 1},
        "entries": {"one": {}, "two": {"notebook": str(place / "other.ipynb")}},
    }
    one, two = read_entries(given)
    assert two.parameters == {} and one.id != two.id  # shared parameters are of the shared notebook
    (changed,) = read_entries(
        {"notebook": str(place / "probe.ipynb"), "entries": {"one": {"count": 2}}}
    )
    assert changed.id != one.id and changed.folder == one.folder


# --- how executions end


@pytest.mark.slow
def test_what_becomes_of_entries_is_told_by_processes_and_rows(place, monkeypatch):
    """A killed process or kernel is begun once more, an exception is not; the next entry follows;
    the saved notebook is not asked."""
    spec = place / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "another", "language": "python"})
    )
    monkeypatch.setenv(
        "JUPYTER_PATH", str(place / "jupyter")
    )  # another interpreter's kernel must not win
    out = place / "ma{d}e"
    df = rk.sweep_notebooks(
        sweep_of(
            place,
            child="child",
            kernel="kernel",
            once="once",
            raising="raise",
            table="table",
            half="half",
        ),
        out,
    )
    told = df.attrs["entries"]
    assert {name: (record["status"], record["attempts"]) for name, record in told.items()} == {
        "child": ("failed", 2),
        "kernel": ("failed", 2),
        "once": ("ok", 2),
        "raising": ("failed", 1),
        "table": ("ok", 1),
        "half": ("failed", 1),
    }
    assert (
        told["child"]["reason"].startswith("its process was ended by SIGKILL")
        and "its kernel died" in told["kernel"]["reason"]
    )
    assert (
        told["raising"]["reason"] == "ValueError: no <b>such</b> thing as ***"
        and told["half"]["reason"] == "1 of 2 cells failed"
    )
    for name, times in {"child": 2, "kernel": 2, "once": 2, "raising": 1}.items():
        assert (out / "entries" / name / "begun").read_text().splitlines() == [
            sys.executable
        ] * times
        assert not alive((out / "entries" / name / "pids").read_text().split())
    assert "works as raise" in (out / "entries" / "raising" / "log.txt").read_text()
    saved = nbformat.read(out / "entries" / "kernel" / "notebook.ipynb", 4)
    assert saved.cells[-1].metadata["papermill"]["status"] == "completed"  # as papermill has it
    pd.testing.assert_frame_equal(pd.read_parquet(out / "table.parquet"), df, check_like=True)
    assert (
        next(iter(df.columns)) == "entry"
        and list(df["entry"]) == ["table", "table", "half", "half"]
        and len(pd.read_csv(out / "table.csv")) == 4
    )
    page = (out / "index.html").read_text()
    assert (
        "no &lt;b&gt;such" in page
        and "Heun &lt;i&gt;" in page
        and "<b>such" not in page
        and "Heun <i>" not in page
    )
    assert (
        all(
            f'href="entries/{name}/{file}"' in page
            for name in told
            for file in ("notebook.ipynb", "log.txt")
        )
        and "peak signal-to-noise" in page
    )


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_not_finished(place):
    (place / "sweeps.yaml").write_text(
        "notebook: probe.ipynb\nentries:\n  good: {how: fine}\n  bad: {how: raise}\n"
    )
    command = realkit("sweep", place / "sweeps.yaml", "--out", place / "made")
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 1 and "1 entries ok, 1 entries failed" in first.stdout
    assert (
        "bad failed: ValueError: no <b>such</b> thing" in first.stderr
        and str(place / "made" / "entries" / "bad" / "log.txt") in first.stderr
    )
    again = rk.sweep_notebooks(place / "sweeps.yaml", place / "made")
    assert begun(place / "made", "good") == 1 and begun(place / "made", "bad") == 2
    assert again.attrs["entries"]["good"]["status"] == "ok" and list(again.columns) == ["entry"]
    assert [(record["name"], record["status"]) for record in records(place / "made")] == [
        ("good", "ok"),
        ("bad", "failed"),
        ("bad", "failed"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 1), (signal.SIGKILL, -9)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_sweep_that_is_ended_leaves_nothing_running(place, number, code):
    (place / "sweeps.yaml").write_text(
        "notebook: probe.ipynb\nentries:\n  first: {how: wait}\n  second: {how: fine}\n"
    )
    process = subprocess.Popen(
        realkit("sweep", place / "sweeps.yaml", "--out", place / "made"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids, deadline = place / "made" / "entries" / "first" / "pids", time.monotonic() + 60
    while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    kernel, child = pids.read_text().split()
    assert alive([kernel, child])
    if number == signal.SIGTERM:
        with pytest.raises(rk.RequestError, match="Another run is writing"):
            rk.sweep_notebooks(place / "sweeps.yaml", place / "made")
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    assert process.returncode == code
    deadline = time.monotonic() + 10
    while alive([kernel, child]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive([kernel, child])
    if number == signal.SIGTERM:
        assert (
            "1 entries stopped, 1 entries pending" in said
            and "SIGTERM asked for it; run the same command again to resume" in told
        )
        assert (place / "made" / "index.html").exists() and not (
            place / "made" / "entries" / "second"
        ).exists()


@pytest.mark.slow
def test_a_second_interrupt_ends_a_sweep_at_once(place):
    (place / "probe.ipynb").unlink()
    stubborn = (
        "import signal, time\nfor number in (signal.SIGINT, signal.SIGTERM):\n   "
        " signal.signal(number, signal.SIG_IGN)\ntime.sleep(60)"
    )
    notebook(place / "probe.ipynb", PARAMETERS, WORK, stubborn)
    (place / "sweeps.yaml").write_text("notebook: probe.ipynb\n" + ONE)
    process = subprocess.Popen(
        realkit("sweep", place / "sweeps.yaml", "--out", place / "made"),
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = place / "made" / "entries" / "one" / "pids"
    while not (pids.exists() and pids.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert (
        "What is done is kept" in process.communicate(timeout=20)[1] and process.returncode == 130
    )
    assert not alive(pids.read_text().split())


@pytest.mark.slow
def test_a_run_inside_is_stopped_after_the_batch_in_work_and_goes_on(place):
    """The interrupt reaches `rk.run` in the kernel; another run in the same cell, which would begin
    after it, is stopped too."""
    runs = "\n".join(
        f"rk.run({sweep} | {{'steps': steps}}, out, batch=2)"
        for sweep in ("first", "first | {'samplers': 'Heun'}")
    )
    grid = (
        "first = {'models': 'rehearsal/base', 'prompts': ['a red cube', 'a blue sphere'],"
        " 'seeds': 8}"
    )
    notebook(
        place / "run.ipynb",
        'steps = 12\nout = "x"',
        "import realkit as rk",
        f"{grid}\n{runs}",
        "later = 1",
    )
    (place / "sweeps.yaml").write_text("notebook: run.ipynb\n" + ONE)
    home = place / "made" / "entries" / "one"
    process = subprocess.Popen(
        realkit("sweep", place / "sweeps.yaml", "--out", place / "made"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (home / "rows.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    assert (
        process.returncode == 1
        and "1 entries stopped" in said
        and {row["status"] for row in rows} == {"ok"}
    )
    assert (home / "table.csv").exists() and (
        pd.read_csv(place / "made" / "table.csv")["status"] == "pending"
    ).sum() >= 12
    df = rk.sweep_notebooks(place / "sweeps.yaml", place / "made")
    made = [json.loads(line)["id"] for line in (home / "rows.jsonl").read_text().splitlines()]
    assert len(made) == len(set(made)) and len(df) == 32 and set(df["status"]) == {"ok"}


@pytest.mark.slow
def test_a_budget_ends_it_in_time(place):
    began = time.monotonic()
    df = rk.sweep_notebooks(
        sweep_of(place, first="fine", second="wait", third="fine"), place / "made", budget=22
    )
    assert time.monotonic() - began < 22
    assert [record["status"] for record in df.attrs["entries"].values()] == [
        "ok",
        "stopped",
        "pending",
    ] and "its time is up" in df.attrs["stopped"]


# --- what they leave


def test_an_entry_is_judged_by_its_rows(finished, tmp_path):
    home = shutil.copytree(finished.folder, tmp_path / "run")
    assert judged(home) == ("ok", "")
    rows = (home / "rows.jsonl").read_text()
    last = json.loads(rows.splitlines()[-1])
    (home / "rows.jsonl").write_text(
        rows
        + json.dumps(last | {"status": "failed", "error_type": "Trouble", "error": "too dark"})
        + "\n"
    )
    assert judged(home) == ("failed", "1 of 8 cells failed, the first: score: Trouble: too dark")
    (home / "rows.jsonl").write_text(
        "".join(line + "\n" for line in rows.splitlines() if json.loads(line)["stage"] == "denoise")
    )
    assert judged(home) == ("stopped", "8 of 8 cells are pending")
    (home / "cells.jsonl").write_text("{\n")
    assert judged(home)[0] == "failed"
    assert judged(tmp_path) == ("ok", "")


@pytest.mark.slow
def test_what_other_parameters_left_unfinished_does_not_count(place):
    """An entry whose parameters were changed is done when what it asks for now is; changed back, it
    is executed again."""
    work = (
        "import realkit as rk\nrk.run({'models': 'rehearsal/base', 'prompts': 'a red cube',"
        " 'steps': steps, 'scorers': scorers}, out, budget=budget)"
    )
    notebook(place / "run.ipynb", 'steps = 2\nscorers = []\nbudget = None\nout = "x"', work)

    def became(**parameters):
        df = rk.sweep_notebooks(
            {"notebook": str(place / "run.ipynb"), "entries": {"one": parameters}}, place / "made"
        )
        return df.attrs["entries"]["one"]["status"], len(df)

    assert became(steps=3, budget=0.01) == ("stopped", 1) and became(steps=3, budget=0.01) == (
        "stopped",
        1,
    )
    assert became(steps=2) == ("ok", 2) and became(steps=3) == ("ok", 2)
    done = len(records(place / "made"))
    assert became(steps=3) == ("ok", 2) and len(records(place / "made")) == done
    assert became(steps=2) == ("ok", 2) and len(records(place / "made")) == done + 1
    home = place / "made" / "entries" / "one"
    assert "steps = 2" in (home / "notebook.ipynb").read_text()
    rows = (home / "rows.jsonl").read_text()
    last = [json.loads(row) for row in rows.splitlines()][-1]
    (home / "rows.jsonl").write_text(
        rows
        + json.dumps(last | {"status": "failed", "error_type": "Trouble", "error": "too dark"})
        + "\n"
    )
    assert judged(home)[0] == "failed"
    assert judged(home, len(Store(home).asked())) == ("ok", "")  # no run since


@pytest.mark.slow
def test_a_stop_in_the_last_cells_run_is_no_end(place):
    """A run that is stopped returns, and its notebook, whose last cell it is, ends as if all were
    well: the scores it leaves out are asked for and missing."""
    work = (
        "import realkit as rk\nrk.run({'models': 'rehearsal/base', 'prompts': 'a red cube',"
        " 'seeds': 40, 'steps': 1, 'size': 64, 'guidance': 1, 'scorers': ['rehearsal/clip',"
        " 'colour-cast', 'cast-green-red']}, out)"
    )
    notebook(place / "run.ipynb", 'out = "x"', work)
    (place / "sweeps.yaml").write_text("notebook: run.ipynb\n" + ONE)
    command = realkit("sweep", place / "sweeps.yaml", "--out", place / "made")
    rows = place / "made" / "entries" / "one" / "rows.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (rows.exists() and '"score"' in rows.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    table = pd.read_csv(place / "made" / "table.csv")
    scores = rows.read_text().count('"scorer"')
    if scores < 120:  # the signal came in time
        assert process.returncode == 1 and "1 entries stopped" in said
        assert "pending" in set(table["status"])
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and "1 entries ok" in again.stdout, again.stderr
    assert rows.read_text().count('"scorer"') == 120


def test_tables_of_all_kinds_become_one(finished, tmp_path):
    other = pd.DataFrame({"sampler": ["x"], "tile": [64], "steps": ["many"], "mixed": [None]})
    merged = merge(
        {
            "one": finished.table(),
            "none": None,
            "two": other,
            "three": other.assign(mixed=3.5, seed=None),
        }
    )
    assert (
        list(merged.columns)[:2] == ["entry", "cell"] and len(merged) == len(finished.table()) + 2
    )
    merged.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert (
        list(again["entry"].unique()) == ["one", "two", "three"]
        and again["steps"].iloc[-1] == "many"
        and again["mixed"].iloc[-1] == 3.5
    )
    assert list(merge({}).columns) == ["entry"]
    large = merge({"one": pd.DataFrame({"key": [10**22, 3]})})
    large.to_parquet(tmp_path / "t.parquet")
    assert list(pd.read_parquet(tmp_path / "t.parquet")["key"]) == ["1" + "0" * 22, "3"]


def test_a_summary_never_pools_times_of_different_batches(finished):
    table = finished.table()
    found = summary(table)
    assert [name for name, *_ in found["heads"]] == [
        "model",
        "sampler",
        "cells",
        "rehearsal/clip",
        "colour-cast",
        "seconds, median",
    ]
    assert (
        len(found["rows"]) == 2 and found["rows"][0][2][-1][0] != "–" and found["rows"][0][1] == 4
    )
    table["batch"] = range(len(table))
    assert summary(table)["rows"][0][2][-1][0] == "–"
    assert summary(table.assign(status="failed")) is None


@pytest.mark.slow
def test_a_page_takes_the_tables_that_notebooks_write_as_they_like(place, monkeypatch):
    """A picture without a status, times that are words, print in letters that the terminal here has
    not: the page is written, and the entries stand."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (place / "probe.ipynb").unlink()
    tables = (
        "{'picture': 'model,image,seconds\\na,x.png,many\\n', 'words':"
        " 'model,seconds,status\\nx,soon,ok\\n'}"
    )
    notebook(
        place / "probe.ipynb",
        PARAMETERS,
        "from pathlib import Path\n(Path(out) /"
        f" 'table.csv').write_text({tables}[how])\nprint('größer')",
    )
    df = rk.sweep_notebooks(sweep_of(place, picture="picture", words="words"), place / "made")
    assert [record["status"] for record in df.attrs["entries"].values()] == ["ok", "ok"] and list(
        df["seconds"]
    ) == ["many", "soon"]
    assert "2 ok" in (place / "made" / "index.html").read_text()


def test_a_picture_too_large_to_be_read_is_left_out(tmp_path, monkeypatch):
    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    assert _thumbnail(tmp_path, "large.png", 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert _thumbnail(tmp_path, "large.png", 8) is None


@pytest.mark.slow
def test_the_comparison_per_model(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    small = (
        "{models: [rehearsal/base, rehearsal/studio], samplers: [Euler, DDIM], prompts: [a blue"
        " sphere], seeds: 1, steps: 2, target: 256, upscalers: [bicubic]}"
    )
    (tmp_path / "sweeps.yaml").write_text(
        f"notebook: notebooks/compare.ipynb\nper: models\nparameters: {small}\n"
    )
    df = rk.sweep_notebooks(tmp_path / "sweeps.yaml", tmp_path / "made")
    assert [record["status"] for record in df.attrs["entries"].values()] == ["ok", "ok"] and set(
        df["status"]
    ) == {"ok"}
    assert df.groupby("entry")["model"].unique().map(list).to_dict() == {
        name: [name] for name in ("rehearsal/base", "rehearsal/studio")
    }
    assert all((tmp_path / "made" / image).exists() for image in df["image"]) and len(df) == 6
    assert (tmp_path / "made" / "index.html").read_text().count(
        "data:image/jpeg;base64,"
    ) >= 6 + 2 * 3
    os.utime(tmp_path / "made" / "entries.jsonl", (0, 0))
    rk.sweep_notebooks(tmp_path / "sweeps.yaml", tmp_path / "made")
    assert (tmp_path / "made" / "entries.jsonl").stat().st_mtime == 0  # nothing was done again


def test_the_example_names_only_what_there_is():
    assert len(read_entries(ROOT / "notebooks" / "sweeps.yaml")) == 4
