"""`make gpu-pack`: what tests.gpu needs on a machine with torch, a card and no network, in one
folder of at most 64 MiB: .gpu/ in the repository, or `python -m tests.gpu_pack FOLDER`.

The wheels are for Python 3.12 on x86-64 Linux; `--python 3.13` takes others. A machine that has a
package keeps its own. Left out are the rehearsal models that the parts do not draw (49 MB), and
packages that machines with torch usually have: where pandas, pyarrow or scipy are missing, the part
`run` fails and says which.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 64 * 2**20
LEFT_OUT = ("xl", "refiner", "studio", "turbo", "text_encoder_2", "tokenizer_2")
CODE = ("realkit", "tests", "pyproject.toml", "requirements.txt", "LICENSE", "README.md")
# Of our requirements, and of what they require in turn, what a machine for torch may lack.
WHEELS = (
    "diffusers", "open_clip_torch", "ftfy", "wcwidth", "spandrel", "torchsde", "trampoline",
    "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "platformdirs",
    "filelock", "tqdm", "nvidia-ml-py",
)  # fmt: skip
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)  # manylinux tags that wheels come with


def pack(folder: Path, python: str) -> int:
    """Write the folder anew; its size in bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_ignored)
        else:
            shutil.copy(source, folder / name)
    _download(folder / "wheels", python)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _ignored(folder: str, names: list[str]) -> set[str]:
    left = set(LEFT_OUT) if Path(folder).name == "weights" and "base" in names else set()
    return left | {name for name in names if name == "__pycache__" or name.endswith(".pyc")}


def _download(folder: Path, python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "-d", str(folder)]
    for minor in GLIBC:
        command += ["--platform", f"manylinux_2_{minor}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]
    # pydantic takes one version of its core alone: what this environment has fits together.
    subprocess.run([*command, *map(_pinned, WHEELS)], check=True)


def _pinned(name: str) -> str:
    from importlib.metadata import version

    return f"{name}=={version(name)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--python", default="3.12", help="of the machine with the card")
    options = parser.parse_args()
    size = pack(options.folder, options.python)
    print(f"{options.folder}: {size / 2**20:.1f} MiB; there: python3 -m tests.gpu")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 2**20:.0f} MiB: leave something out")


if __name__ == "__main__":
    main()
