"""Lines that a person should know and need not act on."""

from __future__ import annotations

import sys
from functools import lru_cache

from realkit.base.terminal import say


@lru_cache(maxsize=4096)
def warn_once(line: str) -> None:
    """Print a line to stderr, the first time in this process: a prompt may be drawn many times."""
    say(line, sys.stderr)
