"""Eight kills of a rehearsal sweep (`make torture`: a hundred), three quarters in-process and the
rest with two Ray workers. In a process of its own, which computes nothing before it forks."""

import subprocess
import sys

import pytest


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_whatever_kills_it_a_resumed_sweep_equals_an_undisturbed_one():
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", "8"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "in-process: 6 kills" in done.stdout and "two Ray workers: 2 kills" in done.stdout
