"""Charts hold what the records and the tables hold, and of a large run what matters."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import stdev

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_run, scenario_of
from plotted_run import SIZES, TOKENS, grid_scenario, plotted_run

from loadgen.assemble import RunReport, assemble
from loadgen.metrics import late
from loadgen.plots import cells, requests
from loadgen.plots.chart import Axis, Lines, Panel, Series, thinned
from loadgen.plots.choice import MOST_CELLS, cells_that_matter
from loadgen.plots.groups import MOST_LINES
from loadgen.plots.trace import GAP_EDGES_MS, Grid, Trace, read_server, read_trace, trace
from loadgen.record import Record, read_records
from loadgen.repeat import Result
from loadgen.scenario import expand
from loadgen.statistics import floor_of, nearest_rank
from loadgen.store import Run, request_files

COLOURS = {"dense": 0, "moe": 1}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    return plotted_run(tmp_path_factory.mktemp("plotted"))


@pytest.fixture(scope="module")
def repeats(report: RunReport) -> list[tuple[list[Record], Trace]]:
    """The records of every repeat of a cell, and their traces."""
    return [_repeat(report, one) for target in report.cells[3].targets for one in target.results if one is not None]


def _repeat(report: RunReport, result: Result) -> tuple[list[Record], Trace]:
    folder = Run(Path(report.path)).repeat(result.cell, result.target, result.rep).whole()
    assert folder is not None
    return list(read_records(request_files(folder))), read_trace(folder, result)


def lines(chart: object) -> Lines:
    assert isinstance(chart, Lines)
    return chart


def interval(values: Sequence[float]) -> list[float]:
    """The 95 % t interval of three values, by hand: 4.3027 is Student's t with two degrees of freedom."""
    logs = [math.log(value) for value in values]
    half = 4.302653 * stdev(logs) / math.sqrt(3)
    return [math.exp(sum(logs) / 3 - half), math.exp(sum(logs) / 3 + half)]


# Charts as values -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(2, 60))
def test_a_thinned_series_keeps_its_order_its_highest_and_its_lowest(ys: list[float], most: int) -> None:
    points = [(float(i), y, None, None, None) for i, y in enumerate(ys)]
    kept = thinned(points, most)
    assert len(kept) <= most
    assert [point[0] for point in kept] == sorted(point[0] for point in kept)
    assert set(kept) <= set(points)
    assert not ys or {min(ys), max(ys)} <= {point[1] for point in kept}


def test_a_chart_in_json_is_what_the_page_reads() -> None:
    panel = Panel(y=Axis(name="y"), series=(Series(name="a", points=((1.0, 2.0, None, None, None),)),))
    held = msgspec.to_builtins(Lines(title="t", reading="r", x=Axis(name="x", scale="log"), panels=(panel,)))
    assert held["kind"] == "lines"
    assert held["x"] == {"name": "x", "scale": "log"}
    assert list(held["panels"][0]["series"][0]["points"][0]) == [1.0, 2.0, None, None, None]


# Of a whole run -------------------------------------------------------------------------------------------------------


def test_the_pareto_has_the_means_of_the_tables_and_their_t_intervals(report: RunReport) -> None:
    panel = lines(cells.pareto(report)).panels[0]
    place = SIZES.index(4)
    target = report.cells[place].targets[1]
    rates = [found.output_tok_s for found in target.valid if found.output_tok_s is not None]
    point = next(point for one in panel.series if one.name == "moe" for point in one.points if point[4] == "4")
    assert point[1] == pytest.approx(sum(rates) / len(rates))
    assert point[2:4] == pytest.approx(interval(rates))
    assert panel.y.name == "output tok/s per GPU"


def test_ratios_are_those_of_the_comparison_with_a_band_where_they_cross(report: RunReport) -> None:
    panel = lines(cells.ratio(report)).panels[0]
    comparison = report.comparisons[0]
    ratios = [cell.primary.ratio for cell in comparison.cells]
    expected = [(ratio.value, ratio.low, ratio.high) for ratio in ratios if ratio]
    assert [point[1:4] for point in panel.series[0].points] == expected
    along = next(one for one in comparison.crossings if one.axis == "concurrency" and one.measure == comparison.primary)
    assert [(band.low, band.high) for band in panel.bands] == [(one.low, one.high) for one in along.crossings]
    assert panel.bands


def test_the_roofline_has_what_was_measured_above_its_floor(report: RunReport) -> None:
    series = {one.name: one.points for one in lines(cells.roofline(report)).panels[0].series}
    floors = {(one.target, one.batch): one.decode for one in report.floors.cells}
    for target in ("dense", "moe"):
        held = [floors[target, float(size)] for size in SIZES]
        assert [point[1] for point in series[target]] == pytest.approx([one.measured_s * 1e3 for one in held if one])
        assert [point[1] for point in series[f"{target}, floor"]] == [one.floor_s * 1e3 for one in held if one]


def test_latency_has_the_limit_of_the_objective_and_no_p99_below_its_floor(report: RunReport) -> None:
    panel = lines(cells.latency(report)).panels[0]
    assert [(level.name, level.y) for level in panel.levels] == [("p50 ttft < 300 ms", 300.0)]
    assert {series.name for series in panel.series} == {"dense p50", "moe p50"}  # under 60 requests have no p99


def test_one_repeat_has_no_error_bar(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("a", "b"), "matrix: {concurrency: [1, 2]}\ncomparison: {baseline: a}\n")
    run = made_run(tmp_path, scenario, {"a": [100.0], "b": [110.0]})
    points = lines(cells.ratio(assemble(run))).panels[0].series[0].points
    assert [point[1] for point in points] == pytest.approx([1.1, 1.1])
    assert all(point[2] is point[3] is None for point in points)


def test_a_run_without_what_a_chart_needs_has_none(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a",)), {"a": [None]})
    found = assemble(run)
    charts = (cells.pareto, cells.ratio, cells.roofline, cells.latency)
    assert [make(found) for make in charts] == [None, None, None, None]


def test_many_lines_are_cut_to_those_that_matter_each_in_a_colour_and_it_is_said(tmp_path: Path) -> None:
    scenario = grid_scenario(tmp_path, 2, 9)
    same = {cell.id: [100.0, 101.0, 99.0] for cell in expand(scenario)}
    other = next(cell.id for cell in expand(scenario) if cell.axes["input_tokens"] == 8)
    found = assemble(made_run(tmp_path, scenario, {"a": same, "b": same | {other: [300.0, 303.0, 298.0]}}))
    chart = lines(cells.ratio(found))
    names = [series.name for series in chart.panels[0].series]
    assert len(names) == MOST_LINES // 2  # of two targets
    assert "b / a, input_tokens 8" in names
    assert "3 of 9 groups of cells are drawn" in chart.reading
    assert len({series.colour for series in chart.panels[0].series}) == len(names)


def test_of_many_cells_those_that_failed_missed_or_differ_most_are_shown(tmp_path: Path) -> None:
    scenario = grid_scenario(tmp_path, 10, 6)
    every = [cell.id for cell in expand(scenario)]
    base = {cell: [100.0, 101.0, 99.0] for cell in every}
    missed, faster = every[41], every[57]
    other = base | {missed: [40.0, 41.0, 42.0], faster: [180.0, 181.0, 182.0]}
    run = made_run(tmp_path, scenario, {"a": base, "b": other})
    assert {missed, faster} <= {cell.id for cell in cells_that_matter(assemble(run), 3)}
    assert missed in {cell.id for cell in cells_that_matter(assemble(run), 1)}
    shown = [cell.id for cell in cells_that_matter(assemble(run))]
    assert len(shown) == MOST_CELLS
    assert shown == [cell for cell in every if cell in set(shown)]
    assert {every[0], every[-1]} <= set(shown)  # of equal cells the ends of the matrix, and what lies between


# Of the inside of a cell ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 500), max_size=200))
def test_a_grid_that_coarsens_loses_no_count(times: list[float]) -> None:
    grid = Grid(1)
    for part in (times[i : i + 7] for i in range(0, len(times), 7)):
        grid.add(np.array(part, dtype=float), np.zeros(len(part), np.int64))
    width = grid.width_s * 8
    found = grid.over(width, 7000)[0]
    assert found.sum() == len(times)
    for step in np.flatnonzero(found):
        inside = [t for t in times if step * width - 1e-9 <= t <= (step + 1) * width + 1e-9]
        assert len(inside) >= found[step]


def test_the_time_line_has_every_token_and_the_mean_in_flight(repeats: list[tuple[list[Record], Trace]]) -> None:
    records, one = repeats[0]
    chart = lines(requests.timeline([one], COLOURS))
    panels = {panel.y.name: panel.series[0].points for panel in chart.panels}
    width = panels["in flight"][1][0]
    assert sum(point[1] for point in panels["output tok/s"]) * width == pytest.approx(len(records) * TOKENS)
    busy = math.fsum((record.t_end or 0) - (record.t_send or 0) for record in records)
    assert sum(point[1] for point in panels["in flight"]) * width == pytest.approx(busy)
    assert max(point[1] for point in panels["send late ms"]) == pytest.approx(max(late(r) or 0 for r in records) * 1e3)
    assert [(band.low, band.high) for band in chart.panels[0].bands] == [(1.0, 31.0)]


def test_a_step_in_which_nothing_was_sent_has_no_lateness(repeats: list[tuple[list[Record], Trace]]) -> None:
    records, one = repeats[0]
    few = msgspec.structs.replace(one, columns={name: column[:3] for name, column in one.columns.items()})
    chart = lines(requests.timeline([few], COLOURS))
    panels = {panel.y.name: panel.series[0] for panel in chart.panels}
    width = panels["in flight"].points[1][0]
    sends = [record.t_send or 0 for record in sorted(records, key=lambda record: record.t_send or 0)[:3]]
    assert [round(point[0] / width) for point in panels["send late ms"].points] == sorted(
        {int(t / width) for t in sends}
    )
    assert not panels["send late ms"].joined, "a line would go through the steps between"


def test_what_a_server_says_of_itself_is_drawn_below_each_other(tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    said = [{"worker": w, "t": t, "server": {"kv_use": t / 10, "waiting": 3.0}} for t in (1.0, 2.0) for w in (0, 1)]
    path.write_bytes(b"\n".join([*map(msgspec.json.encode, said), b'{"worker": 0, "t": 3.0, "serv']))
    assert read_server(path) == {"kv_use": [(1.0, 0.1), (2.0, 0.2)], "waiting": [(1.0, 3.0), (2.0, 3.0)]}


def test_gaps_are_counted_once_each_in_the_row_of_their_length(repeats: list[tuple[list[Record], Trace]]) -> None:
    records, one = repeats[0]
    chart = requests.gaps(one)
    assert chart is not None
    gaps = [(b - a) / 1e3 for record in records for a, b in itertools.pairwise(record.chunk_us)]
    rows: dict[str, int] = {}
    for _, row, count in chart.cells:
        name = (chart.y.names or ())[row]
        rows[name] = rows.get(name, 0) + count
    for low, high in itertools.pairwise(GAP_EDGES_MS):
        assert rows.get(f"{low:.6g}", 0) == sum(low <= gap < high for gap in gaps)


def test_the_ttft_of_each_repeat_climbs_to_one_through_its_median(repeats: list[tuple[list[Record], Trace]]) -> None:
    chart = lines(requests.ttft([one for _, one in repeats], COLOURS, {"p50 ttft < 300 ms": 0.3}))
    series = chart.panels[0].series
    assert [one.name for one in series] == ["dense"] * 3 + ["moe"] * 3
    assert [(level.name, level.x) for level in chart.panels[0].levels] == [("p50 ttft < 300 ms", 300.0)]
    for (records, _), one in zip(repeats, series, strict=True):
        ok = sorted(r.ttft_s for r in records if r.status == "ok" and r.phase == "measure" and r.ttft_s is not None)
        assert one.points[-1][:2] == pytest.approx((ok[-1] * 1e3, 1.0))
        reached = next(point for point in one.points if point[1] >= 0.5)
        assert reached[0] == pytest.approx(nearest_rank(ok, 0.5) * 1e3)


def test_percentiles_are_means_over_repeats_and_end_at_their_floor(repeats: list[tuple[list[Record], Trace]]) -> None:
    dense = [one for _, one in repeats if one.target == "dense"]
    points = lines(requests.percentiles(dense, COLOURS)).panels[0].series[0].points
    samples = [one.measured("ttft") for one in dense]
    values = [nearest_rank(sample, 0.9) * 1e3 for sample in samples]
    at_90 = next(point for point in points if point[0] == 1.0)
    assert at_90[1] == pytest.approx(sum(values) / 3)
    assert at_90[2:4] == pytest.approx(interval(values))
    smallest = min(map(len, samples))
    last = 1 - 10 ** -points[-1][0]
    assert floor_of(last) <= smallest < floor_of(1 - 10 ** -(points[-1][0] + 0.1))


def test_a_gantt_has_the_parts_of_every_request_one_after_the_other(repeats: list[tuple[list[Record], Trace]]) -> None:
    records, one = repeats[0]
    chart = requests.gantt(one)
    assert chart is not None
    spans = {phase.name: {row: (a, b) for row, a, b in phase.spans} for phase in chart.phases}
    for row, record in enumerate(sorted(records, key=lambda record: record.t_send or 0)):
        assert spans["prefill"][row] == pytest.approx((record.t_send, record.t_first))
        assert spans["decode"][row] == pytest.approx((record.t_first, record.t_last))
        assert spans["queue"][row] == pytest.approx((record.t_sched, record.t_send))


def test_a_gantt_of_many_requests_is_an_even_sample_and_says_so(report: RunReport) -> None:
    chart = requests.gantt(trace(_many(1000, 3), _result(report)))
    assert chart is not None
    decode = next(phase for phase in chart.phases if phase.name == "decode")
    failed = next(phase for phase in chart.phases if phase.bad)
    assert len(decode.spans) + len(failed.spans) == requests.MOST_REQUESTS
    assert len(failed.spans) == pytest.approx(requests.MOST_REQUESTS / 10, rel=0.1)
    assert "300 of 1000 requests are drawn" in chart.reading


def test_a_trace_takes_little_memory_however_long_the_replies_are(report: RunReport) -> None:
    tracemalloc.start()
    try:
        found = trace(_many(4000, 128), _result(report))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.tokens.counts.sum() == pytest.approx(3600 * 128)
    assert peak < 18e6  # the records themselves would take over 20 MB


def _many(count: int, tokens: int) -> Iterator[Record]:
    """Records one after the other, each tenth failed."""
    for seq in range(count):
        sent = 0.01 * seq
        chunks = [1000 + 100_000 * i for i in range(tokens)]
        ok = seq % 10 != 5
        last = sent + chunks[-1] / 1e6
        yield Record(
            seq=seq, session=seq, phase="measure", t_sched=sent, t_send=sent, t_first=sent + 0.001, t_last=last,
            t_end=last, ttft_s=0.001, chunk_us=chunks, out_tok=tokens, status="ok" if ok else "reset",
        )  # fmt: skip


def _result(report: RunReport) -> Result:
    return next(one for one in report.cells[0].targets[0].results if one is not None)
