"""The path of a search as the page draws it: its limits, its bracket, every load, in windows of any width."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Browser
from simulated_search import Simulated

from loadgen.assemble import RunReport
from loadgen.reports import html

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    made = Simulated(tmp_path_factory.mktemp("searched"))
    made.follow()
    return made.report()


@pytest.fixture(scope="module")
def shown(searched: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(searched))
    return path


def test_limits_the_bracket_and_every_load_are_drawn(browser: Browser, shown: Path, searched: RunReport) -> None:
    browser.open(shown)
    chart, one = browser.chart("search-1"), searched.searches[0]
    assert one.answer is not None
    lines = [line for part in chart["series"] for line in part.get("markLine", {}).get("data", [])]
    assert {(line["name"], line.get("yAxis")) for line in lines} >= {("p95 ttft < 0.5 s", 500), ("goodput > 90 %", 90)}
    (band,) = next(part["markArea"]["data"] for part in chart["series"] if part.get("markArea", {}).get("data"))
    assert [end["xAxis"] for end in band] == [one.answer.holds, one.answer.blocks]
    (path,) = [part["data"] for part in chart["series"] if part["name"] == "path"]
    assert [point[:2] for point in path] == [[probe.load, probe.number] for probe in one.probes]
    assert browser.messages() == []


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_window_of_any_width(browser: Browser, shown: Path, width: int, scheme: str) -> None:
    browser.open(shown, width, scheme)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    inside, place = browser.run(
        "const place = document.querySelector(\"[data-chart='search-1']\");"
        "return [place.querySelector('svg').clientWidth, place.clientWidth]"
    )
    assert inside == place
