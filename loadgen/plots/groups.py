"""The cells of a run as series: which lie on one line, what the line is called, where a cell lies on it.

In: a `RunReport`. Out: a `Laid`, and points of repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from loadgen.assemble import ReportCell, RunReport, TargetCell, axis_of
from loadgen.cells import value_of
from loadgen.metrics import Measure
from loadgen.plots.chart import Axis, Point, Series, gap, line
from loadgen.plots.choice import by_weight
from loadgen.repeat import Result
from loadgen.statistics import mean_interval

MOST_LINES = 6
"""Lines of one chart, so that each has a colour: with two targets, three groups of cells."""

Value = Callable[[Result], float | None]


class Group(msgspec.Struct, frozen=True):
    """Cells that differ in the axis alone, in its order; ``words`` are the other axes' values, '' for a lone group."""

    words: str
    cells: Sequence[ReportCell]


class Laid(msgspec.Struct, frozen=True):
    """The cells of a run along ``axis`` (None: by themselves, side by side), in groups. ``of`` is how many groups there
    are, of which those with the cells that matter most are here. ``colours`` numbers the targets."""

    axis: str | None
    groups: Sequence[Group]
    of: int
    colours: dict[str, int]
    places: dict[str, float]
    x: Axis

    @property
    def left_out(self) -> str:
        """A sentence, where there are more groups."""
        drawn = len(self.groups)
        return f" {drawn} of {self.of} groups of cells are drawn; the tables have all." if self.of > drawn else ""

    def label(self, cell: ReportCell) -> str:
        """What a point of this cell is called beside others of its line."""
        return f"{self.places[cell.id]:g}" if self.axis is not None else cell.id

    def series(
        self, point: Callable[[ReportCell, TargetCell], Point | None], ending: str = "", dashed: bool = False
    ) -> tuple[Series, ...]:
        """A series for each target and group, of the points of its cells; those without a point are left out."""
        found = []
        for name, number in self.colours.items():
            for place, group in enumerate(self.groups):
                colour = number * len(self.groups) + place
                own = [(cell, target) for cell in group.cells for target in cell.targets if target.target == name]
                words = ", ".join(filter(None, (name + ending, group.words)))
                points = _with_gaps([point(cell, target) for cell, target in own])
                made = line(words, points, colour=colour, dashed=dashed)
                alone = Series(name=words, points=made.known, colour=colour, dashed=dashed)
                found.append(made if self.axis is not None else alone)
        return tuple(one for one in found if one.known)


def _with_gaps(points: Sequence[Point | None]) -> list[Point]:
    """The points of a line, with a gap for every cell between them that has none."""
    found: list[Point] = []
    for one in points:
        found += [one] if one is not None else [gap(found[-1][0])] if found else []
    return found


def laid(report: RunReport) -> Laid:
    """The cells of a run as series."""
    axis = axis_of(report.cells)
    every = _groups(report, axis)
    names = dict.fromkeys(target.target for cell in report.cells for target in cell.targets)
    return Laid(
        axis=axis,
        groups=_chosen(report, every, max(1, MOST_LINES // max(1, len(names)))),
        of=len(every),
        colours={name: number for number, name in enumerate(names)},
        places={
            cell.id: float(number if axis is None else cell.axes[axis]) for number, cell in enumerate(report.cells)
        },
        x=_x(report, axis),
    )


def _groups(report: RunReport, axis: str | None) -> list[Group]:
    if axis is None:
        return [Group("", report.cells)] if report.cells else []
    found: dict[str, list[ReportCell]] = {}
    for cell in report.cells:
        others = ", ".join(f"{name} {value}" for name, value in cell.axes.items() if name != axis)
        found.setdefault(others, []).append(cell)
    lone = len(found) == 1
    return [
        Group("" if lone else words, sorted(cells, key=lambda cell: cell.axes[axis])) for words, cells in found.items()
    ]


def _chosen(report: RunReport, every: list[Group], most: int) -> list[Group]:
    if len(every) <= most:
        return every
    rank = {report.cells[position].id: rank for rank, position in enumerate(by_weight(report))}
    ranks = [min(rank[cell.id] for cell in group.cells) for group in every]
    last = sorted(ranks)[most - 1]
    return [group for group, own in zip(every, ranks, strict=True) if own <= last]


def _x(report: RunReport, axis: str | None) -> Axis:
    if axis is None:
        return Axis(name="cell", scale="names", names=tuple(cell.id for cell in report.cells))
    above = all(cell.axes[axis] > 0 for cell in report.cells)
    return Axis(name=axis.rpartition(".")[2], scale="log2" if above else "linear")


# Values of a target's repeats -----------------------------------------------------------------------------------------


def measured(metric: str, statistic: str | None = None) -> Value:
    """The value of a measure in a repeat."""
    return lambda one: value_of(one.summary, Measure(metric, statistic))


def values(target: TargetCell, value: Value) -> list[float]:
    """Of the valid repeats, those that are known."""
    return [known for one in target.good if (known := value(one)) is not None]


def mean(known: Sequence[float]) -> float | None:
    """None where there is none."""
    return sum(known) / len(known) if known else None


def point_of(x: float, known: Sequence[float], label: str | None = None, scale: float = 1.0) -> Point | None:
    """A point at the mean of these values, with the 95 % t interval of their logarithms: that of a latency never
    reaches below zero. None where there is no value."""
    middle = mean(known)
    if middle is None:
        return None
    interval = mean_interval([math.log(value) for value in known]) if min(known) > 0 else None
    low, high = (None, None) if interval is None else (math.exp(end) * scale for end in interval)
    return x, middle * scale, low, high, label
