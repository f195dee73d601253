"""The official `kaggle` command, called and read. It prints some of its errors with exit code 0, so
its text decides."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from realkit.base import credentials
from realkit.base.door import expanded
from realkit.base.errors import RequestError, RunError
from realkit.base.files import json_value

LOGIN = (
    "The kaggle command is not logged in: make a token on kaggle.com/settings/api and put it into"
    " $KAGGLE_API_TOKEN or ~/.kaggle/access_token (an older kaggle.json works too), or kaggle auth"
    " login"
)
REFUSED = (
    r"(?:Kernel push|Dataset creation|Dataset version creation) error: (.+)"
    r"|(The following are not valid (?:dataset|kernel|competition|model) sources .+)"
)
NO_ANSWER = (
    r"Max retries exceeded|Connection ?(?:aborted|refused|reset|Error)|Name or service not known"
    r"|[Tt]imed out|\b(?:429|5\d\d) (?:Client|Server) Error"
)
PAGE = 200  # files a page: the most that Kaggle gives
PAGES = 500  # the most pages to ask for: a broken server may never end


class KaggleError(RunError):
    """Kaggle, or its command, refused or failed. Exit code 1."""


class Unreachable(KaggleError):
    """Kaggle did not answer, so its state is unknown."""


def owner() -> str:
    """The account that the command is logged in to. Raises RequestError where there is none."""
    code, text = _call("config", "view")
    match = re.search(r"^\W*username: *(\S+)", text, re.M)
    if not code and match and match[1] != "None":
        return match[1]
    _check_reached(text)
    name = owner_here()
    if not name:
        raise RequestError(LOGIN)
    return name


def owner_here() -> str:
    """The account that this machine names, without the command; "" where it names none."""
    return os.environ.get("KAGGLE_USERNAME") or _older_login()


def _older_login() -> str:
    """The account in the older kaggle.json, "" where there is none."""
    folder = expanded(os.environ.get("KAGGLE_CONFIG_DIR") or "~/.kaggle")
    try:
        return str(json_value((folder / "kaggle.json").read_text(encoding="utf-8"))["username"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def contents(dataset: str) -> str | None:
    """The hash in the dataset's file name contents-HASH.txt, else ""; None: no such dataset."""
    code, text = _call("datasets", "files", dataset, "--page-size", str(PAGE))
    if code:
        _check_reached(text)
        return None
    match = re.search(r"contents-([0-9a-f]{16})\.txt", text)
    return match[1] if match else ""


def upload(folder: Path, new: bool, note: str) -> None:
    """Create the dataset that a folder describes, or a new version of it."""
    if new:
        _checked("datasets", "create", "-p", str(folder), "-q")
    else:
        _checked("datasets", "version", "-p", str(folder), "-q", "-m", note)


def dataset_state(dataset: str) -> str:
    """The state of an upload: "ready", "failed" or a stage; "" while Kaggle does not know it."""
    code, text = _call("datasets", "status", dataset)
    # A word alone in its line: warnings have lines of their own.
    match = re.search(r"^\W*(?:\w+\.)?([A-Za-z_]+)\W*$", text, re.M)
    return "" if code or not match else match[1].lower()


def push(folder: Path) -> str:
    """Push the kernel that a folder describes, which starts it; the address of its page."""
    text = _checked("kernels", "push", "-p", str(folder))
    if "successfully pushed" not in text:
        raise KaggleError(f"kaggle kernels push did not report success: {_short(text)}")
    address = re.search(r"https?://\S+", text)
    return address[0] if address else "see your work on kaggle.com"


def state(kernel: str) -> tuple[str, str] | None:
    """The state of a kernel's last version ("queued", "running", "complete", "error",
    "cancel_acknowledged", …) and why it failed; None where there is no such kernel.

    Raises Unreachable where Kaggle does not answer.
    """
    code, text = _call("kernels", "status", kernel)
    match = re.search(r'has status "(?:\w+\.)?(\w+)"', text)
    if code or not match:
        _check_reached(text)
        return None
    failure = re.search(r'Failure message: "(.*)"', text, re.S)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", match[1])  # older commands: cancelAcknowledged
    return name.lower(), " ".join(failure[1].split()) if failure else ""


def output(kernel: str, folder: Path) -> None:
    """Download all files and the log of a kernel's last version, page by page."""
    command = ["kernels", "output", kernel, "-p", str(folder), "-o", "-q", "--page-size", str(PAGE)]
    token: list[str] = []
    for _ in range(PAGES):
        text = _checked(*command, *token)
        more = re.search(r"[Nn]ext [Pp]age [Tt]oken[:=]?\s*=?\s*(\S+)", text)
        if not more or more[1] in token:
            return
        token = ["--page-token", more[1]]
    raise KaggleError(
        f"{kernel} has more than {PAGES * PAGE} files: fetch them by hand, kaggle kernels output"
        f" {kernel}"
    )


def _check_reached(text: str) -> None:
    """Raise Unreachable where the command's text says that Kaggle did not answer."""
    if re.search(NO_ANSWER, text):
        raise Unreachable(f"Kaggle cannot be reached: {_short(text)}")


def _checked(*arguments: str) -> str:
    """The command's text. Raises KaggleError where it fails, or says that it did."""
    code, text = _call(*arguments)
    refusal = re.search(REFUSED, text)
    if code or refusal:
        reason = (refusal[1] or refusal[2]) if refusal else text
        raise KaggleError(f"kaggle {' '.join(arguments[:2])} failed: {_short(reason)}")
    return text


def _call(*arguments: str) -> tuple[int, str]:
    """Run the command; its exit code and all that it prints."""
    beside = Path(sys.executable).with_name("kaggle")
    command = shutil.which("kaggle") or (str(beside) if beside.is_file() else None)
    if command is None:
        raise RequestError(
            'The kaggle command is not installed: pip install "realkit[kaggle]", or pip install'
            " kaggle six"
        )
    done = subprocess.run(
        [command, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUTF8": "1"},  # else it writes files in the locale's encoding
    )
    text = f"{done.stdout}\n{done.stderr}"
    if done.returncode and "Authentication required" in text:
        raise RequestError(LOGIN)
    return done.returncode, text


def _short(text: str) -> str:
    """The last lines of a command's text, warnings left out, in one line without secrets."""
    stripped = [line.strip() for line in text.splitlines()]
    lines = [line for line in stripped if line and not line.startswith("Warning:")]
    return credentials.scrub(" ".join(lines[-3:]))[-400:] or "it printed nothing"
