"""`make demo`: the comparison notebook on the rehearsal models, into results/demo/.

With --sample, results/sample/ is made of it: tests/apps/test_sample.py holds the sample to the
version that it lies beside.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "demo"
FILES = (
    "compare.ipynb", "table.csv", "table.parquet", "verdicts.csv", "verdicts.png", "grid.png",
    "pareto.png", "upscaled.png", "images",
)  # fmt: skip
SAMPLE = ROOT / "results" / "sample"
OF_SAMPLE = (
    "runs.jsonl", "table.csv", "verdicts.png", "grid.png", "pareto.png",
    "upscaled.png",
)  # fmt: skip


@click.command(help=__doc__)
@click.option("--sample", is_flag=True, help="Copy what results/sample/ shows there too.")
def main(sample: bool) -> None:
    import papermill
    from traitlets.config import Config

    OUT.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        ROOT / "notebooks" / "compare.ipynb",
        OUT / "compare.ipynb",
        parameters={"out": str(OUT)},
        kernel_name="python3",
        log_output=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        progress_bar=False,
        cwd=str(ROOT / "notebooks"),
        config=Config({"KernelManager": {"transport": "ipc" if os.name == "posix" else "tcp"}}),
    )
    click.echo("\nMade:")
    for name in FILES:
        click.echo(f"  {(OUT / name).relative_to(ROOT)}")
    for name in OF_SAMPLE if sample else ():
        shutil.copy(OUT / name, SAMPLE / name)


if __name__ == "__main__":
    main()
