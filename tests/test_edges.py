"""The edges of the kit: every public function and every verb with what it cannot take ends in one
line, and nobody can add one without saying how. `python -m tests.edges N` tries N more inputs."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import realkit as rk
from realkit.apps.cli.files import Place
from realkit.base import cache, terminal
from realkit.base.door import door, plain
from realkit.base.errors import RequestError, RunError, Unforeseen
from tests import edge_functions, edge_verbs, edges
from tests.edge_functions import NO_FUNCTIONS, TRIALS
from tests.edge_verbs import in_one_line, invoked, names, replaced

EACH = 8  # inputs of each function and verb: 500 in all
MODULES = ("plots", "verdicts", "rehearsal", "fidelity", "laboratory", "bootstrap")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with edges.prepared(tmp_path_factory.mktemp("edges")) as world:
        yield world


def public_functions() -> set[str]:
    """The names of all public functions and classes, those of the public modules too."""
    found = {name for name in rk.__all__ if name not in (*MODULES, *NO_FUNCTIONS)}
    for name in MODULES:
        module = getattr(rk, name)
        for inner, value in vars(module).items():
            listed = getattr(module, "__all__", None)
            named = inner in listed if listed else hasattr(value, "at_the_door")
            if named and inspect.isfunction(value):
                found.add(f"{name}.{inner}")
    return found


def test_every_public_function_and_every_verb_is_in_the_table(world):
    assert edge_functions.functions(world).keys() == public_functions()
    assert edge_verbs.verbs(world).keys() == {name for name, _ in names()}
    for of in edges.edges(world).values():
        assert tuple(of.trials) == TRIALS


def test_every_public_function_is_at_the_door():
    for name in rk.__all__:
        value = getattr(rk, name)
        if inspect.isfunction(value):
            assert value.at_the_door, name
    for name in MODULES:
        module = getattr(rk, name)
        home = module.__name__
        for inner, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith(home)
            if inspect.isfunction(value) and own and not inner.startswith("_"):
                known = hasattr(value, "at_the_door") or inner in edge_functions.INNER
                assert known, f"{name}.{inner}"


def test_every_path_of_the_command_line_is_one_that_a_disk_can_hold():
    for name, command in names():
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                assert isinstance(parameter.type, Place), (name, parameter.name)


@pytest.mark.parametrize("trial", TRIALS)
def test_what_a_function_cannot_take_is_one_line(world, trial):
    problems = []
    for name, edge in edge_functions.functions(world).items():
        given = edge.trials[trial]
        if isinstance(given, str):  # why there is nothing to try
            assert len(given) > 10
            continue
        right = {argument: values[0] for argument, values in edge.right.items()}
        end = edges._call(edge, right | given)
        if end != "refused":
            problems.append((name, end))
    assert not problems


@pytest.mark.parametrize("trial", TRIALS)
def test_what_a_verb_cannot_take_is_one_line_and_exit_code_2(world, trial):
    problems = []
    for name, verb in edge_verbs.verbs(world).items():
        others = verb.trials[trial]
        if isinstance(others, str):
            assert len(others) > 10
            continue
        ended = invoked([*name.split(), *replaced(verb.words, others)])
        code = 1 if trial == "read-only" and name in WRITES else 2
        if in_one_line(ended) or ended.code != code:
            problems.append((name, ended.code, in_one_line(ended)))
    assert not problems


WRITES = {"kaggle wheel"}  # finds out when it writes


def test_random_arguments_are_right_or_one_line(world):
    every, inputs = edges.edges(world), 0
    for name, of in every.items():
        each = 1 if name == "doctor" else EACH  # which asks a machine for seconds
        figures = edges.examine(name, of, world, each, small=True)
        assert not figures.faults, (name, figures.faults)
        inputs += figures.counts.total()
    assert inputs >= 500


@pytest.mark.parametrize("verb", ["compare", "sets", "vote", "votes"])
@pytest.mark.parametrize("by", ["", ",", " , "])
def test_no_name_is_no_axis(world, verb, by):
    ended = invoked([verb, str(world.path("run")), "--by", by])
    assert not in_one_line(ended) and ended.code == 2


# --- the door


def test_numbers_of_numpy_and_pandas_are_numbers():
    numbers = [
        np.int64(7), np.uint8(7), np.float32(7.0), pd.Series([7])[0], np.array(7),
        pd.array([7], "Int64")[0], np.longdouble(7),
    ]  # fmt: skip
    for number in numbers:
        value = plain({"a": [number, (number,)]})["a"]
        assert value == [7, (7,)]
        assert type(value[0]) in (int, float) and type(value[1][0]) in (int, float)
    assert plain(np.arange(3)) == [0, 1, 2] == plain(pd.Series([0, 1, 2]))
    assert plain(np.bool_(True)) is True
    assert type(plain(np.array(["a"]))[0]) is str


def test_a_sweep_of_numpys_numbers_has_the_ids_of_pythons():
    common = {"models": "rehearsal/base", "prompts": ["a"], "size": 64}
    pythons = rk.Sweep(**common, seeds=[0, 1], steps=[2, 4], guidance=[2.5])
    numpys = rk.Sweep(
        **common, seeds=np.arange(2), steps=[np.int64(2), np.int32(4)], guidance=np.float32(2.5)
    )
    assert numpys == pythons and numpys.to_yaml() == pythons.to_yaml()
    assert numpys.cells() == pythons.cells()


def test_a_set_is_refused_where_an_order_matters():
    with pytest.raises(RequestError, match=r"prompts .*: a set has no order, expected a list"):
        rk.Sweep(models="rehearsal/base", prompts={"a", "b"})
    with pytest.raises(RequestError, match="in an order, which a set has not"):
        rk.score(Image.new("RGB", (8, 8)), "a", {"colour-cast"})
    with pytest.raises(RequestError, match="seeds has more than 5,000,000 values"):
        rk.Sweep(models="rehearsal/base", prompts="a", seeds=iter(int, 1))


def test_what_a_library_raises_behind_the_door_is_one_line_with_its_cause():
    @door
    def breaks(number: int, where: Path = Path()) -> float:
        return 1 / number

    with pytest.raises(Unforeseen, match=r"^breaks failed with ZeroDivisionError in .* line \d+:"):
        breaks(0)
    with pytest.raises(RequestError, match=r"^number 'x': expected a whole number$") as caught:
        breaks("x")
    assert isinstance(caught.value.__cause__, TypeError) and not isinstance(caught.value, RunError)
    with pytest.raises(RequestError, match=r"breaks: missing a required argument: 'number'\. Exp"):
        breaks()
    with pytest.raises(RequestError, match="unexpected keyword argument 'nmber'"):
        breaks(1, nmber=1)
    with pytest.raises(RequestError, match=r"where '.*': File name too long"):
        breaks(1, Path("a" * 300))
    assert breaks(np.int64(2)) == 0.5


# --- pictures


def test_a_picture_whose_exif_is_damaged_is_enlarged_and_said(world, capsys):
    path = world.files["exif.jpg"]
    ended = invoked(
        ["upscale", str(path), "--with", "lanczos", "--to", "60", "--out", str(world.path("e.png"))]
    )
    assert ended.code == 0
    with Image.open(world.path("e.png")) as picture:
        assert picture.size == (40, 60)


@pytest.mark.parametrize("name", ["cut.png", "bomb.png", "lie.png", "none.png", "text.png"])
def test_a_damaged_picture_is_one_line_wherever_it_is_read(world, name):
    ended = invoked(["score", str(world.files[name]), "", "--scorer", "colour-cast"])
    assert not in_one_line(ended) and ended.code == 2
    assert repr(str(world.files[name])) in ended.err


@pytest.mark.slow
def test_a_wrong_file_is_one_line_wherever_a_verb_reads_one(world):
    picture, out, run = (str(world.path(name)) for name in ("picture.png", "made.png", "run"))
    lines = [
        ["generate", "a", "--model", "{}", "--steps", "1", "--out", out],
        ["upscale", picture, "--with", "{}", "--to", "80", "--out", out],
        ["upscale", "{}", "--with", "lanczos", "--to", "80", "--out", out],
        ["score", "{}", "x", "--scorer", "colour-cast"], ["score", picture, "x", "--scorer", "{}"],
        ["run", "{}", "--out", out], ["plan", "{}"], ["sweep", "{}", "--out", out], ["table", "{}"],
        ["run", str(world.path("sweep.yaml")), "--out", str(world.path("o")), "--attach", "{}"],
        ["vote", "{}"], ["vote", run, "--merge", "{}"], ["vote", run, "--photographs", "{}"],
        ["prompts", "import", "{}", "--name", "n", "--licence", "unknown"],
        ["kaggle", "push", "{}", "--out", out, "--owner", "me", "--dry-run"],
        ["table", run, "--parquet", "{}/x"],
    ]  # fmt: skip
    others = [world.path("nothing"), world.path("nowhere"), "/dev/full", "/dev/zero", "a" * 300]
    figures = edges.Figures()
    for words in lines:
        for path in (*world.files.values(), *others):
            line = [word.replace("{}", str(path)) for word in words]
            edges.attempt(figures, world, edge_verbs.Verb([], {}), line[0], line[1:])
    assert not figures.faults
    assert figures.counts["refused, exit code 2"] > 0.9 * figures.counts.total()
    assert figures.grown < 2**30


# --- terminals and homes


def test_a_latin_1_terminal_keeps_its_minus(world):
    script = "from realkit.base.terminal import say; say('−5 … 512×512 → “é” 猫')"
    for encoding, expected in (
        ("latin-1", "-5 ... 512×512 -> \"é\" ?"), ("ascii", '-5 ... 512x512 -> "e" ?'),
    ):  # fmt: skip
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        out = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        ).stdout
        assert out.decode(encoding).strip() == expected


def test_the_command_line_writes_to_an_ascii_terminal():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal.fit(file)
    file.write("512²: −1\ud800")
    file.flush()
    assert file.buffer.getvalue() == b"512^2: -1?"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "REALKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)  # as for the users of many containers
    with pytest.raises(RequestError, match="Set HOME, and REALKIT_CACHE to a writable folder"):
        cache.cache_root()
    with pytest.raises(RequestError, match="Set HOME"):
        rk.fidelity.truths("~/pictures", 1)
    assert rk.canonical("lanczos") == "lanczos"
