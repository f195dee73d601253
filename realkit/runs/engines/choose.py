"""The engine that a name or an instance means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realkit.base.errors import RequestError, shown
from realkit.runs.engines.batch import Engine
from realkit.runs.engines.process import Process

if TYPE_CHECKING:
    pass


def engine_for(engine: object) -> Engine:
    """The engine that "process", "ray", "ray:ADDRESS" or an instance names. Raises RequestError."""
    if engine == "process":
        return Process()
    if isinstance(engine, str) and (engine == "ray" or engine.startswith("ray:")):
        from realkit.runs.engines.ray import Ray

        return Ray(engine.partition(":")[2] or None)
    if all(callable(getattr(engine, name, None)) for name in ("start", "equip", "work", "close")):
        return engine  # type: ignore[return-value]
    raise RequestError(
        f"engine {shown(engine)}: expected 'process', 'ray', 'ray:ADDRESS' or a"
        " realkit.runs.engines.ray.Ray(…)"
    )
