"""The course of a long repeat as the page draws it: broken where nothing is known, over one time axis."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from chromium import Browser
from page_run import made

from loadgen.long.intervals import Interval
from loadgen.long.over_time import OverTime
from loadgen.reports import html
from loadgen.summary import Window

pytestmark = pytest.mark.browser

P50S = (None, 0.05, None, None, 0.06, 0.07, None, None)
"""Of eight intervals of 10 s: the second stands alone, and nothing is known of the last two."""


@pytest.fixture(scope="module")
def chart(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gaps")
    intervals = [
        Interval(start_s=10.0 * i, length_s=10.0, output_tok_s=100.0 + i, ttft_p50_s=p50) for i, p50 in enumerate(P50S)
    ]
    course = OverTime(
        cell="concurrency=1", target="dense", rep=1, attempt=1, window=Window(10, 80), ended=True,
        intervals=tuple(intervals), drifts=(),
    )  # fmt: skip
    page = folder / "report.html"
    page.write_text(html.render(msgspec.structs.replace(made(folder), over_time=(course,))))
    browser.open(page)
    return browser.chart("over-time-1")


def test_a_gap_has_no_value_and_what_stands_alone_has_a_mark(chart: dict[str, Any]) -> None:
    (line,) = [one for one in chart["series"] if one["name"] == "dense p50"]
    values = [point["value"] if isinstance(point, dict) else point for point in line["data"]]
    heights = [value[1] for value in values]
    assert [height for height in heights if height is not None] == [50, 50, 60, 70], "the lone step is drawn to its end"
    assert None in heights
    alone = next(point for point in line["data"] if isinstance(point, dict) and point["value"][1] == 50)
    assert alone["symbolSize"] > 0
    assert alone.get("symbol") != "none"
    assert line["showSymbol"]


def test_panels_over_one_time_axis_begin_and_end_together(chart: dict[str, Any]) -> None:
    ends = {(axis["min"], axis["max"]) for axis in chart["xAxis"]}
    assert len(chart["xAxis"]) > 1
    assert len(ends) == 1
    ((low, high),) = ends
    assert low == 0
    assert high >= 80 / 60
