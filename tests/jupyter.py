"""A real JupyterLab on this machine, and notebooks opened in it by a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jupyterlab_widgets
import nbformat

# No news, no look for updates, no terminals, no file watching: nothing that asks outside.
QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}


@contextmanager
def lab(home: Path, packages: Path | None = None) -> Iterator[str]:
    """The address of a JupyterLab over the folder `home`, its token in it. `packages` is a folder
    of packages that come before the environment's own, with `share/jupyter` beside them."""
    own = home.parent / f"{home.name}-jupyter"
    settings = own / "lab" / "user-settings"
    environment = os.environ | {"IPYTHONDIR": str(own / "ipython"), "JUPYTER_NO_CONFIG": "1"}
    for name in ("config", "data", "runtime"):
        environment[f"JUPYTER_{name.upper()}_DIR"] = str(own / name)
        (own / name).mkdir(parents=True)
    for name, value in QUIET.items():
        plugin = settings / name.replace(":", "/")
        plugin.parent.mkdir(parents=True, exist_ok=True)
        plugin.with_suffix(".jupyterlab-settings").write_text(json.dumps(value))
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(own / "workspaces")
    if packages:
        paths = [str(packages), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # What shows widgets lies beside the site-packages of the environment that has it.
    root = packages or Path(jupyterlab_widgets.__file__).parents[4]
    share = root / "share" / "jupyter"
    environment["JUPYTER_PATH"] = str(share)
    options = [f"--ServerApp.root_dir={home}", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
               "--allow-root", "--no-browser", "--ServerApp.token=secret",
               f"--LabApp.app_dir={share / 'lab'}"]  # fmt: skip
    with (own / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
    try:
        yield _address(server, own)
    finally:
        server.terminate()
        server.wait(60)


def _address(server: subprocess.Popen[bytes], own: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        for path in (own / "runtime").glob("jpserver-*.json"):
            url = json.loads(path.read_text())["url"]
            return url.replace("localhost", "127.0.0.1")
        time.sleep(0.1)
    raise AssertionError((own / "log").read_text())


def write(path: Path, sources: Sequence[str]) -> None:
    cells = list(map(nbformat.v4.new_code_cell, sources))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def run_all(page: Any, address: str, name: str) -> None:
    """Open a notebook of the lab and run its cells."""
    page.goto(f"{address}lab/tree/{name}?token=secret&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()
