"""What is drawn is what was recorded: each test reads a chart's series back from the page and counts the records."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from page_run import TOKENS, records

from loadgen.assemble import RunReport

pytestmark = pytest.mark.browser

CELL = "cell-2"
CONCURRENCY = 4


@pytest.fixture(scope="module", autouse=True)
def opened(browser: Browser, page: Path) -> None:
    """The page, with the middle cell chosen."""
    browser.open(page)
    browser.choose(CELL)


def named(chart: dict[str, Any], name: str, kind: str = "line") -> list[dict[str, Any]]:
    return [one for one in chart["series"] if one["name"] == name and one["type"] == kind]


def test_every_figure_has_a_chart_that_is_drawn_and_a_table(browser: Browser) -> None:
    found = browser.run(
        "return [...document.querySelectorAll('figure')].filter((one) => one.offsetParent !== null).map((one) =>"
        " [one.querySelector('[data-chart] svg') !== null, one.querySelectorAll('table').length])"
    )
    assert found == [[True, 1]] * (3 + 7)


def test_ratios_have_the_intervals_of_the_comparison(browser: Browser, report: RunReport) -> None:
    chart = browser.chart("ratio")
    ratios = [cell.primary.ratio for cell in report.comparisons[0].cells]
    points, bars = named(chart, "moe / dense")[0]["data"], named(chart, "moe / dense", "custom")[0]["data"]
    assert [point[0] for point in points] == [1, 4, 16]
    assert [point[1] for point in points] == pytest.approx([one.value for one in ratios if one], rel=1e-5)
    found = [end for bar in bars for end in bar[1:]]
    assert found == pytest.approx([end for one in ratios if one for end in (one.low, one.high)], rel=1e-5)
    assert "markArea" in chart["series"][0], "the crossing between 4 and 16"


def test_throughput_is_the_mean_over_the_repeats_with_its_load_as_label(browser: Browser, report: RunReport) -> None:
    points = named(browser.chart("pareto"), "moe")[0]["data"]
    for point, cell in zip(points, report.cells, strict=True):
        target = next(one for one in cell.targets if one.target == "moe")
        values = [one.output_tok_s for one in target.valid]
        assert point[1] == pytest.approx(sum(values) / 3, rel=1e-5)
        assert point[4] == str(cell.axes["concurrency"])


def test_the_limit_of_the_objective_is_drawn_across_the_latencies(browser: Browser) -> None:
    assert any(
        line["name"] == "p50 ttft < 60 ms" and line["yAxis"] == 60
        for one in browser.chart("latency")["series"]
        for line in one.get("markLine", {}).get("data", [])
    )


def test_the_distribution_says_of_each_repeat_how_many_had_their_first_token_by_when(browser: Browser) -> None:
    lines = named(browser.chart(f"{CELL}-ttft"), "moe")
    assert len(lines) == 3
    for rep, line in enumerate(lines, 1):
        measured = [r.ttft_s for r in records("moe", CONCURRENCY, rep) if r.phase == "measure" and r.ttft_s]
        for point in line["data"][1:]:
            assert sum(ttft <= point[0] / 1e3 + 1e-9 for ttft in measured) / len(measured) >= point[1] - 1e-5
            assert sum(ttft < point[0] / 1e3 - 1e-9 for ttft in measured) / len(measured) <= point[1]


def test_percentiles_are_nearest_ranks_and_their_mean_over_the_repeats(browser: Browser) -> None:
    points = {round(one[0], 3): one for one in named(browser.chart(f"{CELL}-percentiles"), "dense")[0]["data"]}
    worst = []
    for rep in (1, 2, 3):
        found = sorted(r.ttft_s for r in records("dense", CONCURRENCY, rep) if r.phase == "measure" and r.ttft_s)
        worst.append(found[-(-len(found) * 9 // 10) - 1])
    assert points[1.0][1] == pytest.approx(1e3 * sum(worst) / 3, rel=1e-5), "90 % stands at one nine"


def test_every_gap_is_counted_once(browser: Browser) -> None:
    cells = browser.chart(f"{CELL}-gaps-1")["series"][0]["data"]
    ok = [r for r in records("dense", CONCURRENCY, 1) if r.status == "ok"]
    assert sum(count for _, _, count in cells) == len(ok) * (TOKENS - 1)


def test_the_time_line_holds_every_second_in_flight_and_every_token(browser: Browser) -> None:
    chart = browser.chart(f"{CELL}-timeline")
    panels = [axis["name"] for axis in chart["yAxis"]]
    lines = {panels[one["yAxisIndex"]]: one["data"] for one in named(chart, "dense")}
    every = list(records("dense", CONCURRENCY, 1))
    width = lines["in flight"][1][0] - lines["in flight"][0][0]
    in_flight = sum((r.t_end or 0) - (r.t_send or 0) for r in every)
    assert sum(point[1] for point in lines["in flight"]) * width == pytest.approx(in_flight, rel=1e-3)
    tokens = sum(TOKENS for r in every if r.status == "ok")
    assert sum(point[1] for point in lines["output tok/s"]) * width == pytest.approx(tokens, rel=1e-3)


def test_each_bar_is_a_request_from_its_send_to_its_last_token(browser: Browser) -> None:
    phases = {one["name"]: one["data"] for one in browser.chart(f"{CELL}-gantt-1")["series"]}
    every = sorted(records("dense", CONCURRENCY, 1), key=lambda r: r.t_send or 0)
    assert 250 < len(phases["prefill"]) <= 300
    first, last = phases["prefill"][0], phases["decode"][0]
    assert first[1:] == pytest.approx([every[0].t_send, every[0].t_first], rel=1e-4)
    assert last[1:] == pytest.approx([every[0].t_first, every[0].t_last], rel=1e-4)
    assert all(start <= end for spans in phases.values() for _, start, end in spans)


def test_lines_are_straight_and_no_series_is_longer_than_2000_points(browser: Browser) -> None:
    names = browser.run("return [...document.querySelectorAll('[data-chart]')].map((one) => one.dataset.chart)")
    drawn = [chart for name in names if (chart := browser.chart(name)) is not None]
    series = list(itertools.chain.from_iterable(chart["series"] for chart in drawn))
    assert len(series) > 40
    assert not any(one.get("smooth") for one in series)
    assert max(len(one["data"]) for one in series) <= 2000
