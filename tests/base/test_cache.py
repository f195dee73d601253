"""Where the cache lies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from realkit.base.cache import CACHE, cache_root


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home folder of nobody, and no setting of the cache."""
    for name in (CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep caches elsewhere")
def test_the_users_cache_folder_is_the_systems(home, monkeypatch):
    assert cache_root() == home / ".cache" / "realkit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "other"))
    assert cache_root() == home / "other" / "realkit"


def test_a_cache_of_an_earlier_version_is_still_used(home, monkeypatch):
    monkeypatch.setattr(
        "platformdirs.user_cache_path", lambda *_, **__: home / "Library" / "Caches" / "realkit"
    )  # as on macOS
    assert cache_root() == home / "Library" / "Caches" / "realkit"
    (home / ".cache" / "realkit").mkdir(parents=True)
    assert cache_root() == home / ".cache" / "realkit"


def test_the_environment_comes_first(home, monkeypatch):
    (home / ".cache" / "realkit").mkdir(parents=True)
    monkeypatch.setenv(CACHE, "~/mine")
    assert cache_root() == home / "mine"
