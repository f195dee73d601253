"""Lines that a person should know and need not act on."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache

from realkit.base.terminal import say

# The libraries that realkit calls: what they deprecate is its matter, not a person's
LIBRARIES = (
    "accelerate", "diffusers", "huggingface_hub", "kornia", "open_clip", "peft", "skimage",
    "spandrel", "spandrel_extra_arches", "timm", "torch", "torchsde", "torchvision", "transformers",
)  # fmt: skip


def hush() -> None:
    """Keep deprecations inside libraries out of sight. Those of a person's own code stay: Python
    files a warning under the module that is to be changed."""
    inside = rf"({'|'.join(LIBRARIES)})(\.|$)"
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=inside)


@lru_cache(maxsize=4096)
def warn_once(line: str) -> None:
    """Print a line to stderr, the first time in this process: a prompt may be drawn many times."""
    say(line, sys.stderr)
