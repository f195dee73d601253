"""Stands in for `pynvml`, the bindings of the NVIDIA driver, on machines that have no such
driver."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType, SimpleNamespace


@dataclass
class Card:
    name: str
    capability: tuple[int, int]
    memory: int  # bytes


def bindings(version: str | None, *cards: Card) -> ModuleType:
    """A module with the functions that are read; version None: there is no driver."""

    class NVMLError(Exception):
        pass

    def init() -> None:
        if version is None:
            raise NVMLError("NVML Shared Library Not Found")

    module = ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: version,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda number: cards[number],
        nvmlDeviceGetName=lambda card: card.name,
        nvmlDeviceGetCudaComputeCapability=lambda card: card.capability,
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=card.memory),
    )
    return module
