"""The official `kaggle` command, called and read. It prints some of its errors with exit code 0, so
what it prints is what counts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from realkit.base import credentials
from realkit.base.errors import RequestError, RunError

LOGIN = (
    "make a token on kaggle.com/settings/api and put it into $KAGGLE_API_TOKEN or"
    " ~/.kaggle/access_token (an older kaggle.json does too), or kaggle auth login"
)
REFUSED = (
    r"(?:Kernel push|Dataset creation|Dataset version creation) error: (.+)|(The following are not"
    r" valid (?:dataset|kernel|competition|model) sources .+)"
)
NO_ANSWER = (
    r"Max retries exceeded|Connection ?(?:aborted|refused|reset|Error)|Name or service not"
    r" known|[Tt]imed out|\b(?:429|5\d\d) (?:Client|Server) Error"
)
PAGE = 200  # files a page: the most that Kaggle gives
PAGES = 500  # a server that never ends is not asked for ever


class KaggleError(RunError):
    """Kaggle, or its command, refused or failed. Exit code 1."""


class Unreachable(KaggleError):
    """Kaggle did not answer, which says nothing of what is there."""


def owner() -> str:
    """The name of the account that the command is logged in to. Raises RequestError where it is
    missing or logged in to none."""
    code, printed = _call("config", "view")
    found = re.search(r"^\W*username: *(\S+)", printed, re.M)
    if not code and found and found[1] != "None":
        return found[1]
    _reached(printed)
    if not (named := os.environ.get("KAGGLE_USERNAME") or _kept_name()):
        raise RequestError(f"The kaggle command is not logged in: {LOGIN}")
    return named


def _kept_name() -> str:
    """The account in the older kaggle.json, "" where there is none."""
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    try:
        return str(json.loads((folder / "kaggle.json").read_text(encoding="utf-8"))["username"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def contents(dataset: str) -> str | None:
    """The hash that the dataset's file contents-HASH.txt bears, "" where it has none; None where
    there is no such dataset."""
    code, printed = _call("datasets", "files", dataset, "--page-size", str(PAGE))
    found = re.search(r"contents-([0-9a-f]{16})\.txt", printed)
    if code:
        _reached(printed)
    return None if code else found[1] if found else ""


def upload(folder: Path, new: bool, note: str) -> None:
    """Make the dataset that a folder describes, or a new version of it."""
    (
        _checked("datasets", "create", "-p", str(folder), "-q")
        if new
        else _checked("datasets", "version", "-p", str(folder), "-q", "-m", note)
    )


def dataset_state(dataset: str) -> str:
    """ "ready", "failed", or a stage of what Kaggle does with an upload; "" while it does not know
    it yet."""
    code, printed = _call("datasets", "status", dataset)
    found = re.search(
        r"^\W*(?:\w+\.)?([A-Za-z_]+)\W*$", printed, re.M
    )  # a word alone: warnings stand in lines of their own
    return "" if code or not found else found[1].lower()


def push(folder: Path) -> str:
    """Push the kernel that a folder describes, which starts it; the address of its page."""
    printed = _checked("kernels", "push", "-p", str(folder))
    if "successfully pushed" not in printed:
        raise KaggleError(f"kaggle kernels push did not say that it succeeded: {_short(printed)}")
    found = re.search(r"https?://\S+", printed)
    return found[0] if found else "see your work on kaggle.com"


def state(kernel: str) -> tuple[str, str] | None:
    """What the last version of a kernel is doing ("queued", "running", "complete", "error",
    "cancel_acknowledged", …) and why it failed; None where there is none.

    Raises Unreachable where Kaggle cannot be asked.
    """
    code, printed = _call("kernels", "status", kernel)
    found = re.search(r'has status "(?:\w+\.)?(\w+)"', printed)
    if code or not found:
        _reached(printed)
        return None
    failure = re.search(r'Failure message: "(.*)"', printed, re.S)
    name = re.sub(
        r"(?<=[a-z])(?=[A-Z])", "_", found[1]
    ).lower()  # older commands write cancelAcknowledged
    return name, " ".join(failure[1].split()) if failure else ""


def output(kernel: str, folder: Path) -> None:
    """Download all files that the last version of a kernel left, and its log, however many pages
    they fill."""
    token: list[str] = []
    for _ in range(PAGES):
        printed = _checked(
            "kernels",
            "output",
            kernel,
            "-p",
            str(folder),
            "-o",
            "-q",
            "--page-size",
            str(PAGE),
            *token,
        )
        more = re.search(r"[Nn]ext [Pp]age [Tt]oken[:=]?\s*=?\s*(\S+)", printed)
        if not more or more[1] == token[-1:]:
            return
        token = ["--page-token", more[1]]
    raise KaggleError(
        f"{kernel} has more than {PAGES * PAGE} files: fetch them by hand, kaggle kernels output"
        f" {kernel}"
    )


def _reached(printed: str) -> None:
    """Raise Unreachable where what the command printed says that it could not ask, rather than what
    the answer was."""
    if re.search(NO_ANSWER, printed):
        raise Unreachable(f"Kaggle cannot be reached: {_short(printed)}")


def _checked(*arguments: str) -> str:
    """What the command prints. Raises KaggleError where it fails, or says that it did."""
    code, printed = _call(*arguments)
    refused = re.search(REFUSED, printed)
    if code or refused:
        said = next((group for group in refused.groups() if group), "") if refused else printed
        raise KaggleError(f"kaggle {' '.join(arguments[:2])} failed: {_short(said)}")
    return printed


def _call(*arguments: str) -> tuple[int, str]:
    beside = Path(sys.executable).with_name("kaggle")
    command = shutil.which("kaggle") or (str(beside) if beside.is_file() else None)
    if command is None:
        raise RequestError(
            'The kaggle command is not installed: pip install "realkit[kaggle]", or pip install'
            " kaggle six"
        )
    environment = os.environ | {
        "PYTHONUTF8": "1"
    }  # its files are written in the locale's encoding otherwise
    done = subprocess.run(
        [command, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    if done.returncode and "Authentication required" in done.stdout + done.stderr:
        raise RequestError(f"The kaggle command is not logged in: {LOGIN}")
    return done.returncode, f"{done.stdout}\n{done.stderr}"


def _short(text: str) -> str:
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.startswith("Warning:")
    ]
    return credentials.scrub(" ".join(lines[-3:]))[-400:] or "it printed nothing"
