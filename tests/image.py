"""Where people run it: `make image` builds an environment like Kaggle's image (Python 3.12, torch
2.11 with its CUDA libraries, an old diffusers, no realkit), attaches the wheels that
`realkit kaggle push` uploads, and executes notebooks/compare.ipynb there with its own first cell.

It is not in .ci/run: torch and its libraries are 2.8 GB on the disk, and their download alone may
take longer than the four minutes that a test may add there. `--folder DIR` keeps the environment,
for another run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from realkit.apps.kaggle import wheels

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.12", "3.13")  # Kaggle's, then Colab's
TORCH = ("torch==2.11.0", "torchvision==0.26.0")  # docker-python PR 1557
# What Kaggle's image has of our requirements; what else they need travels with us (wheels.OFFLINE).
THERE = (
    "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "scikit-image", "opencv-python-headless",
    "pillow", "pydantic", "PyYAML", "tqdm", "filelock", "platformdirs", "requests", "packaging",
    "psutil", "papermill", "ipykernel", "ipywidgets==8.1.5", "nbformat", "Jinja2", "typer",
)  # fmt: skip
OLD = ("diffusers==0.37.1",)
SMALL = {
    "models": ["rehearsal/base"], "samplers": ["Euler", "DDIM"], "steps": 4, "target": 128,
    "prompts": ["a photo of a matte red cube on grass at noon", "a shiny blue sphere at sunset"],
    "upscalers": ["bicubic"],
}  # fmt: skip


def python_of(folder: Path) -> Path:
    """The environment's Python, made of the first Python of PYTHONS that this machine has, else of
    this one."""
    made, ready = folder / "python" / "bin" / "python", folder / "python" / "ready"
    if ready.exists():
        return made
    base = next(filter(None, map(_found, PYTHONS)), sys.executable)
    subprocess.run([base, "-m", "venv", folder / "python"], check=True)
    install = [made, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, *TORCH, *THERE], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*install, "--no-deps", *OLD], check=True, stderr=subprocess.DEVNULL)
    ready.touch()
    return made


def _found(version: str) -> str | None:
    """A Python of this version: on the path, or installed beside this one."""
    beside = Path(sys.base_prefix).parent.glob(f"{version}*/bin/python3")
    for path in (shutil.which(f"python{version}"), *beside):
        if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return str(path)
    return None


def run(python: Path, folder: Path, parameters: dict[str, object]) -> Path:
    """Execute the notebook as Kaggle does, offline; the results folder."""
    work, out = folder / "working", folder / "working" / "compare"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    notebook = work / "compare.ipynb"
    shutil.copy(ROOT / "notebooks" / "compare.ipynb", notebook)
    command = [python, "-m", "papermill", notebook, work / "done.ipynb", "--kernel", "python3"]
    for name, value in {**parameters, "out": str(out)}.items():
        command += ["-y", json.dumps({name: value})]
    dropped = ("PIP_", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kaggle = {
        "KAGGLE_KERNEL_RUN_TYPE": "Batch", "REALKIT_INPUTS": str(folder / "input"),
        "HF_ENDPOINT": "http://127.0.0.1:9", "PIP_NO_INDEX": "1", "HOME": str(work),
        "MPLBACKEND": "agg",
    }  # fmt: skip
    done = subprocess.run(command, cwd=work, env=kept | kaggle, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to build it (default: a temporary one)")
    parser.add_argument(
        "--small", action="store_true", help="two samplers, two prompts and 4 steps"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="realkit-image-"))
    took: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        took[name] = time.monotonic() - began
        print(f"{name}: {took[name]:.0f} s", flush=True)

    began = time.monotonic()
    python = python_of(folder)
    timed("environment", began)
    began = time.monotonic()
    attached = folder / "input" / "datasets" / "me" / wheels.DATASET
    shutil.rmtree(attached, ignore_errors=True)
    attached.mkdir(parents=True)
    wheels.dataset(attached, "me")
    timed("wheels", began)
    began = time.monotonic()
    out = run(python, folder, SMALL if options.small else {})
    timed("notebook, its first cell included", began)
    table = pd.read_parquet(out / "table.parquet")
    first = json.loads((out / "runs.jsonl").read_text(encoding="utf-8").splitlines()[0])
    print(f"Python {first['python']}, {first['versions']}: {len(table)} cells")
    assert (table["status"] == "ok").all() and len(table)
    assert first["versions"]["torch"].startswith("2.11.0"), first["versions"]
    assert first["versions"]["diffusers"] != OLD[0].partition("==")[2]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{size / 2**30:.1f} GiB in {folder}")
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
