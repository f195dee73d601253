"""The engine of a name or an instance."""

from __future__ import annotations

from realkit.base.errors import RequestError, shown
from realkit.runs.engines.engine import Engine
from realkit.runs.engines.process import Process

METHODS = ("start", "equip", "work", "close")


def engine_for(engine: object) -> Engine:
    """The engine that "process", "ray", "ray:ADDRESS" or an instance means. Raises RequestError."""
    if engine == "process":
        return Process()
    if isinstance(engine, str) and (engine == "ray" or engine.startswith("ray:")):
        from realkit.runs.engines.ray import Ray  # torch, through the worker

        return Ray(engine.partition(":")[2] or None)
    if all(callable(getattr(engine, method, None)) for method in METHODS):
        return engine  # type: ignore[return-value]
    raise RequestError(
        f"engine {shown(engine)}: expected 'process', 'ray', 'ray:ADDRESS' or realkit.Ray(…)"
    )
