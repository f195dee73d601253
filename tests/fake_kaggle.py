"""A `kaggle` command as 2.2.4 behaves, with a folder ($FAKE_KAGGLE) as its server. What is pushed
runs in a tree shaped like Kaggle's, the internet cut.

The folder's manners.json says where it misbehaves: {"logged_in", "push_error", "dataset_error",
"invalid", "by_hand", "canned", "python", "fails", "stays"}.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SERVER = Path(os.environ["FAKE_KAGGLE"])
ACCOUNT = "me"
RUN = """
import sys, papermill
from traitlets.config import Config
papermill.execute_notebook(
    sys.argv[1],
    "__notebook__.ipynb",
    kernel_name="python3",
    progress_bar=False,
    log_output=True,
    stdout_file=sys.stdout,
    stderr_file=sys.stderr,
    config=Config({"KernelManager": {"transport": "ipc"}}),
)
"""


def manners() -> dict[str, Any]:
    path = SERVER / "manners.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    log = SERVER / "calls.txt"
    log.write_text((log.read_text() if log.exists() else "") + " ".join(sys.argv[1:3]) + "\n")
    if not manners().get("logged_in", True):
        sys.exit(
            "Authentication required to call the Kaggle API.\n\nFirst, you will need a Kaggle"
            " account."
        )
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("verb")
    parser.add_argument("name", nargs="?")
    parser.add_argument("-p", dest="path", type=Path)
    parser.add_argument("-m", dest="message")
    parser.add_argument("--page-size", type=int, default=20)
    parser.add_argument("--page-token")
    for flag in ("-q", "-o", "-d"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    COMMANDS[given.kind, given.verb](given)


def config_view(_: argparse.Namespace) -> None:
    print(
        f"Configuration values from {SERVER}\n- username: {ACCOUNT}\n- auth_method: ACCESS_TOKEN\n-"
        " path: None\n- proxy: None\n- competition: None"
    )


def datasets_files(given: argparse.Namespace) -> None:
    folder = SERVER / "datasets" / given.name
    if not folder.is_dir():
        sys.exit(
            "404 Client Error: Not Found for url:"
            " https://www.kaggle.com/api/v1/datasets.DatasetApiService/ListDatasetFiles"
        )
    print("name   size  creationDate", *(path.name for path in sorted(folder.iterdir())), sep="\n")


def datasets_create(given: argparse.Namespace) -> None:
    ref = json.loads((given.path / "dataset-metadata.json").read_text())
    folder = SERVER / "datasets" / ref["id"]
    if error := manners().get("dataset_error"):
        print(f"Dataset creation error: {error}")
    elif folder.exists():
        print(
            f'Dataset creation error: The requested title "{ref["title"]}" is already in use by a'
            " dataset. Please choose another title."
        )
    else:
        upload(given.path, folder)
        print(
            "Your private Dataset is being created. Please check progress at"
            f" https://www.kaggle.com/datasets/{ref['id']}"
        )


def datasets_version(given: argparse.Namespace) -> None:
    ref = json.loads((given.path / "dataset-metadata.json").read_text())
    shutil.rmtree(SERVER / "datasets" / ref["id"])
    upload(given.path, SERVER / "datasets" / ref["id"])
    print(
        "Dataset version is being created. Please check progress at"
        f" https://www.kaggle.com/datasets/{ref['id']}"
    )


def upload(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if (
            path.is_file() and path.name != "dataset-metadata.json"
        ):  # folders are skipped, as without -r zip
            shutil.copy(path, folder)
    (folder.parent / f".{folder.name}.asked").write_text("0")


def datasets_status(given: argparse.Namespace) -> None:
    folder = SERVER / "datasets" / given.name
    asked = folder.parent / f".{folder.name}.asked"
    if not folder.is_dir():
        sys.exit("403 Client Error: Forbidden")
    times = int(asked.read_text())
    asked.write_text(str(times + 1))
    print("ready" if times else "blobs_received", end="")


def kernels_push(given: argparse.Namespace) -> None:
    metadata = json.loads((given.path / "kernel-metadata.json").read_text())
    assert (
        re.sub(r"[^a-z0-9]+", "-", metadata["title"].lower()).strip("-")
        == metadata["id"].split("/")[1]
    )
    assert metadata["language"] == "python" and metadata["kernel_type"] == "notebook"
    if error := manners().get("push_error"):
        print(f"Kernel push error: {error}")
        return
    if invalid := manners().get("invalid"):
        print(
            "The following are not valid kernel sources and could not be added to the kernel:"
            f" {invalid}"
        )
    folder = SERVER / "kernels" / metadata["id"]
    version = folder / str(len(list(folder.glob("*"))) + 1)
    shutil.copytree(given.path, version)
    (version / "status").write_text("QUEUED")
    subprocess.Popen(
        [sys.executable, __file__, "--run", str(version)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(
        f"Kernel version {version.name} successfully pushed.  Please check progress at"
        f" https://www.kaggle.com/code/{metadata['id']}"
    )


def last(name: str) -> Path:
    found = sorted((SERVER / "kernels" / name).glob("*"), key=lambda path: int(path.name))
    if not found:
        sys.exit(
            f"Cannot access kernel '{name}' (Permission 'kernels.get' was denied). The most likely"
            " cause is a wrong kernel slug."
        )
    return found[-1]


def kernels_status(given: argparse.Namespace) -> None:
    status = (last(given.name) / "status").read_text()
    print(f'{given.name} has status "KernelWorkerStatus.{status}"')
    if status == "ERROR" and (failure := manners().get("fails")):
        print(f'Failure message: "{failure}"')


def kernels_output(given: argparse.Namespace) -> None:
    output = last(given.name) / "working"
    names = sorted(
        path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()
    )
    pages = [names[n : n + given.page_size] for n in range(0, len(names), given.page_size)] or [[]]
    first = int(given.page_token or 0)
    by_hand = given.page_token is not None or manners().get("by_hand")
    for name in [
        name for page in (pages[first : first + 1] if by_hand else pages) for name in page
    ]:
        (given.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(output / name, given.path / name)
    if given.page_token is None:
        log = [
            {"stream_name": "stdout", "time": 1.0, "data": line}
            for line in (last(given.name) / "log").read_text().splitlines(keepends=True)
        ]
        (given.path / f"{given.name.split('/')[1]}.log").write_text(json.dumps(log))
    if by_hand and first + 1 < len(pages):
        print(f"Next page token: {first + 1}")


def execute(version: Path) -> None:
    """Run a pushed version, to its end."""
    (version / "status").write_text("RUNNING")
    metadata = json.loads((version / "kernel-metadata.json").read_text())
    wanted, working = manners(), version / "working"
    if canned := wanted.get("canned"):
        shutil.copytree(canned, working)
        (version / "log").write_text(wanted.get("log", "fine\n"))
        code = 1 if "fails" in wanted else 0
    else:
        working.mkdir()
        with (version / "log").open("w") as log:
            code = subprocess.run(
                [*offline(), wanted["python"], "-c", RUN, str(version / metadata["code_file"])],
                cwd=working,
                stdout=log,
                stderr=log,
                env=environment(version, metadata),
            ).returncode
    if not wanted.get("stays"):
        (version / "status").write_text("ERROR" if code else "COMPLETE")


def offline() -> list[str]:
    """What cuts a process off from all networks, where this machine lets it."""
    cut = ["unshare", "-n"]
    return (
        cut
        if shutil.which("unshare")
        and subprocess.run([*cut, "true"], capture_output=True).returncode == 0
        else []
    )


def environment(version: Path, metadata: dict[str, Any]) -> dict[str, str]:
    """Kaggle's, with the inputs mounted: datasets in the new form of their path, notebook outputs
    in the old one."""
    inputs = version / "input"
    for name in metadata["dataset_sources"]:
        mount(SERVER / "datasets" / name, inputs / "datasets" / name)
    for name in metadata["kernel_sources"]:
        done = [
            path
            for path in (SERVER / "kernels" / name).iterdir()
            if (path / "status").read_text() == "COMPLETE"
        ]
        mount(max(done, key=lambda path: int(path.name)) / "working", inputs / name.split("/")[1])
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM")
        if name in os.environ
    }
    closed = {
        name: "http://127.0.0.1:9"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    }
    home = version / "home"
    home.mkdir()
    return (
        kept
        | closed
        | {
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "REALKIT_INPUTS": str(inputs),
            "HOME": str(home),
            "PIP_NO_INDEX": "1",
            "MPLBACKEND": "agg",
        }
    )


def mount(source: Path, place: Path) -> None:
    """The same files, read-only."""
    shutil.copytree(source, place)
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


COMMANDS = {
    ("config", "view"): config_view,
    ("datasets", "files"): datasets_files,
    ("datasets", "create"): datasets_create,
    ("datasets", "version"): datasets_version,
    ("datasets", "status"): datasets_status,
    ("kernels", "push"): kernels_push,
    ("kernels", "status"): kernels_status,
    ("kernels", "output"): kernels_output,
}  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1] == "--run":
        execute(Path(sys.argv[2]))
    else:
        main()
