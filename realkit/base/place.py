"""Where this process runs: Kaggle, Colab, a Jupyter server or a plain machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Literal, TypeVar

Place = Literal["Kaggle", "Colab", "Jupyter", "plain"]
T = TypeVar("T")
KAGGLE = Path("/kaggle")


def place_here() -> Place:
    if on_kaggle():
        return "Kaggle"
    if on_colab():
        return "Colab"
    return "Jupyter" if "ipykernel" in sys.modules or "JPY_PARENT_PID" in os.environ else "plain"


def on_kaggle() -> bool:
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ or KAGGLE.is_dir()


def on_colab() -> bool:
    """Whether this is Colab; Kaggle's image, which is made from Colab's, is not."""
    variables = "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ
    return not on_kaggle() and (variables or "google.colab" in sys.modules)


def within(seconds: float, ask: Callable[[], T]) -> T | None:
    """What `ask` returns; None if it raises anything or takes longer.

    Its thread is then left running: it holds nothing up, not even the end of the program.
    """
    answers: list[T] = []

    def run() -> None:
        with suppress(BaseException):
            answers.append(ask())

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
