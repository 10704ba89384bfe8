"""The pages of nights in a real browser: no request, no error, nothing that runs, no scrolling sideways."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Browser
from made_nights import VECTOR, made_scenario, night, nights
from page_run import HOSTILE

from loadgen.nightly.site import write_site

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nine nights and a regression, whose facts are those of an attacker."""
    folder = tmp_path_factory.mktemp("nights")
    scenario = made_scenario(folder / "scenario")
    nights(folder / "store", scenario, VECTOR[:9])
    night(folder / "store", scenario, 90, again=90, described={"versions": {"loadgen": HOSTILE}})
    return write_site(folder / "store").parent


def pages(site: Path) -> list[Path]:
    return [site / "index.html", *site.glob("series/*.html")]


def test_they_open_from_files_without_a_network_an_error_or_a_request(browser: Browser, site: Path) -> None:
    for page in pages(site):
        browser.open(page)
        assert browser.messages() == []
        assert browser.requests() == [page.as_uri()]
        assert browser.run("return document.querySelectorAll('svg .mark').length") >= 10


def test_what_an_attacker_wrote_is_text(browser: Browser, site: Path) -> None:
    for page in pages(site):
        browser.open(page)
        assert browser.run("return document.querySelectorAll('img, script').length") == 0
        assert "<img src=x onerror=" in browser.run("return document.body.textContent")
        assert browser.driver.title != "owned"


@pytest.mark.parametrize("width", [400, 1600])
def test_they_do_not_scroll_sideways(browser: Browser, site: Path, width: int) -> None:
    for page in pages(site):
        browser.open(page, width=width)
        assert browser.run("return document.documentElement.scrollWidth") <= width


def test_a_click_on_a_night_leads_to_its_report(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    browser.run("document.querySelector('svg a .mark.regression').closest('a').dispatchEvent(new MouseEvent('click'))")
    assert "/runs/" in browser.driver.current_url
    assert "made" in browser.driver.title
