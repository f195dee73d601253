import sys

import torch

from realkit import measure


def test_memory_is_of_this_process_and_unknown_where_the_system_does_not_say(monkeypatch):
    assert measure.memory(torch.device("cpu"))["peak_ram_gib"] > 0.05
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert measure.memory(torch.device("cpu"))["peak_ram_gib"] is None
