"""A real Chromium without a window and without a network. Tests that need one are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser
from page_run import made

from loadgen.assemble import RunReport
from loadgen.reports import html


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium with its driver, started once."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver here; scripts/test-browser installs Debian's where it may")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """A made-up run of two targets at three concurrencies, with hostile names."""
    return made(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def page(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report.html."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(report))
    return path
