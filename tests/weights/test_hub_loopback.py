"""The real loading code against a hub on loopback that serves a miniature repository under a real
id and layout."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import miniatures
from tests.hub_server import COMMIT, Hub, Manners, nowhere, python, realkit, serving

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
TOKEN = "hf_aTokenOfLettersAndNumbers0123456789"
SWEEP = (
    "models: '{model}'\nprompts: a photo of a matte red cube on grass at noon\nsamplers:"
    " Euler\nsteps: 2\nsize: 64\nguidance: 3\n"
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """What the SD 1.5 repository holds: full and fp16 weights, .bin files beside both, a safety
    checker, files for other programs."""
    folder = miniatures.miniature("sd1", tmp_path_factory.mktemp("repository") / "sd15")
    miniatures.pickle_weights(miniatures.add_variant(folder, "fp16"), beside=True)
    return miniatures.with_what_others_read(miniatures.with_safety_checker(folder))


@dataclass
class Ran:
    """A sweep that was run against a hub which a token opens, and again; what was asked for
    meanwhile, and the folders it left."""

    place: Path
    hub: Hub
    first: subprocess.CompletedProcess[str]
    asked: int  # requests of the first run

    @property
    def command(self) -> list[str]:
        return ["run", str(self.place / "sweep.yaml"), "--out", str(self.place / "out")]


@pytest.fixture(scope="module")
def ran(repository, tmp_path_factory) -> Ran:
    place = tmp_path_factory.mktemp("ran")
    (place / "sweep.yaml").write_text(SWEEP.format(model="sd-1.5"))
    with serving({SD15: repository}, {SD15: Manners(token=TOKEN)}) as hub:
        made = Ran(
            place,
            hub,
            realkit(
                ["run", str(place / "sweep.yaml"), "--out", str(place / "out")],
                place / "home",
                hub.endpoint,
                HF_TOKEN=TOKEN,
                HF_DEBUG="1",
            ),
            0,
        )
        assert made.first.returncode == 0 and "1 cells ok" in made.first.stdout, made.first.stderr[
            -3000:
        ]
        made.asked = len(hub.requests)
        assert (
            "1 cells ok"
            in realkit(made.command, place / "home", hub.endpoint, HF_TOKEN=TOKEN).stdout
        )
    return made


@pytest.mark.slow
def test_a_hub_id_is_locked_to_its_commit_and_only_its_variant_fetched_once(ran):
    large = [request.path for request in ran.hub.requests if request.store]
    assert sorted(large) == [
        f"/{SD15}/text_encoder/model.fp16.safetensors",
        f"/{SD15}/unet/diffusion_pytorch_model.fp16.safetensors",
        f"/{SD15}/vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert COMMIT in (ran.place / "out" / "sweep.lock.json").read_text()
    assert len(ran.hub.requests) == ran.asked  # planning and resuming read the lock


@pytest.mark.slow
def test_the_token_goes_to_the_hub_alone_and_leaves_no_trace(ran):
    assert {request.authorization for request in ran.hub.requests if not request.store} == {
        f"Bearer {TOKEN}"
    }
    assert {request.authorization for request in ran.hub.requests if request.store} == {""}
    written = [path for path in ran.place.rglob("*") if path.is_file()]
    assert len(written) > 20 and not [
        path for path in written if TOKEN.encode() in path.read_bytes()
    ]
    assert TOKEN not in ran.first.stdout + ran.first.stderr


@pytest.mark.slow
def test_what_was_fetched_is_loaded_again_without_a_network(ran):
    (ran.place / "out" / "rows.jsonl").unlink()
    again = realkit(ran.command, ran.place / "home", nowhere())
    assert again.returncode == 0 and "1 cells ok" in again.stdout, again.stderr[-3000:]


LOCK = """
    import json, sys
    from realkit.models.lock import lock_model
    print(json.dumps(lock_model("sd-1.5").to_json()))
"""


@pytest.mark.slow
def test_a_lock_made_without_a_network_is_the_one_made_with_it(repository, tmp_path):
    by_others = f"""
        from huggingface_hub import snapshot_download
        snapshot_download(
            "{SD15}",
            allow_patterns=["*.json", "*.txt", "*.fp16.safetensors"],
            ignore_patterns=["safety_checker/*"],
        )
    """
    with serving({SD15: repository}) as hub:
        online = python(LOCK, tmp_path / "ours", hub.endpoint)
        assert online.returncode == 0, online.stderr[-2000:]
        assert python(by_others, tmp_path / "others", hub.endpoint).returncode == 0
    for home in (
        "ours",
        "others",
    ):  # as the hub listed it last; where it never did, what its cache holds
        offline = python(LOCK, tmp_path / home, nowhere())
        assert offline.returncode == 0 and json.loads(offline.stdout) == json.loads(
            online.stdout
        ), offline.stderr[-2000:]


def test_planning_asks_for_no_weights_and_loads_no_torch(repository, tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(model="sd-1.5"))
    code = f"""
        import sys
        from realkit.sweeps.check import plan
        print(plan(r"{tmp_path / "sweep.yaml"}"))
        assert "torch" not in sys.modules and "diffusers" not in sys.modules
    """
    with serving({SD15: repository}) as hub:
        planned = python(code, tmp_path, hub.endpoint)
        assert planned.returncode == 0, planned.stderr[-2000:]
        assert not [request for request in hub.requests if request.store]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            "nobody/nothing",
            (
                r"Hub model 'nobody/nothing' cannot be reached: there is no such repository, or it"
                r" is private and there is no token\. Look at"
            ),
        ),
        (
            f"{SD15}@no-such-revision:fp16",
            (
                "cannot be reached: it has no such revision: leave @revision out, or take one of"
                " its page"
            ),
        ),
        pytest.param(
            f"{SD15}:bf16",
            "has no variant 'bf16': leave it out, or take one of fp16",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"{SD15}/no_such_file.safetensors",
            "has no file 'no_such_file.safetensors': it has v1-5-pruned.safetensors",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"{SD15}/v1-5-pruned-emaonly.ckpt",
            r"'v1-5-pruned-emaonly\.ckpt': expected \.safetensors; pickled checkpoints can run",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"{SD15}/v1-5-pruned.safetensors",
            "v1-5-pruned.safetensors' has no valid safetensors header",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_hub_lacks_is_one_line_and_exit_2(repository, tmp_path, model, says):
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(model=model))
    with serving({SD15: repository}) as hub:
        done = realkit(
            ["run", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")],
            tmp_path / "home",
            hub.endpoint,
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("realkit: ")]
    assert done.returncode == 2 and len(lines) == 1, (
        done.returncode,
        done.stdout[-500:],
        done.stderr[-1500:],
    )
    assert "Traceback" not in done.stderr and re.search(says, lines[0]), lines[0]
    assert not (tmp_path / "out" / "rows.jsonl").exists()


@pytest.mark.parametrize(
    "reach",
    [
        "socket.create_connection(('192.0.2.1', 80))",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket().connect_ex(('192.0.2.1', 80))",
    ],
)
def test_a_child_that_reaches_another_address_fails_its_test_whatever_it_catches(tmp_path, reach):
    code = f"""
        import socket
        try:
            {reach}
        except OSError:
            pass
    """
    with pytest.raises(AssertionError, match="reached for "):
        python(code, tmp_path, nowhere())
