"""The chart of a search: every load with its limits, what is left between them, and the path that led there."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import made_run, scenario_of
from simulated_search import MAX_RATE, Simulated

from loadgen.assemble import RunReport, assemble
from loadgen.errors import UsageError
from loadgen.plots import kinds
from loadgen.plots.chart import Lines, Panel
from loadgen.plots.draw import figure_of
from loadgen.plots.search import search, searches
from loadgen.reports import html
from loadgen.search.verdict import Held
from loadgen.searched import Looked


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """Two targets searched for their largest rate."""
    made = Simulated(tmp_path_factory.mktemp("searched"))
    made.follow()
    return made.report()


def chart(report: RunReport, number: int = 0) -> Lines:
    return list(searches(report))[number]


def panel(lines: Lines, name: str) -> Panel:
    return next(one for one in lines.panels if one.y.name == name)


def last_of(probes: tuple[Looked, ...], text: str) -> dict[float, Held]:
    """By load: what all of its windows say of an objective."""
    return {probe.load: held for probe in probes if probe.trial for held in probe.trial.objectives if held.text == text}


def test_every_load_stands_at_what_all_of_its_windows_say_with_the_limit_across(report: RunReport) -> None:
    found = panel(chart(report), "p95 TTFT ms")
    assert [(one.name, one.y) for one in found.levels] == [("p95 ttft < 0.5 s", 500.0)]
    points = {point[0]: point for one in found.series for point in one.points}
    held = last_of(report.searches[0].probes, "p95 ttft < 0.5 s")
    known = {load: one for load, one in held.items() if one.value is not None}
    assert points.keys() == known.keys()
    for load, one in known.items():
        assert points[load][1] == pytest.approx((one.value or 0) * 1e3)
        assert points[load][2:4] == pytest.approx([end * 1e3 for end in one.interval] if one.interval else (None, None))


def test_loads_are_marked_by_what_is_said_of_them(report: RunReport) -> None:
    found, probes = panel(chart(report), "p95 TTFT ms"), report.searches[0].probes
    marked = {point[0]: one.name for one in found.series for point in one.points}
    for load, word in marked.items():
        last = [probe for probe in probes if probe.load == load][-1]
        assert last.trial is not None
        assert word.startswith(str(last.trial.verdict))
    assert {"met", "missed"} <= set(marked.values())
    assert len({one.colour for one in found.series}) == len(found.series)


def test_what_is_left_of_the_bracket_is_grey_in_every_panel(report: RunReport) -> None:
    answer = report.searches[0].answer
    assert answer is not None
    for one in chart(report).panels:
        assert [(band.low, band.high) for band in one.bands] == [(answer.holds, answer.blocks)]


def test_the_last_panel_is_the_path_probe_by_probe(report: RunReport) -> None:
    path, *marked = chart(report).panels[-1].series
    assert [point[:2] for point in path.points] == [(one.load, one.number) for one in report.searches[0].probes]
    assert sum(len(one.points) for one in marked) == len(path.points)


def test_shares_are_in_per_cent_and_goodput_is_the_share_that_is_good(report: RunReport) -> None:
    goodput = panel(chart(report), "goodput %")
    assert [one.y for one in goodput.levels] == [90.0]
    held = last_of(report.searches[0].probes, "goodput > 90 %")
    for x, y, low, high, _ in (point for one in goodput.series for point in one.points):
        assert y == pytest.approx(100 * (1 - (held[x].share or 0.0)))
        assert low is not None
        assert high is not None
        assert 0 <= low <= y <= high <= 100


def test_an_objective_that_no_request_missed_has_no_panel(report: RunReport) -> None:
    assert [one.y.name for one in chart(report).panels] == ["p95 TTFT ms", "goodput %", "probe"]


def test_windows_that_are_too_small_for_the_percentile_show_what_missed_it(tmp_path: Path) -> None:
    made = Simulated(tmp_path, "{find: max_rate, start: 4, probes: 2, most: 8}")
    made.follow()
    found = panel(chart(made.report()), "% that miss p95 TTFT")
    assert [(one.name, one.y) for one in found.levels] == [
        ("p95 ttft < 0.5 s", 5.0),
        ("all that was tried holds", None),
    ]
    assert [point[:2] for one in found.series for point in one.points] == [(4.0, 0.0), (8.0, 0.0)]


def test_a_probe_that_says_nothing_is_in_the_path_alone(tmp_path: Path) -> None:
    made = Simulated(tmp_path, MAX_RATE)
    made.late_from = 80
    made.follow()
    lines = chart(made.report())
    assert {point[0] for one in lines.panels[-1].series if one.name == "INVALID" for point in one.points} == {80.0}
    assert not any(one.name == "INVALID" for panel in lines.panels[:-1] for one in panel.series)


def test_a_search_that_has_measured_nothing_yet_has_no_chart(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    made.follow(most=1)
    report = made.report()
    assert [search(one) is None for one in report.searches] == [False, True]
    assert len(list(searches(report))) == 1


def test_a_sweep_shows_its_knee_its_maximum_and_both_kinds_of_loops(tmp_path: Path) -> None:
    made = Simulated(tmp_path, "sweep")
    made.follow()
    report = made.report()
    latency, answered, _ = chart(report).panels
    swept = report.searches[0].swept
    assert swept is not None
    assert swept.knee is not None
    assert [(band.low, band.high) for band in latency.bands] == [(swept.knee.low, swept.knee.high)]
    assert [level.x for level in latency.levels] == [swept.maximum]
    opened, closed = answered.series
    steps = [probe for probe in report.searches[0].probes if probe.word == "rate_rps"]
    assert [point[:2] for point in opened.points] == sorted((one.load, one.request_rps) for one in steps)
    assert [point[4] for point in closed.points][:3] == ["1", "4", "16"]


def test_the_page_has_a_chart_of_each_search_before_all_others(report: RunReport) -> None:
    page = html.render(report)
    first = [page.index(f'<figure id="{name}"') for name in ("search-1", "search-2", "pareto")]
    assert first == sorted(first)


def test_a_picture_has_every_panel_and_the_path_without_marks(report: RunReport) -> None:
    panels = figure_of(chart(report)).axes
    assert [one.get_ylabel() for one in panels] == ["p95 TTFT ms", "goodput %", "probe"]
    assert panels[-1].lines[0].get_marker() == "None"


def test_a_chart_is_asked_for_by_target(report: RunReport, tmp_path: Path) -> None:
    named = kinds.chart(report, "search", target="b")
    assert named.title == "Search for max_rate: b"
    with pytest.raises(UsageError, match="this run has --cell all --target a; --cell all --target b"):
        kinds.chart(report, "search", target="c")
    plain = assemble(made_run(tmp_path, scenario_of(tmp_path, ("a",)), {"a": [100.0]}))
    with pytest.raises(UsageError, match="this run searched for nothing"):
        kinds.chart(plain, "search")
