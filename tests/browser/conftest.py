"""A real Chromium without a window and without a network. Tests that need one are skipped where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_run import made

from loadgen.assemble import RunReport
from loadgen.reports import html


class Browser:
    """A page in Chromium, and what it did: messages on its console, requests that it made."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Opens a file with the network cut off. What was logged before is forgotten."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        self.messages(), self.requests()
        self.driver.get(path.as_uri())

    def command(self, name: str, **words: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, words)

    def run(self, script: str, *words: Any) -> Any:
        """The value of a JavaScript function's body."""
        return self.driver.execute_script(script, *words)

    def messages(self) -> list[str]:
        """What stands on the console since the last call, violations of the Content-Security-Policy among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The URLs that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def choose(self, cell: str) -> None:
        """Chooses a cell in the list of those whose inside can be seen."""
        self.run(
            "const list = document.getElementById('which'); list.value = arguments[0];"
            "list.dispatchEvent(new Event('change'))",
            cell,
        )

    def chart(self, name: str) -> Any:
        """The option that a chart was drawn with, as ECharts holds it; None for one that is not drawn."""
        return self.run(
            "const chart = echarts.getInstanceByDom(document.querySelector(`[data-chart='${arguments[0]}']`));"
            "return chart ? JSON.parse(JSON.stringify(chart.getOption())) : null",
            name,
        )


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
