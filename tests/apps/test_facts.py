import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from realkit.apps.doctor import facts as facts_module
from realkit.apps.doctor import probe
from realkit.apps.doctor.facts import Gpu, _disks, _hub, _inputs, gather, seen_by_driver
from realkit.apps.doctor.findings import findings, passes
from realkit.apps.doctor.probe import USED, collect, start
from realkit.base import measure, network, place
from tests import driver


def test_gather_never_raises_and_hides_tokens_in_errors(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_madeUp1234567890")
    monkeypatch.setattr(
        facts_module,
        "_hub",
        lambda: ("unreachable", "host", "HEAD /?token=abc by hf_madeUp1234567890 refused"),
    )
    for name in (
        "lower_bounds",
        "_torchvision_needs",
        "seen_by_driver",
        "place_here",
        "_disks",
        "ram_free",
        "_inputs",
        "token_source",
    ):
        monkeypatch.setattr(facts_module, name, lambda *_, **__: 1 / 0)
    monkeypatch.setattr(probe, "start", lambda *_: 1 / 0)
    facts = gather()
    assert facts.hub_error == "HEAD /?token=*** by *** refused"
    assert (
        facts.disks == ()
        and facts.tokens == {"huggingface": None, "civitai": None}
        and facts.place == "plain"
    )
    assert facts.broken == dict.fromkeys(USED, "it could not be tried") and not passes(
        findings(facts)
    )


def fakes(monkeypatch, folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def test_an_import_that_kills_python_is_named_and_the_rest_is_tried(monkeypatch, tmp_path):
    fakes(
        monkeypatch,
        tmp_path,
        accelerate="print('noise')",
        open_clip="import os; os.abort()",
        spandrel="raise ImportError('no\\neinops')",
    )
    names = ["accelerate", "open_clip_torch", "spandrel"]
    tried = collect(start(names), names, time.monotonic() + 60)
    assert {name: line["error"] for name, line in tried.items()} == {
        "accelerate": "",
        "open_clip_torch": "Python died of it (exit code -6)",
        "spandrel": "ImportError: no einops",
    }


def test_an_import_without_end(monkeypatch, tmp_path):
    fakes(
        monkeypatch, tmp_path, accelerate="", open_clip="import time; time.sleep(60)", spandrel=""
    )
    names = ["accelerate", "open_clip_torch", "spandrel"]
    tried = collect(start(names), names, time.monotonic() + 2)
    assert (
        tried["accelerate"]["error"] == ""
        and "did not end" in tried["open_clip_torch"]["error"]
        and "spandrel" not in tried
    )


@pytest.mark.slow
def test_operators_are_called_not_only_imported(monkeypatch, tmp_path):
    (tmp_path / "torchvision").mkdir()
    fakes(
        monkeypatch,
        tmp_path / "torchvision",
        __init__="from torchvision import ops",
        ops="def nms(*_): raise RuntimeError('operator does not exist')",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tried = collect(start(["torchvision"]), ["torchvision"], time.monotonic() + 60)
    assert tried["torchvision"]["error"] == "RuntimeError: operator does not exist"


def test_what_the_driver_says(monkeypatch):
    t4 = driver.Card("Tesla T4", (7, 5), 15 * 2**30)
    monkeypatch.setitem(sys.modules, "pynvml", driver.bindings("550.54.15", t4, t4))
    assert seen_by_driver() == ("550.54.15", (Gpu("Tesla T4", (7, 5), 15.0),) * 2)


def test_a_machine_without_a_driver_or_its_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", driver.bindings(None))
    assert seen_by_driver() == (None, ())
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as before anything is installed
    assert seen_by_driver() == (None, ())


def test_the_bindings_have_what_is_read_of_them():
    """Our stand-in and the real library agree on their names; without a driver the real one says
    so."""
    pynvml = pytest.importorskip("pynvml")
    names = {name for name in vars(driver.bindings("550")) if name.startswith(("nvml", "NVML"))}
    assert names <= set(dir(pynvml)) and "nvmlDeviceGetCudaComputeCapability" in names
    if not list(Path("/dev").glob("nvidia*")):
        assert seen_by_driver() == (None, ())


@pytest.fixture
def answers(monkeypatch):
    """A loopback hub that answers HEAD with the code set here; 0 is no answer at all."""
    from huggingface_hub import constants

    code = [200]
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            if not code[0]:
                end.wait(20)
            self.send_response(code[0] or 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants, "ENDPOINT", f"http://person:password@127.0.0.1:{server.server_port}"
    )
    monkeypatch.setattr(network, "HUB_S", 0.3)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield code
    end.set()
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_or_does_not(answers, monkeypatch):
    from huggingface_hub import constants

    host = f"127.0.0.1:{constants.ENDPOINT.rsplit(':', 1)[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}")
    for code, expected in [
        (200, ("reached", host, "")),
        (404, ("reached", host, "")),
        (403, ("unreachable", host, "HTTP 403")),
        (503, ("unreachable", host, "HTTP 503")),
    ]:
        answers[0] = code
        assert _hub() == expected
    answers[0], began = 0, time.monotonic()
    state, _, error = _hub()
    assert state == "unreachable" and "timed out" in error and time.monotonic() - began < 3


def test_a_hubs_password_is_not_shown(answers):
    assert "password" not in str(_hub())


def test_no_hub_at_all(answers, monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    state, _, error = _hub()
    assert state == "unreachable" and "refused" in error


def test_attached_inputs_in_both_forms_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("REALKIT_INPUTS", f"{tmp_path}{os.pathsep}{tmp_path / 'models' / 'owner'}")
    for path in (
        "photos/a.png",
        "datasets/someone/faces/b.png",
        "models/owner/sd/diffusers/v1/1/x",
        "notebooks/me/first/o",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert _inputs() == (
        "datasets/someone/faces",
        "models/owner/sd",
        "notebooks/me/first",
        "photos",
        "sd",
    )
    monkeypatch.setenv("REALKIT_INPUTS", str(tmp_path / "none"))
    assert _inputs() == ()


def test_an_entry_for_each_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path / "cache" / "of" / "ours"))
    (one,) = _disks()
    assert (one.holds, one.path) == (
        "results, the hub's cache and downloads",
        str(tmp_path),
    ) and one.free_gb > 0
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("REALKIT_CACHE", "/proc/another-disk")
    assert [(disk.holds, disk.path) for disk in _disks()] == [
        ("results and the hub's cache", str(tmp_path)),
        ("downloads", "/proc/another-disk"),
    ]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/proc/too")
    assert [disk.holds for disk in _disks()] == ["results", "the hub's cache and downloads"]


def test_memory_limits_of_control_groups(tmp_path):
    own = tmp_path / "own"
    own.write_text("5:devices:/\n4:cpu,memory:/box/inner\n0::/slice/unit\n")
    files = {
        "slice/unit/memory.max": "max",
        "slice/unit/memory.current": "5",
        "slice/memory.max": "1000",
        "slice/memory.current": "700",
        "slice/memory.stat": "anon 1\ninactive_file 100\n",
        "memory/box/memory.limit_in_bytes": "500",
        "memory/box/memory.usage_in_bytes": "200",
        "memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(measure._group_free(tmp_path, own)) == [350, 400]


def test_where_it_runs(monkeypatch, tmp_path):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "COLAB_GPU", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ipykernel", "google.colab"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(place, "KAGGLE", tmp_path / "none")
    seen = [place.place_here()]
    for name in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.setenv(name, "1")
        seen.append(place.place_here())
    assert seen == ["plain", "Jupyter", "Colab", "Kaggle"]
