"""The real loading code against a hub on loopback that serves a miniature repository under a real id and layout."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, serving

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(scope="module")
def repository(base, tmp_path_factory) -> Path:
    """rehearsal/base in the files that the SD1.5 repository has: full and fp16 weights side by side."""
    folder = tmp_path_factory.mktemp("repository")
    base.pipe.save_pretrained(folder)
    base.pipe.save_pretrained(folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle that nobody should open")
    return folder


def python(code: str, endpoint: str, home: Path, **extra: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", **extra}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, timeout=300, cwd=Path(__file__).parent.parent
    )


RUN = """
    import realkit as rk
    sweep = rk.Sweep(models="{model}", samplers="Euler", prompts="a photo of a matte red cube on grass at noon", steps=2, size=64, guidance=3.0)
    df = rk.run(sweep, r"{out}").table()
    print(df["status"][0], df["error"][0])
"""


def test_a_hub_id_is_locked_to_its_commit_fetched_once_and_resumed_offline(repository, tmp_path):
    out = tmp_path / "out"
    code = RUN.format(model="sd-1.5", out=out)
    with serving({SD15: repository}) as (endpoint, asked):
        first = python(code, endpoint, tmp_path / "home")
        assert first.returncode == 0 and first.stdout.startswith("ok"), first.stderr
        files = [path for path in asked if "/resolve/" in path]
        assert any(path.endswith("diffusion_pytorch_model.fp16.safetensors") for path in files)
        assert not any(path.endswith((".bin", "/diffusion_pytorch_model.safetensors")) for path in files)
        assert COMMIT in (out / "sweep.lock.json").read_text()
        count = len(asked)
        assert python(code, endpoint, tmp_path / "home").stdout.startswith("ok")
        assert len(asked) == count  # planning and resuming read the lock
    gone = python(code, endpoint, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert gone.stdout.startswith("ok"), gone.stderr


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nobody/nothing", "Hub model 'nobody/nothing' cannot be reached"),
        (f"{SD15}@no-such-revision:fp16", "cannot be reached"),
        (f"{SD15}:bf16", "has no variant 'bf16': leave it out, or take one of fp16"),
    ],
)
def test_what_the_hub_lacks_is_one_line_and_exit_2(repository, tmp_path, model, says):
    (tmp_path / "sweep.yaml").write_text(f"models: '{model}'\nprompts: a\nsteps: 2\nsize: 64\n")
    code = f"""
        import sys
        from realkit.cli import main
        sys.argv = ["realkit", "run", r"{tmp_path / "sweep.yaml"}", "--out", r"{tmp_path / "out"}"]
        main()
    """
    with serving({SD15: repository}) as (endpoint, _):
        done = python(code, endpoint, tmp_path / "home")
    lines = [line for line in done.stderr.splitlines() if line.startswith("realkit: ")]
    assert done.returncode == 2 and len(lines) == 1, (done.returncode, done.stdout[-500:], done.stderr[-1500:])
    assert "Traceback" not in done.stderr and re.search(says, lines[0])
