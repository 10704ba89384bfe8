"""The inside of cells: charts of their requests, for as many cells as the page has room for.

In: a `RunReport`, whose folder has the request lines. Out: a `Detail` for each cell that is shown, in the run's order.
Those that matter most come first where there is no room for all: the page stays a file that can be mailed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec

from loadgen.assemble import RunReport, TargetCell
from loadgen.errors import StoreError
from loadgen.plots import groups, requests
from loadgen.plots.chart import Chart
from loadgen.plots.choice import by_weight
from loadgen.plots.kinds import ttft_limits
from loadgen.plots.trace import Trace, read_trace
from loadgen.repeat import Result
from loadgen.reports.html.figures import Figure, data_block, figure
from loadgen.store import Run

MOST_REPEATS = 6
"""Repeats of a target in a cell that are read."""

MOST_REQUESTS = 2_000_000
"""Requests that are read for one page: 40 s of a slow core."""

NOT_ALL = f"Not every repeat is drawn: at most {MOST_REPEATS} of a target, and {MOST_REQUESTS} requests in all."


class Detail(msgspec.Struct, frozen=True):
    """The figures of one cell."""

    id: str
    name: str
    figures: Sequence[Figure]


class Inside(msgspec.Struct, frozen=True):
    """The cells that are shown, and what is said of the others."""

    details: Sequence[Detail] = ()
    lines: Sequence[str] = ()


def details(report: RunReport, room: int, requests: int = MOST_REQUESTS) -> Inside:
    """Cells by their weight, until there is no room (bytes of the page) for one more; the first one always has it.
    At most so many requests are read."""
    found: dict[int, Detail] = {}
    lines: list[str] = []
    for position in by_weight(report):
        targets = report.cells[position].targets
        chosen = {target.target: _chosen(target, requests // len(targets)) for target in targets}
        requests -= sum(result.summary.requests for results in chosen.values() for result in results)
        fewer = any(len(chosen[one.target]) < len(_worth(one)) for one in targets)
        detail = _detail(report, position, chosen, lines)
        lines += [NOT_ALL] if fewer and (detail or not found) else []
        if detail is None:
            continue
        room -= sum(_bytes(one) for one in detail.figures)
        if room < 0 and found:
            break
        found[position] = detail
    shown = [found[position] for position in sorted(found)]
    measured = sum(any(target.summaries for target in cell.targets) for cell in report.cells)
    if shown and len(shown) < measured:
        lines.append(f"{len(shown)} of {measured} cells are drawn here, those that matter most.")
    return Inside(shown, tuple(dict.fromkeys(lines)))


def _worth(target: TargetCell) -> list[Result]:
    """The valid repeats; where there is none, those that are there."""
    return target.good or [one for one in target.results if one is not None]


def _chosen(target: TargetCell, requests: int) -> list[Result]:
    """The first repeats that are worth a look, as long as they have no more requests than these."""
    sums = accumulate(result.summary.requests for result in _worth(target))
    return [result for result, total in zip(_worth(target), sums, strict=True) if total <= requests][:MOST_REPEATS]


def _bytes(shown: Figure) -> int:
    """What a figure takes in the page, near enough: its data, and its table with the tags."""
    return len(data_block([shown])) + sum(len(text) + 12 for row in shown.table.rows for text in row) + 1500


def _detail(
    report: RunReport, position: int, chosen: Mapping[str, Sequence[Result]], lines: list[str]
) -> Detail | None:
    """None for a cell of which no request can be drawn. What cannot be read is said in ``lines``."""
    cell = report.cells[position]
    traces = [list(_traces(report, results, lines)) for results in chosen.values()]
    name = f"cell-{position + 1}"
    figures: list[Figure] = []
    for kind, chart in _charts(report, [one for one in traces if one]):
        said = any(one.chart.reading == chart.reading for one in figures)  # once for all targets is enough
        figures.append(figure(f"{name}-{kind}", chart, "" if said else None))
    return Detail(name, cell.id, figures) if figures else None


def _traces(report: RunReport, results: Sequence[Result], lines: list[str]) -> Iterator[Trace]:
    """Of the repeats whose request lines are there."""
    for one in results:
        folder = Run(Path(report.path)).repeat(one.cell, one.target, one.rep).folder / f"attempt-{one.attempt}"
        try:
            trace = read_trace(folder, one)
        except StoreError as error:
            lines.append(f"{one.cell}, {one.target}, repeat {one.rep} is not drawn: {error}")
            continue
        if len(trace.columns["send"]):
            yield trace


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
