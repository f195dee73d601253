"""Joules by NVML's counter: against a small library in NVML's place, and on a card where there is
one. What torch says of its card is set by hand: this machine may have none."""

import ctypes
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realkit.base import energy, measure
from realkit.base.measure import Stopwatch

SOURCE = Path(__file__).parents[1] / "nvml.c"
T4, P100 = "00000000-0000-0000-0000-0000000000t4", "00000000-0000-0000-0000-0000000000p1"
CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The stand-in, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, SOURCE], check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture
def card(library, monkeypatch):
    """Two cards as NVML knows them; CUDA sees the second alone, as its index 0."""
    pynvml = pytest.importorskip("pynvml")
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    card = SimpleNamespace(uuid=T4, lib=library)
    library.stand_in_energy.argtypes = [ctypes.c_ulonglong]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    energy._handle.cache_clear()
    library.stand_in_fails(0)
    library.stand_in_energy(1_000_000)
    yield card
    library.stand_in_fails(0)
    energy._handle.cache_clear()


def test_a_block_has_the_joules_between_two_readings_of_its_own_card(card, monkeypatch):
    monkeypatch.setattr(energy, "LEAST_S", 0.01)
    with Stopwatch(CUDA) as watch:
        time.sleep(0.02)
        card.lib.stand_in_energy(1_070_500)
    assert watch.joules == 70.5
    assert measure.energy_of("decode", watch) == {"decode_j": 70.5}


@pytest.mark.parametrize("uuid", [P100, "00000000-0000-0000-0000-00000000none", f"MIG-{T4}"])
def test_a_card_without_the_counter_has_none(card, uuid):
    card.uuid = uuid
    assert energy.millijoules(CUDA) is None
    with Stopwatch(CUDA) as watch:
        pass
    assert watch.joules is None and watch.seconds > 0 and measure.energy_of("decode", watch) == {}


def test_a_library_that_fails_costs_the_energy_alone(card, monkeypatch):
    card.lib.stand_in_fails(999)
    assert energy.millijoules(CUDA) is None
    card.lib.stand_in_fails(0)
    monkeypatch.setattr(energy, "LEAST_S", 0.0)
    with Stopwatch(CUDA) as watch:  # lost within the block
        card.lib.stand_in_fails(15)
    assert watch.joules is None and watch.seconds > 0


def test_no_library_and_no_card_have_none(monkeypatch):
    pynvml = pytest.importorskip("pynvml")
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    properties = SimpleNamespace(uuid=T4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    energy._handle.cache_clear()
    assert energy.millijoules(CUDA) is None
    assert energy.millijoules(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("before", "after", "seconds", "joules"),
    [
        (1_000, 61_500, 2.0, 60.5),
        (1_000, 61_500, 0.99, None),  # shorter than the counter can tell
        (61_500, 1_000, 2.0, None),  # the driver was loaded again
        (1_000, 1_000, 2.0, None),  # it did not move
        (None, 1_000, 2.0, None),
        (1_000, None, 2.0, None),
    ],
)
def test_what_the_counter_cannot_tell_stays_empty(before, after, seconds, joules):
    assert energy.joules(before, after, seconds) == joules


@pytest.mark.gpu
def test_a_real_card_counts_what_its_power_says():
    import pynvml

    device = torch.device("cuda", torch.cuda.current_device())
    if energy.millijoules(device) is None:
        pytest.skip("this card has no energy counter")
    square = torch.randn(4096, 4096, device=device)
    with Stopwatch(device) as watch:
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            square = torch.tanh(square @ square)
            torch.cuda.synchronize(device)
    handle = energy._handle(str(torch.cuda.get_device_properties(device).uuid))
    limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
    assert watch.joules is not None
    watts = watch.joules / watch.seconds
    assert 0.1 * limit < watts < 1.15 * limit
    idle_watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    assert watts > 0.5 * idle_watts
