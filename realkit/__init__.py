"""realkit: which model, which sampler, which upscaler gives the best picture for the least time, and how sure can I be?"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: spinning threads slow a busy small machine down

__version__ = "0.1.0"

_HOMES = {
    "load": "loading", "MODELS": "models", "SAMPLERS": "samplers", "UPSCALERS": "upscalers", "SCORERS": "scorers",
    "upscale": "enlarging", "score": "scorers", "Sweep": "sweep", "Cell": "sweep", "run": "runner", "read": "runner", "Run": "runner", "RequestError": "errors",
    "sweep_notebooks": "notebook_sweep",
}  # fmt: skip
_MODULES = ("plots", "rehearsal")
__all__ = [*_HOMES, *_MODULES]

if TYPE_CHECKING:
    from realkit import plots as plots
    from realkit import rehearsal as rehearsal
    from realkit.enlarging import upscale as upscale
    from realkit.errors import RequestError as RequestError
    from realkit.loading import load as load
    from realkit.models import MODELS as MODELS
    from realkit.notebook_sweep import sweep_notebooks as sweep_notebooks
    from realkit.runner import Run as Run
    from realkit.runner import read as read
    from realkit.runner import run as run
    from realkit.samplers import SAMPLERS as SAMPLERS
    from realkit.scorers import SCORERS as SCORERS
    from realkit.scorers import score as score
    from realkit.sweep import Cell as Cell
    from realkit.sweep import Sweep as Sweep
    from realkit.upscalers import UPSCALERS as UPSCALERS


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"realkit.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"realkit.{name}")
    else:
        raise AttributeError(f"module 'realkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
