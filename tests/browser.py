"""A headless Chromium: the system's own, driven by playwright's Python package."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")
# Runs in a page if its text ever becomes markup or code: `ran(page)` then says so.
HOSTILE = (
    "<script>window.ran = 1</script> a red cube",
    'a blue sphere <img src=x onerror="window.ran = 1"><svg onload="window.ran = 1">',
    "a cone </script><script>window.ran = 1</script> ' \" ${window.ran = 1} {{ 7 * 7 }}",
)


def lacking() -> str:
    """Why no test can drive a browser here; "" where one can."""
    if not any(map(shutil.which, NAMES)):
        return "no Chromium on this machine: apt-get install chromium"
    if find_spec("playwright") is None:
        return "no playwright in this environment: pip install playwright"
    return ""


@contextmanager
def opened(width: int = 1100, height: int = 900) -> Iterator[tuple[Any, list[str]]]:
    """(an empty page, what went wrong in it so far: errors of scripts, lines on its console that
    are errors, and addresses outside of this machine, which are not fetched).

    Skips the test where there is no browser; under CI, which installs one, it fails instead.
    """
    if reason := lacking():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    faults: list[str] = []

    def fetch(route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            faults.append(f"asks for {route.request.url}")
            route.abort()

    root = ["--no-sandbox"] * (os.geteuid() == 0)  # Chromium's sandbox refuses root
    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=root)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        page.route("**/*", fetch)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append("a dialog"), dialog.dismiss()))
        page.on("console", lambda line: line.type == "error" and faults.append(line.text))
        try:
            yield page, faults
        except BaseException as error:
            picture = Path(tempfile.mkdtemp(prefix="browser-")) / "failed.png"
            page.screenshot(path=picture)
            error.add_note(f"The page then: {picture}; its faults: {faults}")
            raise
        finally:
            browser.close()


def ran(page: Any) -> bool:
    """Whether a text of HOSTILE was run."""
    return page.evaluate("window.ran !== undefined")
