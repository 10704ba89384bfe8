"""Charts with the table behind each: what ECharts draws on the page, and what stands there for those who cannot see it.

In: the charts of ``loadgen.plots``. Out: `Figure`s. A table holds every point of a short series, and of a long one
those that `thinned` keeps: the lowest and the highest of each stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from loadgen.plots.chart import Axis, Bars, Chart, Heat, Lines, Panel, Series, thinned
from loadgen.reports.html.tables import Table
from loadgen.shown import DASH, number

MOST_ROWS = 24
"""Rows of a series, a heat map or a gantt in a table behind a chart."""

ZOOM = "The ends of the bar below the chart can be drawn in, to look closer."


class Figure(msgspec.Struct, frozen=True):
    """A chart and its table; ``id`` is that of both in the page. ``reading`` says how it is read."""

    id: str
    chart: Chart
    table: Table
    reading: str

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width, and more height than the others."""
        return isinstance(self.chart, Lines) and len(self.chart.panels) > 2


def figure(name: str, chart: Chart, reading: str | None = None) -> Figure:
    """The figure of a chart, with its own words on how it is read unless others are given."""
    if isinstance(chart, Lines):
        table = _of_lines(chart)
    else:
        table = _of_heat(chart) if isinstance(chart, Heat) else _of_bars(chart)
    own = f"{chart.reading} {ZOOM}" if isinstance(chart, Bars) else chart.reading
    return Figure(name, chart, table, own if reading is None else reading)


def data_block(figures: Sequence[Figure]) -> str:
    """The charts as JSON that can stand in a script element: nothing in it can end the element or begin another."""
    charts = [{"id": one.id, **msgspec.to_builtins(one.chart)} for one in figures]
    text = msgspec.json.encode(_lean(charts)).decode()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _lean(value: Any) -> Any:
    """The same with six digits a number, without what a point leaves empty at its end: half the bytes."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _lean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        kept = list(value)
        while kept and kept[-1] is None:
            kept.pop()
        return [_lean(inner) for inner in kept]
    return value


def _of_lines(chart: Lines) -> Table:
    rows = [row for panel in chart.panels for one in panel.series for row in _points(chart, panel, one)]
    longest = max((len(one.known) for panel in chart.panels for one in panel.series), default=0)
    more = (
        f"At most {MOST_ROWS} points of a series, the lowest and highest of each stretch."
        if longest > MOST_ROWS
        else ""
    )
    bars = any(row[4] != DASH for row in rows)
    labels = any(row[5] != DASH for row in rows)
    keep = [0, 1, 2, 3, *([4] if bars else []), *([5] if labels else [])]
    head = ["series", chart.x.name, "of", "value", "95 % interval", "label"]
    return Table(chart.title, [head[i] for i in keep], [[row[i] for i in keep] for row in rows], 1, more)


def _points(chart: Lines, panel: Panel, one: Series) -> Iterator[list[str]]:
    for x, y, low, high, label in thinned(one.known, MOST_ROWS):
        interval = DASH if low is None or high is None else f"{number(low)} to {number(high)}"
        yield [one.name, place(chart.x, x), panel.name or panel.y.name, number(y), interval, label or DASH]


def place(axis: Axis, value: float) -> str:
    """A place on an axis in words: 99.9 % on that of the nines, a name on one of names."""
    if axis.names is not None:
        return axis.names[round(value)]
    return f"{100 * (1 - 10**-value):.4g} %" if axis.scale == "nines" else number(value)


def _of_heat(chart: Heat) -> Table:
    """Every row of the grid: how much fell into it, and where most of it did."""
    names, columns = chart.y.names or (), chart.x.names or ()
    by_row: dict[int, list[tuple[int, int]]] = {}
    for column, row, count in chart.cells:
        by_row.setdefault(row, []).append((count, column))
    total = sum(count for _, _, count in chart.cells) or 1
    rows = []
    for row in sorted(by_row):
        found, (most, column) = sum(count for count, _ in by_row[row]), max(by_row[row])
        rows.append([names[row], f"{found:,}", f"{100 * found / total:.2g} %", f"{most:,} at {columns[column]}"])
    return Table(chart.title, [chart.y.name, chart.count, "share", f"most at ({chart.x.name})"], rows)


def _of_bars(chart: Bars) -> Table:
    """The first requests: how long each phase took."""
    every = sorted({row for phase in chart.phases for row, _, _ in phase.spans})
    shown = every[:MOST_ROWS]
    spans = {(phase.name, row): (start, end) for phase in chart.phases for row, start, end in phase.spans}
    rows = [[str(row + 1), *_durations([spans.get((phase.name, row)) for phase in chart.phases])] for row in shown]
    head = [chart.y.name, f"from ({chart.x.name})", *(f"{phase.name} s" for phase in chart.phases)]
    more = f"The first {len(shown)} of {len(every)} requests that are drawn." if len(every) > len(shown) else ""
    return Table(chart.title, head, rows, 1, more)


def _durations(spans: Sequence[tuple[float, float] | None]) -> list[str]:
    start = min((span[0] for span in spans if span is not None), default=None)
    return [number(start), *(DASH if span is None else number(span[1] - span[0]) for span in spans)]
