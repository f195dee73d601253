"""Hostile inputs, the same each time: each is read, or refused in one line, within seconds.
`python -m tests.boundaries N` reads more."""

import os

import pytest

from tests import boundaries

EACH = 50
CASES = boundaries.boundaries()


@pytest.fixture
def place(tmp_path):
    before = dict(os.environ)
    boundaries.prepare(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", sorted(CASES))
def test_hostile_inputs_are_read_or_refused(name, place):
    boundary = CASES[name]
    boundaries.examine(boundary, place, EACH, random=False)
    assert not boundary.faults
    assert boundary.counts["read"] + boundary.counts["refused"] >= EACH // 2
