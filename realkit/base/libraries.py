"""The versions of the libraries that can change a result."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DECISIVE = ("torch", "diffusers", "transformers", "open_clip_torch", "spandrel", "numpy")


def versions() -> dict[str, str | None]:
    """The versions of the packages that can change a result; none of them is imported."""
    return {name: _version(name) for name in DECISIVE}


@cache  # every picture's record asks for them
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
