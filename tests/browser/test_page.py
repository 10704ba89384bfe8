"""The page in a real browser: it needs nobody, runs nothing that is not its own, and reads everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Browser
from page_run import HOSTILE

pytestmark = pytest.mark.browser


def test_it_opens_from_a_file_without_a_network_an_error_or_a_request(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.messages() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("return document.querySelectorAll('[data-chart] svg, [data-chart] canvas').length") > 0


def test_what_an_attacker_wrote_is_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return document.querySelectorAll('img').length") == 0
    seen = browser.run("return document.body.innerText")
    assert "</script><img src=x onerror=\"document.title='owned'\"><!--{{7*7}}" in seen
    assert "owned" not in browser.driver.title.split("made_up")[0]
    assert browser.driver.title.startswith("made_up </script>")
    assert "\u202e" in HOSTILE
    assert "\u202e" not in browser.run("return document.documentElement.outerHTML")


def test_a_script_that_is_not_its_own_does_not_run(browser: Browser, page: Path, tmp_path: Path) -> None:
    """The policy is what stops it: the same line without the policy runs."""
    evil = "<script>document.title = 'owned'</script></body>"
    text = page.read_text()
    guarded, open_door = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(text.replace("</body>", evil))
    open_door.write_text(text.replace("</body>", evil).replace("Content-Security-Policy", "x"))
    browser.open(guarded)
    assert browser.driver.title != "owned"
    assert any("Content Security Policy" in message for message in browser.messages())
    browser.open(open_door)
    assert browser.driver.title == "owned"


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_the_page_does_not_scroll_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.getElementById('cells').getBoundingClientRect().width") > 0.8 * width - 400
