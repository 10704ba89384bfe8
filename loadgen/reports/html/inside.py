"""The inside of cells: charts of their requests, for as many cells as the page has room for.

In: a `RunReport`, whose folder has the request lines. Out: a `Detail` for each cell that is shown, in the run's order.
Those that matter most come first where there is no room for all: the page stays a file that can be mailed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.errors import StoreError
from loadgen.plots import groups, requests
from loadgen.plots.chart import Chart
from loadgen.plots.choice import by_weight
from loadgen.plots.kinds import ttft_limits
from loadgen.plots.trace import Trace, read_trace
from loadgen.reports.html.figures import Figure, data_block, figure
from loadgen.store import Run

MOST_REPEATS = 6
"""Repeats of a target of which TTFT and percentiles are read."""


@dataclass(frozen=True)
class Detail:
    """The figures of one cell."""

    id: str
    name: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Inside:
    """The cells that are shown, and what is said of the others."""

    details: Sequence[Detail] = ()
    lines: Sequence[str] = ()


def inside(report: RunReport, room: int) -> Inside:
    """Cells by their weight, until there is no room (bytes of the page) for one more; the first one always has it."""
    found: dict[int, Detail] = {}
    damaged: list[str] = []
    for position in by_weight(report):
        detail = _detail(report, position, damaged)
        if detail is None:
            continue
        room -= sum(_bytes(one) for one in detail.figures)
        if room < 0 and found:
            break
        found[position] = detail
    shown = [found[position] for position in sorted(found)]
    measured = sum(any(target.summaries for target in cell.targets) for cell in report.cells)
    if shown and len(shown) < measured:
        damaged.append(f"{len(shown)} of {measured} cells are drawn here, those that matter most.")
    return Inside(shown, damaged)


def _bytes(shown: Figure) -> int:
    """What a figure takes in the page, near enough: its data, and its table with the tags."""
    return len(data_block([shown])) + sum(len(text) + 12 for row in shown.table.rows for text in row) + 1500


def _detail(report: RunReport, position: int, damaged: list[str]) -> Detail | None:
    """None for a cell of which no request was kept."""
    cell = report.cells[position]
    traces = [_traces(report, cell, target, damaged) for target in cell.targets]
    name = f"cell-{position + 1}"
    figures: list[Figure] = []
    for kind, chart in _charts(report, [one for one in traces if one]):
        said = any(one.chart.reading == chart.reading for one in figures)  # once for all targets is enough
        figures.append(figure(f"{name}-{kind}", chart, "" if said else None))
    return Detail(name, cell.id, figures) if figures else None


def _traces(report: RunReport, cell: ReportCell, target: TargetCell, damaged: list[str]) -> list[Trace]:
    """Of the valid repeats; where there is none, of those that are there."""
    results = [one for one in target.results if one is not None]
    valid = [one for one in results if one.summary.state == "ok"] or results
    found = []
    for result in valid[:MOST_REPEATS]:
        folder = Run(Path(report.path)).repeat(cell.id, target.target, result.rep).folder
        try:
            trace = read_trace(folder / f"attempt-{result.attempt}", result)
        except StoreError as error:
            damaged.append(f"{cell.id}, {target.target}, repeat {result.rep} is not drawn: {error}")
            continue
        if len(trace.columns["send"]):
            found.append(trace)
    return found


def _charts(report: RunReport, traces: Sequence[Sequence[Trace]]) -> Iterator[tuple[str, Chart]]:
    """Of all repeats what is drawn by repeat, of one the rest: the first that every target has, so that they were
    measured side by side. ``traces`` are by target, none is empty."""
    every = [trace for of_target in traces for trace in of_target]
    shared = set.intersection(*({trace.rep for trace in of_target} for of_target in traces)) if traces else set()
    first = [next((one for one in of_target if one.rep in shared), of_target[0]) for of_target in traces]
    colours = groups.laid(report).colours
    charts: list[tuple[str, Chart | None]] = [
        ("ttft", requests.ttft(every, colours, ttft_limits(report))),
        ("percentiles", requests.percentiles(every, colours)),
        ("timeline", requests.timeline(first, colours)),
    ]
    charts += [(f"gaps-{number}", requests.gaps(trace)) for number, trace in enumerate(first, 1)]
    charts += [(f"gantt-{number}", requests.gantt(trace)) for number, trace in enumerate(first, 1)]
    yield from ((name, chart) for name, chart in charts if chart is not None)
