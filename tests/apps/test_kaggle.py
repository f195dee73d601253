"""`realkit kaggle` against a command that behaves like Kaggle's, and what it pushed run in a tree
like Kaggle's with the internet cut."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.metadata import requires
from pathlib import Path

import nbformat
import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import realkit as rk
from realkit.apps.cli.main import main
from realkit.apps.kaggle import client, kernel, push, wheels
from realkit.apps.kaggle.push import NOTICE, Order
from realkit.apps.kaggle.wheels import OFFLINE
from tests.wheels import no_index

ROOT = Path(__file__).parents[2]
SWEEP = {
    "models": "rehearsal/base",
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 2,
    "steps": 2,
    "scorers": ["colour-cast"],
}
# What every image of Kaggle's has: OFFLINE need not bring it.
ALWAYS = {
    "torch", "torchvision", "numpy", "packaging", "pyyaml", "tqdm", "filelock", "fsspec",
    "requests", "pillow", "scipy", "psutil", "typer", "typing-extensions",
}  # fmt: skip


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def behaves(self, **manners: object) -> None:
        (self.folder / "manners.json").write_text(json.dumps(manners))

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Kaggle, as far as its command shows it; waits are short, and no wheel is downloaded."""
    folder, commands = tmp_path / "server", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    (commands / "kaggle").write_text(
        f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "fake_kaggle.py"} "$@"\n'
    )
    (commands / "kaggle").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_KAGGLE", str(folder))
    monkeypatch.setattr(push, "FIRST_S", 0.1)
    monkeypatch.setattr(push, "LONGEST_S", 0.5)
    monkeypatch.setattr(wheels, "_download", lambda folder: None)
    monkeypatch.setattr(
        wheels,
        "wheel",
        lambda folder: (folder / "realkit-0.1.0-py3-none-any.whl").write_bytes(b"wheel"),
    )
    return Server(folder)


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump(SWEEP))
    return path


@pytest.fixture(scope="module")
def canned(tmp_path_factory):
    """What a run on Kaggle leaves: a results folder, and the notebook."""
    folder = tmp_path_factory.mktemp("canned")
    rk.run(SWEEP, folder / "results")
    (folder / "__notebook__.ipynb").write_text("{}")
    return folder


def metadata(out: Path) -> dict:
    return json.loads((out / ".kaggle" / "kernel" / "kernel-metadata.json").read_text())


@pytest.mark.parametrize("by_hand", [pytest.param(False, marks=pytest.mark.slow), True])
def test_push_waits_and_merges_every_page(server, sweep, canned, tmp_path, monkeypatch, by_hand):
    monkeypatch.setattr(client, "PAGE", 2)
    server.behaves(canned=str(canned), by_hand=by_hand)
    out = tmp_path / "out"
    code, said, error = call("kaggle", "push", "--sweep", sweep, "--out", out)
    assert (code, error) == (0, "") and "2 cells ok" in said and "me/realkit-cube" in said
    assert said.index(NOTICE) < said.index("Uploading the wheels")
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(
        path.name for path in (canned / "results" / "images").iterdir()
    )
    assert (
        rk.read(out)
        .table()
        .drop(columns="batch")
        .equals(rk.read(canned / "results").table().drop(columns="batch"))
    )
    assert (out / ".kaggle" / "realkit-cube.log").is_file() and not (
        out / ".kaggle" / "output"
    ).exists()
    assert metadata(out) | {"dataset_sources": [], "code_file": ""} == {
        "id": "me/realkit-cube",
        "title": "realkit cube",
        "code_file": "",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": True,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
        "docker_image_pinning_type": "original",
    }
    code, said, _ = call(
        "kaggle",
        "push",
        "--sweep",
        sweep,
        "--out",
        out,
        "--no-internet",
        "--model",
        "a/b/pyTorch/c/1",
        "--dataset",
        "a/b",
    )
    assert code == 0 and "previous version attached" in said
    again = metadata(out)
    assert (
        again["kernel_sources"] == ["me/realkit-cube"]
        and again["model_sources"] == ["a/b/pyTorch/c/1"]
        and not again["enable_internet"]
    )
    assert again["dataset_sources"] == ["me/realkit-wheels", "a/b"]
    assert (
        server.calls.count("datasets create") == 1 and "datasets version" not in server.calls
    )  # the same wheels are not uploaded again
    monkeypatch.setattr(
        wheels,
        "wheel",
        lambda folder: (folder / "realkit-0.1.0-py3-none-any.whl").write_bytes(b"changed"),
    )
    assert call("kaggle", "push", "--sweep", sweep, "--out", out, "--no-resume")[0] == 0
    assert server.calls.count("datasets version") == 1 and metadata(out)["kernel_sources"] == []


@pytest.mark.parametrize(
    ("manners", "says"),
    [
        (
            {"push_error": "Maximum weekly GPU quota of 30.00 hours reached."},
            "Maximum weekly GPU quota",
        ),
        (
            {"dataset_error": "The requested title is already in use"},
            "kaggle datasets create failed: The requested title",
        ),
        (
            {"invalid": "['me/realkit-cube']"},
            (
                "['me/realkit-cube']. Push with --no-resume to leave the previous version's output"
                " out, after cancelling the run on"
            ),
        ),
    ],
)
def test_an_error_that_ends_with_exit_code_0_is_one(server, sweep, tmp_path, manners, says):
    server.behaves(**manners, stays=True, canned=str(tmp_path))
    code, _, error = call("kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out")
    assert code == 1 and says in error and error.count("\n") == 1


def test_a_failed_run_gives_what_it_made_and_the_last_error_of_its_log(
    server, sweep, canned, tmp_path
):
    server.behaves(
        canned=str(canned),
        fails="",
        log="CellError\nValueError: the model is gone\n    at the end\n",
    )
    code, said, error = call("kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out")
    assert (
        code == 1
        and "ended with error: ValueError: the model is gone. The log:" in error
        and "rows merged" in said
    )
    assert set(rk.read(tmp_path / "out").table().status) == {"ok"}
    server.behaves(
        canned=str(canned),
        fails="Your notebook was stopped because it exceeded 12 hours",
        log="x\n",
    )
    assert (
        "exceeded 12 hours"
        in call("kaggle", "fetch", "me/realkit-cube", "--out", tmp_path / "out")[2]
    )
    shutil.rmtree(server.folder / "kernels" / "me" / "realkit-cube" / "1" / "working")
    (server.folder / "kernels" / "me" / "realkit-cube" / "1" / "log").unlink()
    code, _, error = call("kaggle", "fetch", "me/realkit-cube", "--out", tmp_path / "out")
    assert code == 1 and "exceeded 12 hours" in error and "Its output cannot be fetched" in error


def test_fetching_cells_that_are_not_ok_ends_with_1(server, sweep, canned, tmp_path):
    home = tmp_path / "half"
    shutil.copytree(canned, home)
    rows = home / "results" / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(line for line in lines if '"score"' not in line))
    server.behaves(canned=str(home))
    code, said, error = call("kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out")
    assert (code, error) == (1, "") and "2 cells pending" in said
    code, said, _ = call("kaggle", "fetch", "me/realkit-cube", "--out", tmp_path / "out")
    assert code == 1 and "2 cells pending" in said


def test_what_cannot_be_merged_is_kept_where_the_error_says(server, sweep, canned, tmp_path):
    out, other = (
        tmp_path / "out",
        shutil.copytree(canned / "results", tmp_path / "other" / "results"),
    )
    (other / "runs.jsonl").write_text(
        re.sub('"torch": "[^"]+"', '"torch": "2.6.0"', (other / "runs.jsonl").read_text())
    )
    shutil.copytree(canned / "results", out)
    server.behaves(canned=str(other.parent))
    code, _, error = call("kaggle", "push", "--sweep", sweep, "--out", out)
    (place,) = re.findall(r"attach '(.+?)'", error)
    assert code == 2 and "other versions" in error and (Path(place) / "rows.jsonl").is_file()
    assert call("kaggle", "fetch", "me/realkit-cube", "--out", tmp_path / "apart")[0] == 0
    assert not (tmp_path / "apart" / ".kaggle" / "output").exists()


def test_rows_without_runs_are_no_results(server, sweep, canned, tmp_path):
    torn = shutil.copytree(canned / "results", tmp_path / "torn" / "results")
    (torn / "runs.jsonl").unlink()
    server.behaves(canned=str(torn.parent), fails="Your notebook ran out of memory", log="x\n")
    assert call("kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out")[::2] == (
        1,
        (
            "realkit: me/realkit-cube ended with error: Your notebook ran out of memory. The log:"
            f" {tmp_path / 'out' / '.kaggle'}\n"
        ),
    )


@pytest.mark.parametrize(
    "printed",
    [
        "ready",
        "ready\n",
        "DatabundleVersionStatus.READY",
        "Warning: an outdated API version\nready\n/x.py:1: RuntimeWarning: old ssl\n  warn()",
    ],
)
def test_a_dataset_s_state_is_read_among_warnings(monkeypatch, printed):
    monkeypatch.setattr(client, "_call", lambda *_: (0, printed))
    assert client.dataset_state("me/a") == "ready"


def test_a_run_that_goes_on_is_left_alone_and_fetched_later(
    server, sweep, canned, tmp_path, monkeypatch
):
    server.behaves(canned=str(canned), stays=True)
    out = tmp_path / "out"
    code, said, _ = call("kaggle", "push", "--sweep", sweep, "--out", out, "--no-wait")
    assert code == 0 and f"realkit kaggle fetch me/realkit-cube --out {out}" in said
    for command in (["fetch", "me/realkit-cube"], ["push", "--sweep", sweep]):
        code, _, error = call("kaggle", *command, "--out", out)
        assert code in (1, 2) and re.search(
            "still (queued|running)|is (queued|running) on Kaggle", error
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push, "wait", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, error = call(
            "kaggle", "push", "--sweep", sweep, "--out", out, "--title", "another one"
        )
        assert (
            code == 130
            and "the run continues on Kaggle" in error
            and "realkit kaggle fetch me/another-one" in error
        )
    version = server.folder / "kernels" / "me" / "realkit-cube" / "1"
    for _ in range(100):
        if (version / "log").exists():
            break
        time.sleep(0.05)
    (version / "status").write_text("COMPLETE")
    assert (
        call("kaggle", "fetch", "https://www.kaggle.com/code/me/realkit-cube", "--out", out)[0] == 0
    )
    assert call("kaggle", "fetch", "me/nowhere", "--out", out)[0] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--accelerator", "NvidiaTeslaP100"], "retired the P100"),
        (["--accelerator", "T4"], "accelerator 'T4': expected one of NvidiaTeslaT4"),
        (["--title", "a b"], "title 'a b': expected 5 to 50"),
        (["--title", "фото" * 3], "Latin letters"),
        (["--model", "a/b"], "source 'a/b': expected OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
        (["--dataset", "https://www.kaggle.com/a"], "expected OWNER/SLUG"),
        (["-p", "sampler=Euler"], "has no parameter 'sampler': expected one of sweep, out"),
        (["-p", "sampler"], "expected -p NAME=VALUE"),
        (["-p", "out=a", "-p", "out=b"], "duplicate parameter 'out'"),
        (["-p", "out=3"], "parameter 'out' is 3, expected text"),
        (["-p", "out=hf_" + "a" * 30], "parameter 'out' holds a secret"),
        (["--budget", "soon"], "budget 'soon'"),
        (["--owner", "you"], "logged in as 'me'"),
    ],
)
def test_a_wrong_request_uploads_nothing(server, sweep, tmp_path, options, says):
    code, _, error = call("kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out", *options)
    assert code == 2 and says in error and error.count("\n") == 1
    assert not {"datasets create", "kernels push"} & set(server.calls)


def test_what_cannot_be_run_is_said_before_anything(server, sweep, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert "Expected a notebook, or --sweep" in call("kaggle", "push", "--out", out)[2]
    assert "cannot be read" in call("kaggle", "push", tmp_path / "none.ipynb", "--out", out)[2]
    sweep.write_text("models: rehearsal/base\nsampler: Euler\n")
    assert "Unknown key 'sampler'" in call("kaggle", "push", "--sweep", sweep, "--out", out)[2]
    (tmp_path / "mine").mkdir()
    sweep.write_text(
        yaml.safe_dump(SWEEP | {"models": str(tmp_path / "mine"), "guidance": 5, "size": 512})
    )
    assert (
        "is on this machine, and does not travel"
        in call("kaggle", "push", "--sweep", sweep, "--out", out)[2]
    )
    server.behaves(logged_in=False)
    code, _, error = call("kaggle", "push", ROOT / "notebooks" / "compare.ipynb", "--out", out)
    assert code == 2 and "KAGGLE_API_TOKEN" in error and error.count("\n") == 1 and not out.exists()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert (
        "pip install"
        in call("kaggle", "push", ROOT / "notebooks" / "compare.ipynb", "--out", out)[2]
    )


def test_a_model_that_is_not_attached_is_said_before_anything(server, sweep, tmp_path):
    out, model = tmp_path / "out", "a/b/pyTorch/c/1"
    sweep.write_text(
        yaml.safe_dump(SWEEP | {"models": f"kaggle:{model}", "guidance": 5, "size": 512})
    )
    command = ["kaggle", "push", "--sweep", sweep, "--out", out, "--dry-run", "--owner", "me"]
    code, _, error = call(*command, "--dataset", "a/other")
    assert code == 2 and "is not attached: add --model" in error
    assert call(*command, "--model", model)[0] == 0
    sweep.write_text(yaml.safe_dump(SWEEP | {"models": ["rehearsal/base", "sdxl-base"]}))
    code, _, error = call(*command, "--no-internet")
    assert code == 2 and "'sdxl-base' cannot be fetched without internet" in error
    assert call(*command, "--no-internet", "--model", model)[0] == 0 and call(*command)[0] == 0


def test_photographs_of_this_machine_do_not_travel(server, sweep, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    more = {"encoders": "rehearsal/clip", "photographs": str(photographs)}
    sweep.write_text(yaml.safe_dump(SWEEP | more))
    command = ["kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out", "--dry-run"]
    code, _, error = call(*command, "--owner", "me")
    assert code == 2 and "are on this machine, and do not travel" in error
    sweep.write_text(yaml.safe_dump(SWEEP | more | {"photographs": "/kaggle/input/street"}))
    assert call(*command, "--owner", "me", "--dataset", "me/street")[0] == 0


def test_a_race_travels(server, sweep, tmp_path):
    """What decides is an argument of rk.run: it goes the way of all of these."""
    race = "options={decide: rehearsal/clip, by: sampler}"
    out = tmp_path / "out"
    command = ["kaggle", "push", "--sweep", sweep, "--out", out, "--dry-run", "--owner", "me"]
    assert call(*command, "-p", race)[0] == 0
    notebook = nbformat.read(next((out / ".kaggle" / "kernel").glob("*.ipynb")), as_version=4)
    given = next(
        cell.source for cell in notebook.cells if "'decide'" in cell.source.replace('"', "'")
    )
    values: dict[str, object] = {}
    exec(given, values)
    assert values["options"] == {"decide": "rehearsal/clip", "by": "sampler"}


def test_the_guide_has_the_line_that_is_said_before_a_push():
    guide = (ROOT / "kaggle" / "README.md").read_text(encoding="utf-8")
    assert NOTICE in guide and "\n" not in NOTICE


def test_a_dry_run_needs_no_account(server, sweep, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")  # nor the kaggle command
    out = tmp_path / "out"
    code, said, error = call("kaggle", "push", "--sweep", sweep, "--out", out, "--dry-run")
    assert code == 0 and said.startswith("your-account/") and "nothing was pushed" in said
    assert "No account is known here: your-account stands for yours" in error
    assert metadata(out)["id"].startswith("your-account/") and not server.calls
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    command = ["kaggle", "push", "--sweep", sweep, "--out", tmp_path / "two", "--dry-run"]
    assert call(*command)[1].startswith("me/")


def book(path: Path, *cells: tuple[str, str]) -> Path:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}) for source, tag in cells]
    )
    nbformat.write(made, path)
    return path


def pushed(out: Path) -> str:
    cells = nbformat.read(out / ".kaggle" / "kernel" / metadata(out)["code_file"], 4).cells
    return "\n".join(
        cell.source for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])
    )


def test_a_notebook_takes_a_sweep(server, sweep, tmp_path):
    """Whole, as its parameter `sweep`, or key by key; a key that it does not have is refused."""
    options = ["--sweep", sweep, "--out", tmp_path, "--dry-run", "--owner", "me"]
    whole = book(tmp_path / "whole.ipynb", ("sweep = {}\nout = 'x'", "parameters"))
    assert call("kaggle", "push", whole, *options)[
        0
    ] == 0 and 'sweep={"models":["rehearsal/base"]' in "".join(pushed(tmp_path).split())
    single = book(
        tmp_path / "single.ipynb",
        ("models, prompts = [], []\nseeds = 1\nsteps = 9\nscorers = []", "parameters"),
    )
    assert call("kaggle", "push", single, *options, "-p", "steps=7")[0] == 0
    assert (
        'models = ["rehearsal/base"]' in pushed(tmp_path)
        and "steps = 7" in pushed(tmp_path)
        and "seeds = [0, 1]" in pushed(tmp_path)
    )
    code, _, error = call("kaggle", "push", ROOT / "notebooks" / "compare.ipynb", *options)
    assert code == 2 and "compare.ipynb has no parameter 'scorers'" in error


def test_the_parameters_cell_is_read_as_notebooks_have_it(server, tmp_path):
    magic = book(
        tmp_path / "magic.ipynb", ("%matplotlib inline\nsteps: int = -3\na, b = 1, 2", "parameters")
    )
    options = ["--out", tmp_path, "--dry-run", "--owner", "me"]
    assert (
        call("kaggle", "push", magic, *options, "-p", "steps=-4", "-p", "b=1")[0] == 0
        and pushed(tmp_path) == "# Parameters\nsteps = -4\nb = 1\n"
    )
    assert (
        "parameter 'steps' is 'many', expected a number"
        in call("kaggle", "push", magic, *options, "-p", "steps=many")[2]
    )
    twice = book(
        tmp_path / "twice.ipynb", ("steps = 3", "parameters"), ("steps = 8", "parameters")
    )  # which would take back what is given
    assert (
        "2 cells tagged 'parameters'" in call("kaggle", "push", twice, *options, "-p", "steps=4")[2]
    )
    leaky = book(
        tmp_path / "leaky.ipynb",
        ("steps = 3", "parameters"),
        ("login('hf_" + "aB3" * 12 + "')", "x"),
    )  # a token that this machine does not know
    assert "holds an access token" in call("kaggle", "push", leaky, *options)[2]


@pytest.mark.parametrize(
    ("title", "sent", "slug"),
    [
        ("realkit café", "realkit cafe", "realkit-cafe"),
        ("realkit größe", "realkit groe", "realkit-groe"),
        ("realkit 1,000 steps", "realkit 1,000 steps", "realkit-1000-steps"),
        ("realkit my_sweep x²", "realkit my_sweep x2", "realkit-my-sweep-x2"),
        ("realkit a&amp;b", "realkit a&b", "realkit-a-b"),
    ],
)
def test_titles_have_the_address_that_kaggle_gives_them(title, sent, slug):
    slugify = pytest.importorskip("slugify").slugify
    order = Order(sweep=Path("x.yaml"), title=title)
    assert (order.address("me"), order.plain_title()) == (f"me/{slug}", sent) and slugify(
        sent
    ) == slug


UNREACHED = (
    "HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded with url:"
    " /v1/kernels"
)


def test_kaggle_that_does_not_answer_is_not_taken_for_one_that_has_nothing(
    server, sweep, tmp_path, monkeypatch
):
    """A notebook whose state cannot be had is not pushed as if it were new, without the output of
    its previous version."""
    real = client._call
    monkeypatch.setattr(
        client,
        "_call",
        lambda *given: (1, UNREACHED) if given[:2] == ("kernels", "status") else real(*given),
    )
    for command in (["push", "--sweep", sweep], ["fetch", "me/realkit-cube"]):
        code, _, error = call("kaggle", *command, "--out", tmp_path / "out")
        assert code == 1 and "Kaggle cannot be reached" in error and error.count("\n") == 1
    assert not {"datasets create", "kernels push"} & set(server.calls)
    answers = [(1, UNREACHED), (0, 'me/a has status "cancelAcknowledged"')]
    monkeypatch.setattr(client, "_call", lambda *_: answers.pop(0))
    assert push.wait("me/a", print) == ("cancel_acknowledged", "")


def test_a_notebook_travels_with_its_parameters(server, tmp_path, monkeypatch):
    options = [
        "-p",
        "models=[sd-1.5, sdxl-base]",
        "-p",
        "steps=25",
        "--accelerator",
        "none",
        "--budget",
        "8h",
        "--public",
        "--dry-run",
        "--owner",
        "you",
    ]
    code, said, _ = call(
        "kaggle", "push", ROOT / "notebooks" / "compare.ipynb", "--out", tmp_path, *options
    )
    assert code == 0 and "nothing was pushed" in said and server.calls == []
    data = metadata(tmp_path)
    assert (
        data["id"] == "you/realkit-compare"
        and not data["is_private"]
        and not data["enable_gpu"]
        and "machine_shape" not in data
    )
    cells = nbformat.read(tmp_path / ".kaggle" / "kernel" / data["code_file"], 4).cells
    (injected,) = [
        cell.source for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    assert injected == '# Parameters\nmodels = ["sd-1.5", "sdxl-base"]\nsteps = 25\nbudget = "8h"\n'
    monkeypatch.setenv("HF_TOKEN", "a-token-of-mine")
    book = nbformat.read(ROOT / "notebooks" / "compare.ipynb", 4)
    book.cells[-1].source = "login('a-token-of-mine')"
    nbformat.write(book, tmp_path / "leaky.ipynb")
    code, _, error = call(
        "kaggle", "push", tmp_path / "leaky.ipynb", "--out", tmp_path, "--dry-run", "--owner", "you"
    )
    assert code == 2 and "holds an access token" in error and "a-token" not in error


REAL = """
import types, json
from kaggle.api.kaggle_api_extended import KaggleApi
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus
from kagglesdk.datasets.types.dataset_enums import DatabundleVersionStatus
api, said, space = KaggleApi(), {}, types.SimpleNamespace
none = dict(
    error="",
    invalidTags=[],
    invalidDatasetSources=[],
    invalidCompetitionSources=[],
    invalidKernelSources=[],
    versionNumber=3,
    url="https://k/code/me/a",
)
def told(name, method, answer, *given):
    print(f"<<{name}>>")
    setattr(api, method, lambda *_, **__: answer)
    out = getattr(api, CLI.get(method, f"{method}_cli"))(*given)
    print(out or "", end="")
CLI = {
    "dataset_create_new": "dataset_create_new_cli",
    "dataset_create_version": "dataset_create_version_cli",
}
told("pushed", "kernels_push", space(**none), ".", None, None)
no_quota = space(**none | {"error": "Maximum weekly GPU quota reached"})
told("push error", "kernels_push", no_quota, ".", None, None)
told("invalid", "kernels_push", space(**none | {"invalidKernelSources": ["me/a"]}), ".", None, None)
running = space(status=KernelWorkerStatus.RUNNING, failure_message="")
told("running", "kernels_status", running, "me/a")
failed = space(status=KernelWorkerStatus.ERROR, failure_message="It broke")
told("failed", "kernels_status", failed, "me/a")
told("more", "kernels_output", (["a"], "abc123"), "me/a")
told("made", "dataset_create_new", space(invalidTags=[], status="ok", url="https://k/d"), ".")
in_use = space(invalidTags=[], status="error", error="already in use", url="")
told("not made", "dataset_create_new", in_use, ".")
too_large = space(invalidTags=[], status="error", error="too large", url="")
told("no version", "dataset_create_version", too_large, ".", "note")
told("state", "dataset_status", DatabundleVersionStatus.READY.name.lower(), "me/a")
print("<<config>>")
api.authenticate()
api.print_config_values()
"""


def test_what_the_official_command_prints_is_understood(tmp_path, monkeypatch):
    """The installed one's own printing, of answers as Kaggle gives them: what the stand-in prints
    is checked against nothing else."""
    pytest.importorskip("kagglesdk")
    login = {
        "KAGGLE_USERNAME": "me",
        "KAGGLE_KEY": "0" * 32,
        "KAGGLE_CONFIG_DIR": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, env=login, cwd=tmp_path
    )
    said = dict(re.findall(r"<<(.+?)>>\n(.*?)(?=<<|\Z)", done.stdout, re.S))
    assert len(said) == 11, done.stderr

    def prints(name: str) -> None:
        monkeypatch.setattr(client, "_call", lambda *_: (0, said[name]))

    prints("pushed")
    assert client.push(tmp_path) == "https://k/code/me/a"
    for name, error in (
        ("push error", "Maximum weekly GPU quota"),
        ("invalid", "not valid kernel sources"),
    ):
        prints(name)
        with pytest.raises(rk.RequestError, match=error):
            client.push(tmp_path)
    for name, state in (("running", ("running", "")), ("failed", ("error", "It broke"))):
        prints(name)
        assert client.state("me/a") == state
    prints("made")
    client.upload(tmp_path, True, "")
    for name, error in (("not made", "already in use"), ("no version", "too large")):
        prints(name)
        with pytest.raises(rk.RequestError, match=error):
            client.upload(tmp_path, True, "")
    prints("state")
    assert client.dataset_state("me/a") == "ready"
    prints("config")
    assert client.owner() == "me"
    asked = []
    monkeypatch.setattr(
        client,
        "_call",
        lambda *given: asked.append(given) or (0, said["more"] if len(asked) == 1 else ""),
    )
    client.output("me/a", tmp_path)
    assert asked[1][-2:] == ("--page-token", "abc123") and len(asked) == 2


def test_the_wheels_that_travel_bring_what_they_need():
    image = {
        "python_version": "3.12",
        "python_full_version": "3.12.11",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": "",
    }
    names = {canonicalize_name(name) for name in OFFLINE}
    for name in OFFLINE:
        needs = [
            need
            for need in map(Requirement, requires(name) or ())
            if need.marker is None or need.marker.evaluate(image)
        ]
        assert {canonicalize_name(need.name) for need in needs} <= names | ALWAYS, name
    assert not {"torch", "torchvision", "numpy"} & names


@pytest.mark.slow
def test_the_wheel_is_the_same_each_time_and_pip_takes_it(tmp_path):
    one, other = (
        wheels.wheel(folder)
        for folder in (tmp_path, tmp_path / "b")
        if folder.mkdir(exist_ok=True) is None
    )
    assert one.read_bytes() == other.read_bytes()
    done = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        str(tmp_path / "t"),
        str(one),
    ]
    assert subprocess.run(done, capture_output=True).returncode == 0
    code = (
        "import realkit, realkit.apps.doctor.facts as m, importlib.metadata as d;"
        " print(realkit.__file__, d.version('realkit'), len(m.lower_bounds()))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "t")},
        capture_output=True,
        text=True,
    ).stdout.split()
    assert found[0].startswith(str(tmp_path / "t")) and found[1:] == [
        "0.1.0",
        str(len((ROOT / "requirements.txt").read_text().splitlines()) - 1),
    ]


def test_the_wheel_holds_the_files_that_are_no_modules(tmp_path):
    names = set(zipfile.ZipFile(wheels.wheel(tmp_path)).namelist())
    data = {
        "apps/notebooks/templates/index.html",
        "analysis/templates/vote.html",
        "apps/kaggle/run.ipynb",
        "catalog/models.toml",
        "catalog/configs/sd1/model_index.json",
    }
    assert {f"realkit/{name}" for name in data} <= names
    assert any(
        name.startswith("realkit/rehearsal/weights/") and name.endswith(".safetensors")
        for name in names
    )


@pytest.mark.slow
def test_the_wheel_holds_what_the_build_tool_puts_into_one(tmp_path):
    names = set(zipfile.ZipFile(wheels.wheel(tmp_path)).namelist())
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "realkit", source / "realkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path / "built"),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = (tmp_path / "built").glob("*.whl")
    assert {name for name in zipfile.ZipFile(built).namelist() if name.startswith("realkit/")} == {
        name for name in names if name.startswith("realkit/")
    }


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Kaggle's image, as far as this machine has one: a Python of its own that sees the big
    libraries, but not realkit, no spandrel, and an old diffusers."""
    folder = tmp_path_factory.mktemp("image")
    libraries = Path(nbformat.__file__).parent.parent
    (seen := folder / "libraries").mkdir()
    for entry in libraries.iterdir():
        if not re.match(
            r"(__editable__|_*realkit|spandrel|diffusers|__pycache__)", entry.name
        ) and entry.suffix not in (".pth", ".egg-link"):
            (seen / entry.name).symlink_to(entry)
    (seen / "diffusers-0.37.1.dist-info").mkdir()
    (seen / "diffusers-0.37.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: diffusers\nVersion: 0.37.1\n"
    )
    (seen / "diffusers").mkdir()
    (seen / "diffusers" / "__init__.py").write_text("raise ImportError('the old one')\n")

    def new(name: str) -> Path:
        subprocess.run(
            [sys._base_executable, "-m", "venv", "--without-pip", str(folder / name)], check=True
        )
        (site,) = (folder / name).glob("lib/python*/site-packages")
        (site / "image.pth").write_text(f"{seen}\n")
        return folder / name / "bin" / "python"

    return new


@pytest.mark.slow
def test_a_sweep_runs_on_kaggle_offline_in_two_goes(tmp_path, monkeypatch, image):
    """Push; bootstrap from wheels with the internet cut; run until the budget ends; fetch and
    merge; push again, with the first output attached; merge."""
    many = SWEEP | {
        "samplers": ["Euler", "DDIM"],
        "seeds": 6,
        "steps": 30,
        "upscalers": "lanczos",
        "target": 200,
    }
    (tmp_path / "cubes.yaml").write_text(yaml.safe_dump(many))
    (tmp_path / "server").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kaggle").write_text(
        f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "fake_kaggle.py"} "$@"\n'
    )
    (tmp_path / "bin" / "kaggle").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("FAKE_KAGGLE", str(tmp_path / "server"))
    monkeypatch.setattr(push, "FIRST_S", 1.0)
    monkeypatch.setattr(push, "LONGEST_S", 2.0)
    if reason := no_index():
        pytest.skip(reason)
    began = time.monotonic()
    local = rk.run(many, tmp_path / "local", batch=1).table()
    took = time.monotonic() - began
    server, out = Server(tmp_path / "server"), tmp_path / "out"
    first = [
        "kaggle",
        "push",
        "--sweep",
        tmp_path / "cubes.yaml",
        "--out",
        out,
        "--no-internet",
        "-p",
        "options={batch: 1}",
    ]
    for share in (
        0.4,
        0.8,
        1.6,
        # of the work's time, beside the reserve and the imports: one of them stops it half-way,
        # wherever this runs
    ):
        server.behaves(python=str(image(f"with-{share}")))
        code, said, error = call(*first, "--budget", f"{7 + share * took:.1f}s")
        if (out / "rows.jsonl").exists():
            break
    assert code == 1, f"{error}\n{(out / '.kaggle' / 'realkit-cubes.log').read_text()}"  # pending
    log = (out / ".kaggle" / "realkit-cubes.log").read_text()
    assert (
        re.search(r"Kaggle, .*internet off.*; installed: diffusers 0\.\d+\.\d+, spandrel", log)
        and "Stopped before the end: its time is up" in log
    )
    assert "pending" in said
    before = (out / "rows.jsonl").read_text().splitlines()
    server.behaves(python=str(image("last")))
    code, said, error = call(*first)
    assert code == 0 and "12 cells ok" in said, error
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    ids = [row["id"] for row in rows if row["status"] == "ok"]
    assert (
        len(ids) == len(set(ids))
        and (out / "rows.jsonl").read_text().splitlines()[: len(before)] == before
    )
    last = json.loads((out / "runs.jsonl").read_text().splitlines()[-1])["run"]
    assert {row["id"] for row in rows if row["run"] == last}.isdisjoint(
        json.loads(line)["id"] for line in before
    )
    table = rk.read(out).table()
    assert (
        set(table.cell) == set(local.cell)
        and set(table.image) == set(local.image)
        and (table.status == "ok").all()
        and table["colour-cast"].notna().all()
    )


def test_a_notebook_of_ones_own_begins_with_the_bootstrap_cell(tmp_path):
    own = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('hello')")])
    nbformat.write(own, tmp_path / "own.ipynb")
    cells = kernel.notebook(tmp_path / "own.ipynb", {}).cells
    (ours,) = [
        cell
        for cell in nbformat.read(ROOT / "notebooks" / "compare.ipynb", 4).cells
        if "bootstrap" in cell.metadata.get("tags", [])
    ]
    assert [cell.source for cell in cells] == [ours.source, "print('hello')"]
    again = kernel.notebook(ROOT / "notebooks" / "compare.ipynb", {}).cells
    assert sum(cell.source == ours.source for cell in again) == 1


def test_the_account_is_known_without_being_asked_for(tmp_path, monkeypatch):
    """Where the command says nothing of its configuration, the environment and the older
    kaggle.json do."""
    command = tmp_path / "kaggle"
    command.write_text("#!/bin/sh\necho 'no such command' >&2\nexit 2\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    with pytest.raises(rk.RequestError, match="The kaggle command is not logged in"):
        client.owner()
    (tmp_path / "kaggle.json").write_text('{"username": "me", "key": "k"}')
    assert client.owner() == "me"
    monkeypatch.setenv("KAGGLE_USERNAME", "you")
    assert client.owner() == "you"


def test_a_mistyped_parameter_of_a_notebook_gets_its_suggestion(server, sweep, tmp_path):
    command = ["kaggle", "push", "--sweep", sweep, "--out", tmp_path / "out", "--dry-run"]
    code, _, error = call(*command, "--owner", "me", "-p", "enigne=ray")
    assert code == 2 and "has no parameter 'enigne'. Did you mean 'engine'?" in error
