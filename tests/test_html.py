"""report.html as text: what is in it and what never is. What a browser makes of it is tested in tests/browser."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import subprocess
from pathlib import Path

import pytest
from cli_runner import command
from made_runs import made_run, scenario_of
from page_run import HOSTILE, SCENARIO, made

from loadgen.assemble import RunReport, assemble
from loadgen.plots.chart import Axis, Bars, Heat, Lines, Panel, Phase, Series
from loadgen.reports import html as page
from loadgen.reports.html.figures import data_block, figure
from loadgen.reports.html.inside import Inside, details
from loadgen.reports.html.tables import MOST_ROWS, table
from loadgen.reports.html.words import Verdicted, compare
from loadgen.scenario import expand
from loadgen.store import Run

VENDORED = Path(page.__file__).parent
ECHARTS = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
"""Of dist/echarts.min.js in the npm package echarts 6.1.0."""


MANY = "matrix: {concurrency: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}\nrepeats: 3\ncomparison: {baseline: a}\n"

SERIES = Series(
    name="s", points=((1.0, 2.0, None, None, None), (2.0, 1 / 3, 0.1, 0.5, None), (3.0, 4.0, None, None, "x"))
)


class Elements(html.parser.HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.raw.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    return made(tmp_path_factory.mktemp("html"))


@pytest.fixture(scope="module")
def text(report: RunReport) -> str:
    return page.render(report)


def test_echarts_is_the_file_that_its_makers_built() -> None:
    assert hashlib.sha256((VENDORED / "echarts.min.js").read_bytes()).hexdigest() == ECHARTS
    assert "Apache License" in (VENDORED / "ECHARTS-LICENSE").read_text()
    assert "Apache Software Foundation" in (VENDORED / "ECHARTS-NOTICE").read_text()
    assert "Copyright 2010" in (VENDORED / "ECHARTS-LICENSE-d3").read_text()


def test_the_policy_names_each_script_and_the_style_by_hash_and_nothing_else(text: str) -> None:
    found = Elements(text)
    (policy,) = [attrs["content"] for tag, attrs in found.tags if tag == "meta" and "http-equiv" in attrs]
    hashes = {base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode() for raw in found.raw}
    named = set(re.findall(r"'sha256-([^']+)'", policy or ""))
    assert len(named) == 4
    assert named < hashes, "the other is the block of data, which does not run"
    assert re.sub(r"'sha256-[^']+'", "H", policy or "") == (
        "default-src 'none'; script-src H H H; style-src H; base-uri 'none'; form-action 'none'"
    )


def test_nothing_in_the_page_points_outside_of_it_or_runs_from_an_attribute(text: str) -> None:
    for tag, attrs in Elements(text).tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form"), attrs
        assert not any(name.startswith("on") or name == "src" or name == "style" for name in attrs), (tag, attrs)
        assert attrs.get("href", "#").startswith("#")


def test_hostile_names_are_text_and_without_control_characters(text: str) -> None:
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;img src=x" in text
    assert not {"\u2028", "\u202e", "\u001b"} & set(text)


def test_no_text_can_end_the_block_of_data_or_be_lost_in_it() -> None:
    chart = Lines(title=HOSTILE, reading="", x=Axis(name=HOSTILE), panels=(Panel(y=Axis(name="y"), series=(SERIES,)),))
    block = data_block([figure("one", chart)])
    assert not set("<>&\u2028\u2029") & set(block)
    (read,) = json.loads(block)
    assert (read["id"], read["kind"], read["title"], read["x"]["name"]) == ("one", "lines", HOSTILE, HOSTILE)
    points = read["panels"][0]["series"][0]["points"]
    assert points == [[1.0, 2.0], [2.0, 0.333333, 0.1, 0.5], [3.0, 4.0, None, None, "x"]]


def test_the_page_is_under_2_mb_and_without_charts_under_100_kb(text: str, report: RunReport) -> None:
    assert len(text.encode()) < 2_000_000
    plain = page.render(report, charts=False)
    assert len(plain.encode()) < 100_000
    assert not any(tag == "script" for tag, _ in Elements(plain).tags)
    policies = [
        attrs["content"] or "" for tag, attrs in Elements(plain).tags if tag == "meta" and "http-equiv" in attrs
    ]
    assert "script-src 'none';" in policies[0]


def test_the_first_screen_is_verdicts_cells_and_doubts(text: str) -> None:
    places = [text.index(f'<section id="{name}">') for name in ("verdicts", "cells", "doubts", "charts", "inside")]
    assert places == sorted(places)
    assert "moe serves 0.84 times the output tok/s of dense at concurrency 16" in text
    assert "falls behind dense in output tok/s between concurrency 4 and 16" in text


def test_where_there_is_no_room_for_all_cells_it_is_said_and_those_that_matter_stay(report: RunReport) -> None:
    shown = details(report, room=1)
    assert [detail.name for detail in shown.details] == ["concurrency=1"], "the largest difference"
    assert shown.lines == ("1 of 3 cells are drawn here, those that matter most.",)
    assert len(details(report, room=1_000_000).details) == 3


def test_no_more_requests_are_read_than_a_page_may_cost(report: RunReport) -> None:
    most = max(len(target.summaries) and target.summaries[0].requests for target in report.cells[0].targets)
    shown = details(report, room=1_000_000, requests=2 * most)
    assert [detail.name for detail in shown.details] == ["concurrency=1"], "one repeat of each target, then no more"
    assert shown.lines[0].startswith("Not every repeat is drawn")
    ttft = next(one.chart for one in shown.details[0].figures if one.id.endswith("ttft"))
    assert isinstance(ttft, Lines)
    assert len(ttft.panels[0].series) == 2
    assert details(report, room=1_000_000, requests=1) == Inside([], shown.lines[:1])


def test_damaged_request_lines_cost_their_repeat_and_are_named(tmp_path: Path) -> None:
    report = made(tmp_path, SCENARIO.replace("[1, 4, 16]", "[1]"))
    (lines,) = Path(report.path).glob("cells/*/moe/rep-002/attempt-1/requests-*")
    lines.write_bytes(b'{"v": broken}\n')
    text = page.render(assemble(Run(Path(report.path))))
    assert "concurrency=1, moe, repeat 2 is not drawn: " in text
    assert 'data-chart="cell-1-ttft"' in text


def test_a_run_whose_requests_are_gone_has_its_tables_and_the_charts_of_its_cells(tmp_path: Path) -> None:
    report = made(tmp_path, SCENARIO.replace("[1, 4, 16]", "[1, 4]"))
    for lines in Path(report.path).glob("cells/*/*/*/*/requests-*"):
        lines.unlink()
    text = page.render(report)
    assert 'data-chart="ratio"' in text
    assert '<section id="inside">' not in text


def test_a_table_that_is_too_long_for_the_page_counts_what_it_leaves_out() -> None:
    made_table = table("c", [["a"], *([str(i)] for i in range(MOST_ROWS + 7))])
    assert len(made_table.rows) == MOST_ROWS
    assert made_table.more.startswith("7 more rows")


def test_behind_a_heat_map_stands_how_much_fell_into_each_row() -> None:
    heat = Heat(
        title="t", reading="", x=Axis(name="s", scale="names", names=("0", "1")),
        y=Axis(name="ms", scale="names", names=("1", "10")), cells=((0, 0, 3), (1, 0, 5), (1, 1, 2)), count="gaps",
    )  # fmt: skip
    assert figure("f", heat).table.rows == [["1", "8", "80 %", "5 at 1"], ["10", "2", "20 %", "2 at 1"]]


def test_behind_a_gantt_stands_how_long_each_phase_took() -> None:
    phases = (
        Phase(name="prefill", spans=((0, 1.0, 1.5), (1, 2.0, 2.25))),
        Phase(name="decode", spans=((0, 1.5, 4.0),)),
    )
    shown = figure("f", Bars(title="t", reading="", x=Axis(name="s"), y=Axis(name="request"), phases=phases)).table
    assert shown.head == ["request", "from (s)", "prefill s", "decode s"]
    assert shown.rows == [["1", "1.000", "0.500", "2.500"], ["2", "2.000", "0.250", "-"]]


def test_the_page_is_asked_for_with_and_without_charts(report: RunReport, text: str) -> None:
    def asked(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command("report", report.path, *more), capture_output=True, text=True, encoding="utf-8")

    assert asked("--format", "html").stdout == text
    assert asked("--format", "html", "--no-charts").stdout == page.render(report, charts=False)
    refused = asked("--no-charts")
    assert (refused.returncode, refused.stderr) == (
        2,
        "loadgen: --no-charts: goes with --format html, and with nothing else.\n",
    )


def test_of_many_cells_the_decided_ones_with_the_greatest_differences_are_told_first(tmp_path: Path) -> None:
    """Twelve cells; b is 3 % faster in the even ones, half as fast in the ninth and the same in the others."""
    scenario = scenario_of(tmp_path, ("a", "b"), MANY)
    cells = [cell.id for cell in expand(scenario)]
    speeds = {cell: {9: 0.5}.get(i, 1.03 if i % 2 == 0 else 1.0) for i, cell in enumerate(cells, 1)}
    values = {cell: [100.0 * speed, 100.2 * speed, 99.9 * speed] for cell, speed in speeds.items()}
    run = made_run(tmp_path / "store", scenario, {"a": [100.0, 100.2, 99.9], "b": values})
    told = compare(assemble(run).comparisons[0])
    assert len(told.first) + len(told.rest) == 12
    assert told.first[0] == Verdicted(told.first[0].text, "worse")
    assert "b serves 0.500 times" in told.first[0].text
    text = page.render(assemble(run), charts=False)
    assert text.index('<section id="doubts">') < text.index('<section id="cells">'), "a table of 24 rows is long"
