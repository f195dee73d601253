"""realkit: which model, which sampler, which upscaler gives the best picture for the least time,
and how sure can I be?"""

from __future__ import annotations

import os
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from realkit.base.door import door
from realkit.base.version import __version__ as __version__
from realkit.base.warn import hush

hush()

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch loads: spinning threads slow a busy small machine down

# The public names, each with the module that it is read from at first use.
_NAMES = {
    "Sweep": "sweeps.sweep", "Cell": "sweeps.cell", "RequestError": "base.errors",
    "run": "apps.compare_run", "read": "runs.folder", "Run": "runs.folder",
    "Ray": "runs.engines.ray",
    "load": "models.loading", "MODELS": "models.spec", "SAMPLERS": "samplers.table",
    "upscale": "upscalers.upscale", "UPSCALERS": "upscalers.table", "canonical": "upscalers.chain",
    "save": "base.saving", "info": "models.reading",
    "score": "scorers.score", "SCORERS": "scorers.table", "scorer": "scorers.own",
    "sweep_notebooks": "apps.notebooks.sweep", "before_after": "analysis.before_after",
    "compare": "analysis.compare", "aggregate": "analysis.aggregate",
    "sets": "analysis.sets", "edits": "analysis.edits", "ENCODERS": "scorers.encoders",
    "vote": "analysis.vote_widget", "votes": "analysis.votes", "trend": "analysis.trend",
    "at_equal": "analysis.at_equal",
}  # fmt: skip
_MODULES = {
    "plots": "analysis.plots", "verdicts": "analysis.verdicts", "rehearsal": "rehearsal",
    "fidelity": "upscalers.benchmark", "laboratory": "samplers.benchmark",
    "bootstrap": "apps.notebooks.bootstrap",
}  # fmt: skip
__all__ = [*_NAMES, *_MODULES]

if TYPE_CHECKING:
    from realkit import rehearsal as rehearsal
    from realkit.analysis import plots as plots
    from realkit.analysis import verdicts as verdicts
    from realkit.analysis.aggregate import aggregate as aggregate
    from realkit.analysis.at_equal import at_equal as at_equal
    from realkit.analysis.before_after import before_after as before_after
    from realkit.analysis.compare import compare as compare
    from realkit.analysis.edits import edits as edits
    from realkit.analysis.sets import sets as sets
    from realkit.analysis.trend import trend as trend
    from realkit.analysis.vote_widget import vote as vote
    from realkit.analysis.votes import votes as votes
    from realkit.apps.compare_run import run as run
    from realkit.apps.notebooks import bootstrap as bootstrap
    from realkit.apps.notebooks.sweep import sweep_notebooks as sweep_notebooks
    from realkit.base.errors import RequestError as RequestError
    from realkit.base.saving import save as save
    from realkit.models.loading import load as load
    from realkit.models.reading import info as info
    from realkit.models.spec import MODELS as MODELS
    from realkit.runs.engines.ray import Ray as Ray
    from realkit.runs.folder import Run as Run
    from realkit.runs.folder import read as read
    from realkit.samplers import benchmark as laboratory  # noqa: F401
    from realkit.samplers.table import SAMPLERS as SAMPLERS
    from realkit.scorers.encoders import ENCODERS as ENCODERS
    from realkit.scorers.own import scorer as scorer
    from realkit.scorers.score import score as score
    from realkit.scorers.table import SCORERS as SCORERS
    from realkit.sweeps.cell import Cell as Cell
    from realkit.sweeps.sweep import Sweep as Sweep
    from realkit.upscalers import benchmark as fidelity  # noqa: F401
    from realkit.upscalers.chain import canonical as canonical
    from realkit.upscalers.table import UPSCALERS as UPSCALERS
    from realkit.upscalers.upscale import upscale as upscale


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(f"realkit.{_NAMES[name]}"), name)
        if isinstance(value, FunctionType):  # the kit's own calls do not pass the door
            value = door(value)
    elif name in _MODULES:
        value = import_module(f"realkit.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'realkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
