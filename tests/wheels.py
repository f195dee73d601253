"""Wheels and environments as small as they can be, made on the spot."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import zipfile
from functools import lru_cache
from pathlib import Path


def wheel(folder: Path, name: str, version: str, *needs: str, code: str = "") -> Path:
    """A wheel of one package with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    module = re.sub(r"\W", "_", name)
    path, info = folder / f"{module}-{version}-py3-none-any.whl", f"{module}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{module}/__init__.py": code or f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    with zipfile.ZipFile(path, "w") as file:
        for inside, text in files.items():
            file.writestr(inside, text)
        file.writestr(
            f"{info}/RECORD", "".join(f"{inside},,\n" for inside in [*files, f"{info}/RECORD"])
        )
    return path


def environment(folder: Path, *installed: Path) -> Path:
    """A Python of its own in which there is pip and what is installed here; its executable."""
    import pip

    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    libraries = Path(pip.__file__).parent.parent
    (folder / "pip").mkdir()
    for entry in libraries.glob("pip*"):
        (folder / "pip" / entry.name).symlink_to(entry)
    (site / "pip.pth").write_text(f"{folder / 'pip'}\n")
    python = folder / "bin" / "python"
    if installed:
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", *map(str, installed)],
            check=True,
            capture_output=True,
        )
    return python


@lru_cache(maxsize=1)
def no_index() -> str:
    """Why nothing can be had from a package index here; "": it can, and what then fails is a
    fault. An index may be slow to answer on a busy machine: it is asked three times."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "six",
    ]
    lines = [""]
    for pause_s in (0, 5, 15):
        time.sleep(pause_s)
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            return ""
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr]
    return f"no package index is reachable: {lines[-1][-200:]}"
