"""Ray as the engine: the same cells, ids, rows and pictures, whatever becomes of workers, machines
and drivers."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pandas as pd
import pytest

import realkit as rk
from realkit.runs.engines.ray import Ray
from realkit.runs.engines.ray_worker import Settings, reach
from realkit.runs.store import Store
from realkit.weights import resolve
from tests.ray_nodes import ACCESS, nodes
from tests.torture import comparable

SWEEP = {
    "models": [
        "rehearsal/base",
        "mine",
    ],  # the second is a folder of the driver's disk, which every node here sees
    "samplers": ["Euler", "Euler a"],
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 4,
    "steps": 4,
    "upscalers": ["rehearsal/compact-x4", "soft"],
    "target": 200,
    "scorers": ["rehearsal/clip", "paint"],
}
CATALOG = {  # the driver's user's own; HOME is the driver's folder
    "models.toml": (
        '[mine]\nfamily = "sd1"\nsource = "HOME/mine"\nparts = { vae = "package:vae", text_encoder'
        ' = "package:text_encoder", tokenizer = "package:tokenizer" }\nsize = 128\n'
    ),
    "upscalers.toml": '[soft]\nengine = "resample"\nsource = "HAMMING"\n',
    "scorers.toml": (
        '[paint]\nengine = "lab"\nsource = "b"\nunit = "ΔE"\ndirection = "higher"\nrange = [-128,'
        ' 128]\nresize = "nothing"\nabout = "blue to yellow"\n'
    ),
}


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("cluster", "engine 'cluster': expected 'process', 'ray', 'ray:ADDRESS'"),
        (3, "engine 3: expected"),
        (None, "engine None: expected"),
    ],
)
def test_what_is_no_engine_is_refused_before_any_work(tmp_path, engine, says):
    with pytest.raises(rk.RequestError, match=says):
        rk.run({"models": "rehearsal/base", "prompts": "x"}, tmp_path / "out", engine=engine)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"workers": 0}, "workers 0: expected"),
        ({"num_gpus": -1}, "num_gpus -1: expected"),
        ({"num_gpus": "one"}, "num_gpus 'one'"),
        ({"address": "nohost"}, "Ray address 'nohost': expected HOST:PORT"),
        ({"address": "127.0.0.1:x"}, "Ray address '127"),
    ],
)
def test_a_setting_that_is_none_is_refused(wrong, says):
    with pytest.raises(rk.RequestError, match=says):
        Ray(**wrong)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        rk.RequestError, match=r"needs the package ray: pip install 'realkit\[ray\]'"
    ):
        rk.run({"models": "rehearsal/base", "prompts": "x"}, "nowhere", engine="ray")


def test_what_a_worker_is_told_shows_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz0123")
    told = Settings.of_driver({"device": None, "rung": None})
    assert told.environment[
        "HF_TOKEN"
    ] == "hf_abcdefghijklmnopqrstuvwxyz0123" and "hf_abc" not in repr(told)
    assert pickle.loads(pickle.dumps(told)) == told


def test_a_node_takes_a_model_that_lies_at_the_same_path(tmp_path, monkeypatch, weights):
    shutil.copytree(weights / "base", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    near, far = (
        resolve.lock("./mine", weights=True),
        resolve.lock(str(tmp_path / "mine"), weights=True),
    )
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path / "node")
    reach(far)
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^This node cannot fetch './mine' \(.*\)\. Give it as a hub id or an absolute path"
            r" that every node has"
        ),
    ):
        reach(near)
    (tmp_path / "mine" / "unet" / "config.json").write_text(
        "{}"
    )  # the node's disk holds another model there
    with pytest.raises(
        rk.RequestError, match=r"^This node cannot fetch .*config\.json.* has changed"
    ):
        reach(far)


@pytest.mark.slow
def test_a_node_takes_downloads_from_a_shared_cache(tmp_path, monkeypatch, weights):
    """A file from the web that the driver has fetched; the node has no network."""
    (tmp_path / "web").mkdir()
    shutil.copy(
        next((weights / "base" / "unet").glob("*.safetensors")),
        tmp_path / "web" / "unet.safetensors",
    )
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path / "web")
    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path / "shared"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        lock = resolve.lock(f"http://127.0.0.1:{server.server_port}/unet.safetensors", weights=True)
        server.shutdown()
    reach(lock)
    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path / "own"))
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^This node cannot fetch 'http.*share \$REALKIT_CACHE, or attach it to the node"
            r" \(\$REALKIT_INPUTS\)$"
        ),
    ):
        reach(lock)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, weights_folder):
    """A driver's folder with a model and a catalogue of its own, and what a run in this process
    makes of SWEEP there."""
    home = tmp_path_factory.mktemp("driver")
    shutil.copytree(weights_folder / "base", home / "mine")
    (home / "catalog").mkdir()
    for name, text in CATALOG.items():
        (home / "catalog" / name).write_text(text.replace("HOME", str(home)))
    (home / "sweep.yaml").write_text(json.dumps(SWEEP))
    done = start(home, "process", "process").wait()
    assert done == 0, (home / "process.log").read_text()
    return home


@pytest.fixture(scope="module")
def weights_folder():
    from realkit.apps.training.ship import WEIGHTS

    return WEIGHTS


def start(home, engine, out) -> subprocess.Popen:
    """The command line in the driver's folder."""
    told = (
        os.environ
        | ACCESS
        | {
            "REALKIT_CATALOG": str(home / "catalog"),
            "REALKIT_CACHE": str(home / "cache"),
            "OMP_NUM_THREADS": "1",
        }
    )
    command = [
        sys.executable,
        "-m",
        "realkit",
        "run",
        "sweep.yaml",
        "--out",
        out,
        "--batch",
        "2",
        "--engine",
        engine,
    ]
    with (home / f"{out}.log").open("w") as log:
        return subprocess.Popen(command, cwd=home, env=told, stdout=log, stderr=log)


def rows(folder) -> int:
    return len(Store(folder).rows.read())


def until(true, seconds=180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def same(home, out) -> pd.DataFrame:
    """Hold a run's ids, rows and pictures against the in-process run's; its table."""
    pd.testing.assert_frame_equal(comparable(home / out), comparable(home / "process"))
    truth, found = (Store(home / name).last_rows() for name in ("process", out))
    measured = ("run", "at")
    assert truth.keys() == found.keys()
    for name, row in truth.items():
        assert row.keys() == found[name].keys()
        fixed = [
            key
            for key in row
            if key not in measured and not key.endswith("_s") and not key.startswith("peak_")
        ]
        assert {key: row[key] for key in fixed} == {key: found[name][key] for key in fixed}
    assert Store(home / "process").cells.read() == Store(home / out).cells.read()
    return rk.read(home / out).table()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_make_what_one_process_makes_and_survive_what_befalls_them(tmp_path, scene):
    with nodes(tmp_path) as two:
        two.start()
        two.start()
        address = f"ray:{two.address}"
        assert start(scene, address, "two").wait() == 0, (scene / "two.log").read_text()
        frame = same(scene, "two")
        assert frame.run.nunique() == 2  # both worked
        made_by = {run["run"]: run for run in Store(scene / "two").runs.read()}
        assert set(frame.run) <= made_by.keys() and {run["engine"] for run in made_by.values()} == {
            "ray"
        }

        # a worker is killed: its batch is done again by another process
        process = start(scene, address, "killed")
        until(lambda: (scene / "killed" / "rows.jsonl").exists() and rows(scene / "killed") > 2)
        two.workers()[0].kill()
        assert process.wait() == 0, (scene / "killed.log").read_text()
        same(scene, "killed")

        # the driver is told to stop, and another goes on
        process = start(scene, address, "stopped")
        until(lambda: (scene / "stopped" / "rows.jsonl").exists() and rows(scene / "stopped") > 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1 and "SIGTERM asked for it" in (scene / "stopped.log").read_text()
        before = rows(scene / "stopped")
        assert start(scene, address, "stopped").wait() == 0
        same(scene, "stopped")
        assert rows(scene / "stopped") == rows(scene / "process") > before  # nothing was done twice

        # a machine is lost, and the other goes on alone
        process = start(scene, address, "lost")
        until(lambda: (scene / "lost" / "rows.jsonl").exists() and rows(scene / "lost") > 2)
        two.kill(1)
        assert process.wait() == 0, (scene / "lost.log").read_text()
        same(scene, "lost")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_batch_that_ends_every_worker_is_a_failure_and_the_rest_goes_on(tmp_path, scene):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, realkit.runs.stages.score as s\nload = s.load_scorer\ns.load_scorer = lambda"
        " name, lock=None: os.kill(os.getpid(), 9) if name == 'paint' else load(name, lock)\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    shutil.copytree(scene / "process", scene / "deadly")
    lines = [
        line
        for line in (scene / "deadly" / "rows.jsonl").read_text().splitlines()
        if json.loads(line).get("scorer") != "paint"
    ]
    keep = [
        json.loads(line)
        for line in (scene / "process" / "rows.jsonl").read_text().splitlines()
        if json.loads(line).get("scorer") == "paint"
    ][:-2]
    (scene / "deadly" / "rows.jsonl").write_text(
        "".join(f"{line}\n" for line in [*lines, *map(json.dumps, keep)])
    )  # two scores are missing
    with nodes(tmp_path / "nodes") as one:
        one.start(PYTHONPATH=path)
        assert start(scene, f"ray:{one.address}", "deadly").wait() == 1
    frame = rk.read(scene / "deadly").table()
    assert frame.status.value_counts().to_dict() == {"ok": len(frame) - 2, "failed": 2}
    assert frame.error.dropna().str.contains("3 Ray workers ended over this batch").all()


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_another_version_are_refused_before_anything_is_made(tmp_path, scene):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import realkit.base.version as v\nv.__version__ = '0.0.9'\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with nodes(tmp_path / "nodes") as one:
        one.start(PYTHONPATH=path)
        assert start(scene, f"ray:{one.address}", "other").wait() == 2
    said = (scene / "other.log").read_text()
    assert (
        "realkit: A Ray worker has realkit 0.0.9, this is" in said
        and not (scene / "other" / "rows.jsonl").exists()
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(tmp_path, scene):
    assert start(scene, "ray:127.0.0.1:1", "nowhere").wait() == 2
    assert (
        "Ray at '127.0.0.1:1' does not answer"
        in (scene / "nowhere.log").read_text().splitlines()[-1]
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_that_comes_late_is_given_work(tmp_path, scene):
    """Two workers are asked for, of which the one machine that is there holds one."""
    script = (
        "import realkit as rk; from realkit.runs.engines.ray import Ray; rk.run('sweep.yaml',"
        " 'late', batch=1, engine=Ray({address!r}, workers=2, patience=30))"
    )
    told = (
        os.environ
        | ACCESS
        | {
            "REALKIT_CATALOG": str(scene / "catalog"),
            "REALKIT_CACHE": str(scene / "cache"),
            "OMP_NUM_THREADS": "1",
        }
    )
    sweep = SWEEP | {
        "models": "rehearsal/base",
        "seeds": 24,
        "steps": 12,
        "upscalers": None,
        "scorers": "paint",
    }
    (scene / "long").mkdir()
    (scene / "long" / "sweep.yaml").write_text(json.dumps(sweep))
    with nodes(tmp_path) as cluster:
        cluster.start()
        process = subprocess.Popen(
            [sys.executable, "-c", script.format(address=cluster.address)],
            cwd=scene / "long",
            env=told,
        )
        until(
            lambda: (
                (scene / "long" / "late" / "rows.jsonl").exists()
                and rows(scene / "long" / "late") > 2
            )
        )
        cluster.start()
        assert process.wait() == 0
    frame = rk.read(scene / "long" / "late").table()
    assert set(frame.status) == {"ok"} and len(Store(scene / "long" / "late").runs.read()) == 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_machines_that_share_a_cache_and_one_that_has_none(tmp_path, scene):
    """Two with one cache; then one whose cache cannot be made, which leaves the models to the
    other."""
    (tmp_path / "file").write_text("no folder")
    with nodes(tmp_path / "shared") as two:
        for _ in range(2):
            two.start(REALKIT_CACHE=str(tmp_path / "cache"))
        assert start(scene, f"ray:{two.address}", "shared").wait() == 0, (
            scene / "shared.log"
        ).read_text()
        same(scene, "shared")
    with nodes(tmp_path / "sick") as two:
        two.start()
        two.start(REALKIT_CACHE=str(tmp_path / "file" / "cache"))
        assert start(scene, f"ray:{two.address}", "sick").wait() == 0, (
            scene / "sick.log"
        ).read_text()
        assert same(scene, "sick").run.nunique() == 1
        assert "a Ray worker cannot load" in (scene / "sick.log").read_text()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_no_worker_can_load_fails_as_in_one_process(tmp_path, scene):
    """A model that vanishes after it was locked: the same rows, whoever tried."""
    told = {"process": "process", "ray": None}
    for name in told:
        home = scene / f"vanished-{name}"
        home.mkdir()
        shutil.copytree(scene / "catalog", home / "catalog")
        shutil.copytree(scene / "mine", home / "mine")
        (home / "sweep.yaml").write_text(
            json.dumps(SWEEP | {"scorers": "paint", "upscalers": None})
        )
        (home / "site").mkdir()
        hide = (
            "import realkit.models.loading as l\n_load = l.load\ndef load(name, *a, **k):\n    if"
            " name == 'mine': raise OSError('the disk is gone')\n    return _load(name, *a,"
            " **k)\nl.load = load\n"
        )
        (home / "site" / "sitecustomize.py").write_text(hide)
    path = os.pathsep.join(
        [str(scene / "vanished-ray" / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with pytest.MonkeyPatch.context() as patch, nodes(tmp_path) as two:
        patch.setenv("PYTHONPATH", path)
        two.start()
        two.start()
        codes = [
            start(scene / f"vanished-{name}", engine, "out").wait()
            for name, engine in (("process", "process"), ("ray", f"ray:{two.address}"))
        ]
    assert codes == [1, 1]
    failed = [
        {
            key: row
            for key, row in Store(scene / f"vanished-{name}" / "out").last_rows().items()
            if row["status"] == "failed"
        }
        for name in told
    ]
    assert len(failed[0]) == 8 and failed[0].keys() == failed[1].keys()
    assert all(
        {**row, "run": 0, "at": 0} == {**failed[1][key], "run": 0, "at": 0}
        for key, row in failed[0].items()
    )
