"""The kit on a card, in one command of at most nine minutes: `make gpu`.

For a machine with torch and a card, without network and perhaps without the kit's dependencies:

1. Here: `make gpu-pack` writes .gpu/, at most 64 MiB: the code, the smaller rehearsal weights, and
   the wheels that such a machine may lack (tests/gpu_pack.py lists them).
2. There, in that folder: `python3 -m tests.gpu`. Wheels of packages that are there already stay
   where they are; the others are unpacked, without what they require, into a folder of their own.

It writes results/gpu/gpu-CARD-torchVERSION-CUDA.csv, a row as soon as it is known: what was done,
how long it took, and how far it lies from the same on this machine's CPU in float32. `status` is
ok, differs (more than rounding explains), failed, or skipped: why is in `note`. One part that fails
is a row, not the end. Without a card the CPU takes its place, with small pictures, and the file
says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 500.0  # of nine minutes, with room for the imports and for what runs past it
COLUMNS = (
    "part", "case", "dtype", "rung", "batch", "tile", "status", "seconds", "peak_vram_gib",
    "apart", "allowed", "note",
)  # fmt: skip
FIRST_S = 3.0  # guess of the seconds of a part's first case


class Results:
    """A results file that grows by a row at a time, and the time that is left."""

    def __init__(self, path: Path, budget_s: float) -> None:
        self.path, self.counts, self.timed = path, dict[str, int](), True
        self._end = time.monotonic() + budget_s
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(COLUMNS)

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        if not self.timed:
            row.pop("seconds", None)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, restval="").writerow(row)
        self.counts[row["status"]] = self.counts.get(row["status"], 0) + 1
        shown = {name: value for name, value in row.items() if value not in ("", None)}
        print(" ".join(f"{name}={value}" for name, value in shown.items()), flush=True)

    def run(self, part: str, cases: Iterator[tuple[dict[str, Any], Any]]) -> bool:
        """Do the cases of a part, (labels, function → measurements) in, while there is time.
        Whether the card still answers."""
        expected = FIRST_S
        while True:
            try:
                labels, work = next(cases)
            except StopIteration:
                return True
            except Exception as error:
                self.add({"part": part, "status": "failed", "note": _line(error)})
                return answers()
            row = {"part": part, **labels}
            if self.left_s < expected:
                self.add(row | {"status": "skipped", "note": "the time is up"})
                continue
            began = time.monotonic()
            try:
                row |= measured(work())
            except Exception as error:
                row |= {"status": "failed", "note": _line(error)}
            expected = time.monotonic() - began
            row.setdefault("seconds", round(expected, 3))
            self.add(row)
            if row["status"] == "failed" and not answers():
                return False


def measured(found: dict[str, Any]) -> dict[str, Any]:
    """Measurements as a row's: ok where they are as near to the reference as allowed."""
    status = "ok"
    if found.get("apart") is not None:
        found["apart"] = round(float(found["apart"]), 4)
        if not found["apart"] <= found["allowed"]:  # nan too
            status = "differs"
    return {"status": status} | found


def answers() -> bool:
    """Whether the card still computes: after some errors nothing does in this process."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.ones(1, device="cuda").sum().item()
        return True
    except Exception:
        return False


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}"


def unpack(wheels: Path) -> None:
    """Unpack the wheels of packages that are missing, without what they require, and import from
    there."""
    missing = []
    for path in sorted(wheels.glob("*.whl")):
        try:
            version(path.name.split("-")[0])
        except PackageNotFoundError:
            missing.append(str(path))
    if not missing:
        return
    site = tempfile.mkdtemp(prefix="realkit-gpu-")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    for path in missing:  # one that does not fit this Python must not keep the others out
        done = subprocess.run([*command, "--target", site, path], capture_output=True, text=True)
        if done.returncode:
            print(f"not installed: {Path(path).name}: {done.stderr.strip()[-200:]}", flush=True)
    sys.path.insert(0, site)
    os.environ["PYTHONPATH"] = f"{site}:{os.environ.get('PYTHONPATH', '')}"  # of child processes


def file_name(facts: dict[str, Any]) -> str:
    """The results file's name: the card, or that there was none, torch and CUDA."""
    card = facts.get("gpu") or f"none {facts.get('cpu') or 'CPU'}"
    words = ["gpu", card, f"torch{facts['versions']['torch'].partition('+')[0]}"]
    if facts.get("cuda"):
        words.append(f"cu{facts['cuda'].replace('.', '')}")
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-") + ".csv"


@contextmanager
def offline() -> Iterator[None]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds in all")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--parts", help="only these, by commas")
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    began = time.monotonic()
    unpack(options.wheels)
    with offline():
        from tests import gpu_parts

        facts = gpu_parts.facts()
        path = options.out / file_name(facts)
        if not options.resume:
            path.unlink(missing_ok=True)
        results = Results(path, options.budget - (time.monotonic() - began))
        results.timed = "gpu" in facts  # a CPU's seconds tell nothing of a card
        if not options.resume:
            met = f"met {facts['gpu']}" if "gpu" in facts else "has not met a card: ran on the CPU"
            results.add({"part": "machine", "case": met, "status": "ok", "note": json.dumps(facts)})
        names = options.parts.split(",") if options.parts else list(gpu_parts.PARTS)
        for place, name in enumerate(names):
            if not results.run(name, gpu_parts.PARTS[name]()):
                rest = ",".join(names[place + 1 :])
                if rest:  # a card that no longer answers does so in a process of its own
                    arguments = ["--resume", "--parts", rest, "--budget", str(results.left_s)]
                    arguments += ["--out", str(options.out), "--wheels", str(options.wheels)]
                    os.execv(sys.executable, [sys.executable, "-m", "tests.gpu", *arguments])
    counts = ", ".join(f"{count} {status}" for status, count in results.counts.items())
    print(f"{path}: {counts}")


if __name__ == "__main__":
    main()
