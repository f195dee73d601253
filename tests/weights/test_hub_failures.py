"""What a hub can do wrong: each ends in one line that says what to do, leaves nothing half-written,
and a healthy hub mends it."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import realkit as rk
from realkit.weights.sources import huggingface
from tests import miniatures
from tests.hub_server import COMMIT, Hub, Manners, killed, nowhere, python, realkit, serving

TOKEN = "hf_aTokenOfLettersAndNumbers0123456789"
UNET = "unet/diffusion_pytorch_model.safetensors"
HUB_TOKEN = r"set HF_TOKEN \(environment, Kaggle or Colab secrets\)"


@dataclass(frozen=True)
class Case:
    """How a repository, or its UNet's file, misbehaves; what the line then says, or "" where it is
    waited for; which token is given."""

    manners: Manners
    says: str = ""
    file: bool = False
    token: str = ""


CASES = {
    "gated": Case(Manners(gated=True, token=TOKEN),
        r"it is gated and there is no token\. Accept its licence at"
        rf" https://huggingface\.co/some/gated, then {HUB_TOKEN}"),
    "gated-for-this-token": Case(Manners(gated=True, token=TOKEN),
        r"it is gated and the token does not open it\. Accept its licence at",
    token="hf_anotherToken"),
    "private": Case(Manners(token=TOKEN),
        r"there is no such repository, or it is private and there is no token\. Look at"
        r" https://huggingface\.co/some/private"),
    "private-for-this-token": Case(Manners(token=TOKEN),
        "it is private and the token does not open it", token="hf_anotherToken"),
    "forbidden": Case(Manners(status=403),
        f"the hub answered 403 and there is no token.*{HUB_TOKEN}"),
    "files-forbidden": Case(Manners(refused=403),
        f"the hub answered 403 and there is no token.*{HUB_TOKEN}"),
    "down": Case(Manners(status=503), "the hub answered 503: try again later"),
    "files-down": Case(Manners(refused=500), "the hub answered 500: try again later"),
    "busy": Case(Manners(waits=99),
        r"the hub asks to wait \(429\): try again later, with HF_TOKEN set the limits are wider"),
    "file-gone": Case(Manners(refused=404),
        "'some/file-gone'.*there is no such file. Take another revision", file=True),
    "truncated": Case(Manners(cuts=-1),
        r"'some/truncated' cannot be fetched: .*Run again: complete files are kept", file=True),
    "altered": Case(Manners(altered=True),
        rf"File '{UNET}' of hub model 'some/altered' does not have the published SHA-256:"
        r" it is removed, run again", file=True),
    "cut-twice": Case(Manners(cuts=2), file=True),
    "busy-twice": Case(Manners(waits=2)),
    "file-busy-twice": Case(Manners(waits=2), file=True),
}  # fmt: skip
# What each kind of failure leaves in the cache: nothing, a listing, a listing and some files, half
# a file, a wrong one.
MENDED = ["gated", "down", "files-down", "file-gone", "truncated", "altered"]
LOADS = """
    import io, json, os, sys, time, traceback
    from contextlib import redirect_stderr, redirect_stdout

    waited = []
    time.sleep = waited.append
    import realkit as rk
    from realkit.apps.cli.main import main

    def load(name, token):
        os.environ.pop("HF_TOKEN", None)
        os.environ |= {"HF_TOKEN": token} if token else {}
        waited.clear()
        try:
            model = rk.load(name)
            image = model("a photo of a red cube", sampler="Euler", steps=1, size=64, guidance=0)
            return {"size": image.size, "waited": list(waited)}
        except rk.RequestError as error:
            return {"refused": str(error), "waited": list(waited)}
        except Exception:
            return {"raised": traceback.format_exc()}

    def command(*arguments):
        out, error = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(error):
            try:
                main(arguments, prog_name="realkit")
            except SystemExit as end:
                return {"code": end.code or 0, "stdout": out.getvalue(), "stderr": error.getvalue()}

    cases, commands = json.loads(os.environ["ASKED"])
    found = {name: load(f"some/{name}", token) for name, token in cases.items()}
    os.environ.pop("HF_TOKEN", None)
    ended = {name: command(*arguments) for name, arguments in commands.items()}
    print("FOUND" + json.dumps([found, ended]))
"""


@dataclass(frozen=True)
class Ran:
    """What became of the cases and commands against a sick hub, and what lay in the cache then."""

    sick: tuple[dict[str, Any], dict[str, Any]]
    half: list[str]
    wrong: list[str]
    hub: Hub
    place: Path
    commands: dict[str, list[str]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return miniatures.miniature("sd1", tmp_path_factory.mktemp("repository") / "sd1")


@pytest.fixture(scope="module")
def ran(repository, tmp_path_factory) -> Iterator[Ran]:
    place = tmp_path_factory.mktemp("failures")
    (place / "sweep.yaml").write_text(
        "models: some/run\nprompts: a\nsamplers: Euler\nsteps: 1\nsize: 64\nguidance: 0\n"
    )
    commands = {
        "generate": [
            "generate",
            "a cube",
            "--model",
            "some/generate",
            "--sampler",
            "Euler",
            "--steps",
            "1",
            "--size",
            "64",
            "--out",
            str(place / "a.png"),
        ],
        "run": ["run", str(place / "sweep.yaml"), "--out", str(place / "out")],
    }
    names = [*CASES, *commands]
    manners = {
        f"some/{name}/{UNET}" if case.file else f"some/{name}": case.manners
        for name, case in CASES.items()
    }
    manners |= {f"some/{name}/{UNET}": Manners(altered=True) for name in commands}
    with serving({f"some/{name}": repository for name in names}, manners) as hub:
        sick = loads(place, hub, {name: case.token for name, case in CASES.items()}, commands)
        cache = place / "home" / "hf" / "hub"
        served = {
            path.relative_to(repository): path.read_bytes()
            for path in repository.rglob("*")
            if path.is_file()
        }
        snapshots = [
            path
            for path in cache.glob(f"models--some--*/snapshots/{COMMIT}/**/*")
            if path.is_file()
        ]
        wrong = [
            str(path)
            for path in snapshots
            if path.read_bytes() != served[Path(str(path).split(f"{COMMIT}/")[1])]
        ]
        half = [str(path) for path in cache.rglob("*.incomplete")]
        yield Ran(sick, half, wrong, hub, place, commands)


@pytest.fixture(scope="module")
def healed(ran) -> tuple[dict[str, Any], dict[str, Any]]:
    """What becomes of them when the hub is healed, in the cache that the sick one left."""
    ran.hub.manners = {
        f"some/{name}": Manners(gated=case.manners.gated, token=case.manners.token)
        for name, case in CASES.items()
    }
    return loads(
        ran.place, ran.hub, {name: CASES[name].manners.token for name in MENDED}, ran.commands
    )


def loads(
    place: Path, hub: Hub, cases: dict[str, str], commands: dict[str, list[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    done = python(LOADS, place / "home", hub.endpoint, ASKED=json.dumps([cases, commands]))
    assert done.returncode == 0, done.stderr[-3000:]
    found, ended = json.loads(done.stdout.split("FOUND")[1])
    return found, ended


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.says])
def test_a_failure_is_one_line_that_says_what_to_do(name, ran):
    found = ran.sick[0][name]
    said = found.get("refused", "")
    assert said and "\n" not in said and re.search(CASES[name].says, said), found
    assert f"some/{name}" in said and len(said) < 400 and "hf_" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.says])
def test_what_passes_is_waited_for(name, ran):
    assert ran.sick[0][name].get("size") == [64, 64], ran.sick[0][name]
    if CASES[name].manners.waits:
        assert {1, 2} & set(
            ran.sick[0][name]["waited"]
        )  # what the hub asked for, or as its client does a second more


@pytest.mark.slow
def test_nothing_half_written_or_wrong_is_left(ran):
    assert ran.half == [] and ran.wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MENDED)
def test_a_healthy_hub_mends_it(name, healed):
    assert healed[0][name].get("size") == [64, 64], healed[0][name]


@pytest.mark.slow
def test_a_command_ends_with_its_line_and_2(ran):
    ended = ran.sick[1]["generate"]
    assert ended["code"] == 2 and [
        line for line in ended["stderr"].splitlines() if line.startswith("realkit: File 'unet/")
    ], ended
    assert "Traceback" not in ended["stderr"]


@pytest.mark.slow
def test_weights_that_cannot_be_had_in_the_middle_of_a_run_are_a_row_and_1(ran):
    """Locking needs their published hashes alone, so that a run has begun when they are fetched:
    other models go on."""
    ended = ran.sick[1]["run"]
    assert (
        ended["code"] == 1
        and "1 cells failed" in ended["stdout"]
        and "Traceback" not in ended["stderr"]
    ), ended
    rows = [
        json.loads(line) for line in (ran.place / "out" / "rows.jsonl").read_text().splitlines()
    ]
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["error_type"] for row in failed] == [
        "RequestError"
    ] and "does not have the published SHA-256" in failed[0]["error"]


@pytest.mark.slow
def test_a_healthy_hub_lets_the_same_commands_end_well(ran, healed):
    assert healed[1]["generate"]["code"] == 0
    assert healed[1]["run"]["code"] == 0 and "1 cells ok" in healed[1]["run"]["stdout"]
    rows = [
        json.loads(line) for line in (ran.place / "out" / "rows.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["status"] == "ok"


@pytest.mark.parametrize(
    ("manners", "says"),
    [
        (Manners(gated=True, token=TOKEN), "it is gated"),
        pytest.param(Manners(token=TOKEN), "it is private", marks=pytest.mark.slow),
        pytest.param(Manners(refused=404), "there is no such file", marks=pytest.mark.slow),
    ],
)
def test_planning_ends_with_its_line_and_2(repository, tmp_path, manners, says):
    (tmp_path / "sweep.yaml").write_text("models: sd3-medium\nprompts: a\n")
    with serving(
        {"stabilityai/stable-diffusion-3-medium-diffusers": repository},
        {"stabilityai/stable-diffusion-3-medium-diffusers": manners},
    ) as hub:
        done = realkit(["plan", str(tmp_path / "sweep.yaml")], tmp_path / "home", hub.endpoint)
    assert done.returncode == 2 and re.search(
        rf"^realkit: .*stable-diffusion-3-medium-diffusers.*{says}.*\n$", done.stderr
    ), done.stderr


def full():
    return OSError(errno.ENOSPC, "No space left on device")


def wrapped(error, *, cause=None):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        full(),
        RuntimeError("Data processing error: I/O error: No space left on device (os error 28)"),
        wrapped(RuntimeError("it failed"), cause=full()),
    ],
)
@pytest.mark.parametrize(("given", "name"), [("", "HF_HOME"), ("HF_HUB_CACHE", "HF_HUB_CACHE")])
def test_a_full_disk_is_the_one_that_holds_the_hubs_cache(
    tmp_path, monkeypatch, error, given, name
):
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    if given:
        monkeypatch.setenv(given, "set")
    cache, asked = tmp_path / "other" / "hub", []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    usage = shutil.disk_usage(tmp_path)._replace(free=3 << 30)
    monkeypatch.setattr(
        "realkit.base.cache.shutil.disk_usage", lambda path: asked.append(path) or usage
    )

    def fails():
        raise error

    with pytest.raises(
        rk.RequestError,
        match=(
            rf"^'a' of hub model 'some/model' cannot be fetched: the disk of .* \('{cache}' has"
            rf" 3\.0 GiB free\): .* set {name} to"
        ),
    ) as said:
        huggingface._asking("some/model", fails, "a")
    assert asked == [tmp_path] and "\n" not in str(said.value)


def test_no_connection_at_all(tmp_path):
    (tmp_path / "sweep.yaml").write_text("models: sd-1.5\nprompts: a\n")
    for given, why in (
        ({}, r"no connection \(ConnectError\)"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ):
        done = realkit(
            ["plan", str(tmp_path / "sweep.yaml")], tmp_path / "home", nowhere(), **given
        )
        assert done.returncode == 2 and re.search(
            rf"^realkit: .*{why}, and it is not in the cache: turn the internet on\n$", done.stderr
        ), done.stderr


@pytest.mark.slow
def test_a_process_killed_while_it_fetches_leaves_nothing_that_is_loaded(repository, tmp_path):
    code = """
        from realkit.models.lock import lock_model
        from realkit.weights import resolve
        print(resolve.fetch(lock_model("some/model").main))
    """
    with serving({"some/model": repository}, {f"some/model/{UNET}": Manners(hangs=1)}) as hub:
        killed(code, tmp_path, hub)
        place = tmp_path / "hf" / "hub" / "models--some--model"
        assert (
            list(place.rglob("*.incomplete")) and not (place / "snapshots" / COMMIT / UNET).exists()
        )
        done = python(code, tmp_path, hub.endpoint)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (Path(done.stdout.strip()) / UNET).read_bytes() == (repository / UNET).read_bytes()


@pytest.mark.slow
def test_after_a_cut_of_a_large_file_only_what_is_missing_is_asked_for(tmp_path):
    """The hub's client keeps whole pieces of ten megabytes."""
    import numpy as np
    from safetensors.numpy import save_file

    (tmp_path / "repository").mkdir()
    save_file(
        {"a": np.arange(6 << 20, dtype=np.float32)},
        path := tmp_path / "repository" / "large.safetensors",
    )
    code = """
        from realkit.weights import resolve
        print(resolve.fetch(resolve.lock("some/model/large.safetensors")))
    """
    with serving(
        {"some/model": path.parent}, {"some/model/large.safetensors": Manners(cuts=1)}
    ) as hub:
        done = python(code, tmp_path, hub.endpoint)
        starts = [
            int(request.range.removeprefix("bytes=").rstrip("-") or 0)
            for request in hub.requests
            if request.store
        ]
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(done.stdout.strip()).read_bytes() == path.read_bytes()
    assert len(starts) == 2 and starts[0] == 0 and starts[1] > 5_000_000
