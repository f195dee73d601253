"""k-diffusion's sampling and external modules, without what the rest of the package would
import."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from functools import lru_cache
from typing import Any


@lru_cache
def modules() -> tuple[Any, Any]:
    """(k_diffusion.sampling, k_diffusion.external)."""
    found = importlib.util.find_spec("k_diffusion")
    assert found and found.submodule_search_locations, (
        "pip install --no-deps k-diffusion==0.1.1: the reference of the samplers"
    )
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    return importlib.import_module("k_diffusion.sampling"), importlib.import_module(
        "k_diffusion.external"
    )
