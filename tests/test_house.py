"""The house rules that `python -m tests.house` counts."""

import pytest

from tests import house

VALUES, COUNT = house.figures()


@pytest.mark.parametrize("name", house.MOST)
def test_a_figure_is_within_its_limit(name):
    assert VALUES.get(name, 0) <= house.MOST[name], COUNT.places.get(name, [])[:8]


def test_each_wing_has_a_readme_that_is_read_to_its_end():
    wings = {path.parent.name for path in (house.ROOT / "realkit").glob("*/__init__.py")}
    readmes = {
        path.parent.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (house.ROOT / "realkit").glob("*/README.md")
    }
    assert readmes.keys() == wings
    assert max(readmes.values()) <= house.WING_README_LINES
