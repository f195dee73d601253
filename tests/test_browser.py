"""What the tests of pages lean on: a browser that notices what must not happen."""

import pytest

from tests import browser


@pytest.mark.browser
def test_it_notices_scripts_of_prompts_and_addresses_outside():
    with browser.opened() as (page, faults):
        for text in browser.HOSTILE:
            page.set_content(f"<p>{text}</p>", wait_until="load")
            page.wait_for_function("window.ran === 1")
            assert browser.ran(page)
            page.goto("about:blank")
            assert not browser.ran(page)
        faults.clear()
        page.set_content("<script>console.error('oh'); nothing()</script>")
        page.set_content("<img src=http://example.com/a.png>")
        page.wait_for_function("document.images[0].complete")
        assert [fault.split()[0] for fault in faults[:3]] == ["oh", "nothing", "asks"]


@pytest.mark.parametrize("ci", [None, "true"])
def test_without_chromium_a_test_is_skipped_and_under_ci_it_fails(monkeypatch, ci):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", ci)
    outcome = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(outcome, match="apt-get install chromium"), browser.opened():
        pass
