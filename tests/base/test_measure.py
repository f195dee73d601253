import sys

import pytest
import torch

import realkit as rk
from realkit.base import measure
from realkit.runs import environment


def test_memory_is_of_this_process_and_unknown_where_the_system_does_not_say(monkeypatch):
    assert measure.memory(torch.device("cpu"))["peak_ram_gib"] > 0.05
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert measure.memory(torch.device("cpu"))["peak_ram_gib"] is None


def test_versions_that_differ_are_named_the_missing_too():
    environment.same_versions({"torch": "1"}, {"torch": "1", "numpy": "2"}, "it has")
    with pytest.raises(
        rk.RequestError,
        match=(
            r"it has other versions \(torch 1 → 2, xformers 3 → None\): install those, or use a new"
            r" folder"
        ),
    ):
        environment.same_versions({"torch": "1", "xformers": "3"}, {"torch": "2"}, "it has")
