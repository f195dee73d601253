"""A notebook's first step: what it installs, what it leaves alone, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from realkit import RequestError
from realkit.apps.doctor import builds
from realkit.apps.notebooks import bootstrap
from realkit.apps.notebooks.bootstrap import Here
from realkit.base import credentials
from realkit.base.credentials import NAMES
from realkit.weights.sources.inputs import INPUTS
from tests import driver
from tests.wheels import environment, no_index, wheel

ROOT = Path(__file__).parents[2]
BOUNDS = {
    "torch": "2.6",
    "numpy": "2.0",
    "rk-fine": "1.0",
    "rk-old": "2.0",
    "rk-new": "1.0",
    "papermill": "99",
}
PREPARE = """
import json, sys
from realkit import bootstrap
bootstrap.lower_bounds = lambda: {bounds!r}
bootstrap._internet = lambda: {internet!r}
{before}
try:
    bootstrap.prepare()
except bootstrap.RequestError as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image with a torch and a numpy of its own, a library that is too old, and one that is new
    enough."""
    folder = tmp_path_factory.mktemp("image")
    made = [
        wheel(folder, name, number)
        for name, number in {
            "torch": "2.10.0+cu128",
            "numpy": "2.1.0",
            "rk-fine": "1.0",
            "rk-old": "1.0",
        }.items()
    ]
    environment(folder / "python", *made)
    return folder / "python"


@pytest.fixture
def python(image, tmp_path):
    """A fresh copy of the image."""
    shutil.copytree(image, tmp_path / "python", symlinks=True)
    return tmp_path / "python" / "bin" / "python"


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "input" / "datasets" / "me" / "realkit-wheels"
    for name, number in {"torch": "2.15.0", "numpy": "2.4.0", "rk-fine": "3.0"}.items():
        wheel(folder, name, number)
    return folder


def prepared(
    python: Path, inputs: Path, internet: bool = False, before: str = "", **environment: str
) -> str:
    script = PREPARE.format(bounds=BOUNDS, internet=internet, before=before)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    given = {
        "PYTHONPATH": str(ROOT),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "REALKIT_INPUTS": str(inputs.parents[2]),
        "HF_TOKEN": "a-token-of-mine",
    }
    done = subprocess.run(
        [python, "-c", script],
        env=kept | given | environment,
        capture_output=True,
        text=True,
        cwd=inputs,
    )
    assert not done.stderr and "a-token" not in done.stdout, done.stderr
    return done.stdout.strip()


def installed(python: Path) -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import distributions as d;"
        " print(json.dumps({x.metadata['Name']: x.version for x in d()}))"
    )
    found = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True, cwd=python.parent
    ).stdout
    return {
        name: number
        for name, number in json.loads(found).items()
        if name not in ("pip", "setuptools", "wheel")
    }


HAD = {"torch": "2.10.0+cu128", "numpy": "2.1.0", "rk-fine": "1.0", "rk-old": "1.0"}


def test_only_what_is_missing_or_too_old_is_installed_and_torch_never(python, inputs):
    wheel(inputs, "rk-old", "2.5", "numpy>=2")
    wheel(inputs, "rk-new", "1.0", "torch>=2.6", "rk-part")
    wheel(inputs, "rk-part", "0.1")
    said = prepared(python, inputs)
    assert said.startswith("Kaggle, ") and said.count("\n") == 0
    assert (
        said.endswith("internet off, HF token from environment; installed: rk-old 2.5, rk-new 1.0")
        and "torch 2.10.0+cu128" in said
    )
    assert installed(python) == HAD | {"rk-old": "2.5", "rk-new": "1.0", "rk-part": "0.1"}
    assert "installed" not in prepared(python, inputs)  # and the second time nothing


@pytest.mark.parametrize(
    ("needs", "internet", "says"),
    [
        (("torch>=2.14",), False, "torch>=2.14"),
        pytest.param(
            ("rk-lost>=1",),
            False,
            "No matching distribution found for rk-lost>=1",
            marks=pytest.mark.slow,
        ),
        pytest.param(("torch>=2.14",), True, "try the latest image", marks=pytest.mark.slow),
    ],
)
def test_where_it_cannot_be_had_nothing_is_installed(python, inputs, needs, internet, says):
    wheel(inputs, "rk-old", "2.5")
    wheel(inputs, "rk-new", "1.0", *needs)
    # As a notebook's kernel sets it: pip's errors begin with the codes of colours.
    said = prepared(python, inputs, internet, PIP_NO_INDEX="1", FORCE_COLOR="1")
    assert (
        said.startswith("refused: rk-old>=2.0, rk-new>=1.0 cannot be installed: ")
        and says in said
        and "Nothing was installed" in said
        and said.count("\n") == 0
    )
    assert internet or "turn the internet on, or attach a dataset with its wheel" in said
    assert installed(python) == HAD


@pytest.mark.slow
def test_the_index_is_asked_where_wheels_do_not_suffice_and_the_internet_is_on(
    python, inputs, tmp_path
):
    wheel(inputs, "rk-old", "2.5")
    index = tmp_path / "index" / "rk-new"
    made = wheel(index, "rk-new", "1.2")
    (index / "index.html").write_text(f'<a href="{made.name}">{made.name}</a>')
    said = prepared(
        python, inputs, True, PIP_INDEX_URL=index.parent.as_uri(), PIP_CONFIG_FILE=os.devnull
    )
    assert said.endswith("installed: rk-old 2.5, rk-new 1.2") and "internet on" in said
    assert installed(python) == HAD | {"rk-old": "2.5", "rk-new": "1.2"}


@pytest.mark.slow
def test_what_was_loaded_before_wants_a_restart(python, inputs):
    wheel(inputs, "rk-old", "2.5")
    wheel(inputs, "rk-new", "1.0")
    said = prepared(python, inputs, before="sys.modules['rk-old'] = None")
    assert (
        said
        == "refused: rk-old: an older version is already imported. Restart the kernel, then run the"
        " notebook again"
    )


@pytest.mark.slow
def test_what_came_along_wants_a_restart_too(python, inputs):
    """A library that was new enough, had been imported, and was replaced because another needs it
    newer."""
    wheel(inputs, "rk-old", "2.5", "rk-fine>=2")
    wheel(inputs, "rk-new", "1.0")
    said = prepared(python, inputs, before="sys.modules['rk-fine'] = None")
    assert (
        said
        == "refused: rk-fine: an older version is already imported. Restart the kernel, then run"
        " the notebook again"
    )
    assert installed(python) == HAD | {"rk-old": "2.5", "rk-new": "1.0", "rk-fine": "3.0"}


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        (
            (
                "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied:"
                " '/usr/x'\nCheck the permissions.\n"
            ),
            "Permission denied: '/usr/x'",
        ),
        (
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on"
                " device\n\n"
            ),
            "No space left on device",
        ),
        ("python: No module named pip\n", "No module named pip"),
    ],
)
@pytest.mark.parametrize("internet", [False, True])
def test_what_fails_for_another_reason_is_not_blamed_on_torch(monkeypatch, printed, says, internet):
    """A disk that is full, a folder that may not be written to, no pip: pip has not said that
    nothing was installed."""
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *_, **__: types.SimpleNamespace(
            returncode=1, stdout="Collecting x\n", stderr=printed
        ),
    )
    with pytest.raises(RequestError) as refused:
        bootstrap._install(["x>=1"], internet)
    assert says in str(refused.value) and "A part may be installed" in str(refused.value)
    assert "torch" not in str(refused.value) and "Nothing was installed" not in str(refused.value)


@pytest.mark.slow
def test_what_a_notebook_asks_for_besides_is_installed_where_it_is_missing(python, inputs):
    for name, number in {"rk-old": "2.5", "rk-new": "1.0", "rk-more": "3.1"}.items():
        wheel(inputs, name, number)
    prepared(python, inputs, before="bootstrap.require('rk-more>=3.0', 'rk-fine>=1.0')")
    assert installed(python) == HAD | {"rk-old": "2.5", "rk-new": "1.0", "rk-more": "3.1"}


@pytest.mark.slow
def test_elsewhere_nothing_is_installed(python, inputs, tmp_path):
    said = prepared(python, inputs, before="bootstrap.place_here = lambda: 'Jupyter'")
    assert (
        said.startswith("Jupyter, ")
        and said.endswith("lacking: rk-old>=2.0, rk-new>=1.0 (pip install -r requirements.txt)")
        and installed(python) == HAD
    )


TORCH = """
import types, sys
__version__ = "2.10.0+cu128"
version = types.SimpleNamespace(cuda="12.8")
gpu = types.SimpleNamespace(name={name!r}, major={major}, minor={minor}, total_memory=2**34)
cuda = types.SimpleNamespace(
    init=lambda: None,
    device_count=lambda: 2,
    get_device_properties=lambda n: gpu,
    get_arch_list=lambda: ["sm_70", "sm_75", "sm_80"],
)
"""


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Two GPUs of a kind as the driver and a torch of the image's kind see them, on Kaggle with all
    else installed; what pip is asked for."""

    def of(name: str, major: int, minor: int, internet: bool) -> list[list[str]]:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text(
            TORCH.format(name=name, major=major, minor=minor)
        )
        card = driver.Card(name, (major, minor), 2**34)
        monkeypatch.setitem(sys.modules, "pynvml", driver.bindings("550.54", card, card))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        monkeypatch.setattr(bootstrap, "_internet", lambda: internet)
        monkeypatch.setattr(bootstrap, "wanted", lambda: [])
        monkeypatch.setattr(
            bootstrap, "_nothing_stale", lambda installed: None
        )  # this process has torch
        asked: list[list[str]] = []
        monkeypatch.setattr(bootstrap, "_pip", lambda arguments: asked.append(arguments) or "")
        return asked

    return of


def test_a_p100_gets_the_last_build_that_serves_it_both_parts_together(gpu, capsys):
    asked = gpu("Tesla P100-PCIE-16GB", 6, 0, internet=True)
    bootstrap.prepare()
    assert asked == [
        [
            "install",
            "torch==2.10.0+cu126",
            "torchvision==0.25.0+cu126",
            "--index-url",
            "https://download.pytorch.org/whl/cu126",
        ]
    ]
    assert "Tesla P100-PCIE-16GB ×2" in capsys.readouterr().out


def test_a_p100_without_internet_is_refused_with_what_to_do(gpu):
    asked = gpu("Tesla P100-PCIE-16GB", 6, 0, internet=False)
    with pytest.raises(
        RequestError,
        match=(
            r"\(capability 6\.0\) has no kernels in torch 2\.10\.0\+cu128, and the internet is off:"
            r" choose the accelerator GPU T4 x2"
        ),
    ):
        bootstrap.prepare()
    assert asked == []


@pytest.mark.parametrize(("name", "major", "minor"), [("Tesla T4", 7, 5), ("NVIDIA A100", 8, 0)])
def test_a_gpu_with_kernels_keeps_its_torch(gpu, capsys, name, major, minor):
    asked = gpu(name, major, minor, internet=True)
    bootstrap.prepare()
    assert asked == [] and f"Kaggle, {name} ×2, Python" in capsys.readouterr().out


def test_a_gpu_too_new_for_the_build_is_not_given_an_older_one(gpu):
    asked = gpu("NVIDIA B200", 10, 0, internet=True)
    with pytest.raises(RequestError, match="capability 10"):
        bootstrap.prepare()
    assert asked == []


# To the letter: a backslash at an end of a line joins it with the next.
OLD_CELL = """
import glob, importlib.util, os, re, subprocess, sys  \
# get realkit itself where it is not installed: the newest attached wheel, else the repository
if importlib.util.find_spec("realkit") is None:
    attached = glob.glob(\
os.environ.get("REALKIT_INPUTS", "/kaggle/input") + "/**/realkit-*.whl", recursive=True)
    source = max(attached, \
key=lambda path: [int(n) for n in re.findall(r"\\d+", os.path.basename(path).split("-")[1])], \
default="git+https://github.com/realkit/realkit")
    if subprocess.run(\
[sys.executable, "-m", "pip", "install", "-q", "--no-deps", source]).returncode:
        sys.exit("realkit cannot be installed: \
attach a dataset that holds its wheel (realkit kaggle wheel), or turn the internet on")
from realkit import bootstrap
here = bootstrap.prepare(drive=False)  # True: on Colab, results go to Google Drive
"""


def test_the_first_cell_of_a_notebook_that_is_on_kaggle_already_works(tmp_path):
    """Its text as it was pushed before the modules moved to their folders, and what the later cells
    use of it."""
    use = 'out = here.out("results")\nbootstrap.require(*[])\nprint(out, here.earlier(out))'
    given = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", OLD_CELL + use],
        capture_output=True,
        text=True,
        env=given,
        cwd=tmp_path,
    )
    first, last = done.stdout.splitlines()
    assert done.returncode == 0 and first.startswith("plain Python, ") and last == "results []", (
        done.stderr
    )


def test_the_image_s_torch_is_not_loaded_to_find_this_out(tmp_path):
    code = (
        "import sys; from realkit import bootstrap; bootstrap.prepare(); print([m for m in"
        " ('torch', 'numpy', 'pydantic', 'diffusers', 'click') if m in sys.modules])"
    )
    given = os.environ | {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=given, cwd=tmp_path
    )
    assert done.stdout.splitlines()[1:] == ["[]"] and "internet off" in done.stdout, done.stderr


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """Colab, with a token among its secrets, and Drive mounted when asked for."""
    google = {name: types.ModuleType(name) for name in ("google", "google.colab")}
    google["google.colab"].userdata = types.SimpleNamespace(
        get=lambda name: "secret-of-mine" if name == "HF_TOKEN" else 1 / 0
    )
    google["google.colab"].drive = types.SimpleNamespace(
        mount=lambda path: (Path(path) / "MyDrive").mkdir(parents=True)
    )
    for name, module in google.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(bootstrap, "CONTENT", tmp_path / "content")
    monkeypatch.setattr(bootstrap, "DRIVE", tmp_path / "content" / "drive")
    monkeypatch.setattr(bootstrap, "_internet", lambda: True)
    monkeypatch.setattr(bootstrap, "wanted", lambda: [])
    monkeypatch.setattr(bootstrap, "_handed", {})
    monkeypatch.setattr(credentials, "_answers", {})
    monkeypatch.setattr(credentials, "_silent", set())
    for name in (*NAMES["huggingface"], *NAMES["civitai"], "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path / "content"


def test_on_colab_secrets_reach_children_and_results_go_to_drive(colab, capsys):
    here = bootstrap.prepare()
    said = capsys.readouterr().out
    assert (
        said.startswith("Colab, ")
        and "HF token from Colab secrets" in said
        and "secret-of-mine" not in said
        and said.count("\n") == 1
    )
    assert os.environ["HF_TOKEN"] == "secret-of-mine" and here.out("../results/compare") == str(
        colab / "compare"
    )
    assert not (colab / "drive").exists()
    there = bootstrap.prepare(drive=True)
    assert there.out("../results/compare") == str(
        colab / "drive" / "MyDrive" / "realkit" / "compare"
    )
    assert "HF token from Colab secrets" in capsys.readouterr().out
    assert bootstrap.prepare() == there  # a mounted Drive is taken anyway


def test_a_drive_that_is_not_allowed_is_one_line(colab, monkeypatch):
    monkeypatch.setattr(
        sys.modules["google.colab"].drive,
        "mount",
        lambda path: (_ for _ in ()).throw(ValueError("mount failed")),
    )
    with pytest.raises(RequestError, match="cannot be mounted"):
        bootstrap.prepare(drive=True)
    monkeypatch.setitem(sys.modules, "google.colab", None)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "a local runtime")
    with pytest.raises(RequestError, match="cannot be mounted"):
        bootstrap.prepare(drive=True)


def test_where_results_lie(tmp_path, monkeypatch):
    assert Here("plain", None).out("../results/compare") == "../results/compare"
    kaggle = Here("Kaggle", Path("/kaggle/working"))
    assert (
        kaggle.out("../results/compare") == "/kaggle/working/compare"
        and kaggle.out("/tmp/x") == "/tmp/x"
    )
    monkeypatch.setenv(INPUTS, str(tmp_path))
    assert kaggle.earlier("../results/compare") == []
    for place in (
        "my-sweep/compare",
        "notebooks/me/my-sweep/compare",
        "notebooks/me/my-sweep/other",
    ):
        (tmp_path / place).mkdir(parents=True)
        for name in ("rows.jsonl", "runs.jsonl"):
            (tmp_path / place / name).touch()
    assert kaggle.earlier("../results/compare") == [
        str(tmp_path / place) for place in ("my-sweep/compare", "notebooks/me/my-sweep/compare")
    ]


def test_what_is_wanted_follows_the_requirements(monkeypatch):
    assert bootstrap.wanted() == []
    monkeypatch.setattr(
        bootstrap,
        "lower_bounds",
        lambda: {"torch": "2.6", "diffusers": "99", "nothing-like-it": "0.1", "papermill": "99"},
    )
    assert bootstrap.wanted() == ["diffusers>=99", "nothing-like-it>=0.1"]


@pytest.mark.slow
def test_the_requirements_resolve_beside_colab_s_python_and_widgets(tmp_path):
    """Colab (August 2026): Python 3.13, torch 2.11, ipywidgets 7.7.1. Its torch stands in as a
    wheel of no contents."""
    if reason := no_index():
        pytest.skip(reason)
    for name, number in {
        "torch": "2.11.0+cu128",
        "torchvision": "0.26.0+cu128",
        "torchaudio": "2.11.0+cu128",
    }.items():
        wheel(tmp_path / "image", name, number)
    (tmp_path / "pins.txt").write_text(
        "torch==2.11.0+cu128\ntorchvision==0.26.0+cu128\nipywidgets==7.7.1\n"
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--dry-run",
        "--ignore-installed",
        "--python-version=3.13",
        "--only-binary=:all:",
        f"--target={tmp_path / 'x'}",
        f"--find-links={tmp_path / 'image'}",
        "-c",
        str(tmp_path / "pins.txt"),
        "-r",
        str(ROOT / "requirements.txt"),
        "--report",
        str(tmp_path / "report.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    made = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads((tmp_path / "report.json").read_text())["install"]
    }
    assert (
        made["ipywidgets"] == "7.7.1"
        and made["torch"] == "2.11.0+cu128"
        and builds.numbers(made["diffusers"]) >= (0, 42)
    )


@pytest.mark.slow
def test_our_widgets_work_with_colab_s(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path),
        "ipywidgets==7.7.1",
        "ipython-genutils",
    ]
    if reason := no_index():
        pytest.skip(reason)
    subprocess.run(command, check=True)
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    code = """
import io, ipywidgets, sys
from PIL import Image
import realkit as rk
pictures = {name: Image.open(f"{sys.argv[1]}/{name}.png") for name in "ab"}
made = rk.before_after(pictures, "a", "b", side=64)
(left, right), shown, border = made.children[0].children, *made.children[1:3]
at = lambda x: Image.open(io.BytesIO(shown.value)).getpixel((x, 10))
first = at(10), at(60)
border.value = 0
then = at(10)
print(ipywidgets.__version__, type(made).__name__, first, then, left.options)
"""
    given = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=given,
    )
    assert done.stdout.strip().splitlines()[-1:] == [
        "7.7.1 VBox ((255, 0, 0), (0, 0, 255)) (0, 0, 255) ('a', 'b')"
    ], done.stdout + done.stderr
