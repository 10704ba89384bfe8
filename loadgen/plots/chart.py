"""A chart as values, before anything draws it: the page's ECharts and matplotlib are given the same.

In: nothing. Out: structs that are JSON. A point is (x, y, low, high, label): ``low`` and ``high`` are its error bar,
None where it has none. Points are joined by straight lines or not at all, never by a curve. Where nothing is known
``y`` is None: a line breaks there, and what stands alone between two gaps is marked. No series has more values than
`MOST_POINTS`; `thinned` keeps what is highest and lowest of those that it merges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, Literal, TypeAlias

import msgspec

MOST_POINTS = 2000
"""Points of the longest series."""

Point: TypeAlias = tuple[float, float | None, float | None, float | None, str | None]
Known: TypeAlias = tuple[float, float, float | None, float | None, str | None]


class Axis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On ``nines`` the values are -log10(1 - p) of a share p: 1, 2, 3 stand for 90 %, 99 %, 99.9 %. ``names`` says what
    stands at 0, 1, 2 ... ``zero`` asks for an axis that begins there; ``low`` and ``high`` are its ends where they are
    fixed."""

    name: str
    scale: Literal["linear", "log", "log2", "nines", "names"] = "linear"
    zero: bool = False
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Points under one name. ``colour`` numbers the colours, so that a target has the same one everywhere; ``step``
    holds each value until the next; ``bare`` is a line alone, without a mark at its points; ``lone`` are the places of
    points that stand between gaps."""

    name: str
    points: tuple[Point, ...]
    colour: int = 0
    joined: bool = False
    step: bool = False
    dashed: bool = False
    bare: bool = False
    lone: tuple[int, ...] = ()

    @property
    def known(self) -> tuple[Known, ...]:
        """Its points without its gaps, and without those that only draw a step up to one."""
        ends = {i - 1 for i, point in enumerate(self.points) if point[1] is None} if self.step else ()
        return tuple(
            (x, y, low, high, label)
            for i, (x, y, low, high, label) in enumerate(self.points)
            if y is not None and i not in ends
        )


class Level(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A straight line across the panel, at an x or at a y."""

    name: str
    x: float | None = None
    y: float | None = None


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """A span of the x axis."""

    name: str
    low: float
    high: float


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Series over the chart's x axis, with a y axis of their own. ``name`` is written above it where there are several
    panels of one y axis."""

    y: Axis
    series: tuple[Series, ...]
    levels: tuple[Level, ...] = ()
    bands: tuple[Band, ...] = ()
    name: str = ""


class _Chart(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """``reading`` says how the chart is read and how it misleads."""

    title: str
    reading: str
    x: Axis


class Lines(_Chart, frozen=True, kw_only=True, tag="lines"):
    """Panels, one below the other, over one x axis."""

    panels: tuple[Panel, ...]
    legend: bool = True


class Heat(_Chart, frozen=True, kw_only=True, tag="heat"):
    """Counts in a grid of named columns and rows: ``cells`` are (column, row, count), empty ones left out."""

    y: Axis
    cells: tuple[tuple[int, int, int], ...]
    count: str


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Spans (row, from, to) of one kind. ``bad`` marks what went wrong."""

    name: str
    spans: tuple[tuple[int, float, float], ...]
    bad: bool = False


class Bars(_Chart, frozen=True, kw_only=True, tag="bars"):
    """Spans of time, one row a request, the first at the top."""

    y: Axis
    phases: tuple[Phase, ...]


Chart: TypeAlias = Lines | Heat | Bars


def gap(x: float) -> Point:
    """Nothing is known here."""
    return x, None, None, None, None


def line(name: str, points: Sequence[Point], step: bool = False, **look: Any) -> Series:
    """A joined series whose points may be gaps. With ``step`` a value is held up to the gap after it."""
    kept = list(points)
    while kept and kept[-1][1] is None:
        kept.pop()
    held = tuple(_held(kept)) if step else tuple(kept)
    return Series(name=name, points=held, joined=True, step=step, lone=tuple(_lone(held, step)), **look)


def apart(points: Sequence[Point], most: float) -> list[Point]:
    """The same with a gap wherever two neighbours are more than ``most`` apart."""
    broken = list(points[:1])
    for (x, *_), point in pairwise(points):
        broken += [gap(x), point] if point[0] - x > most else [point]
    return broken


def _held(points: Sequence[Point]) -> Iterator[Point]:
    """With each value again where the gap after it begins."""
    yield from points[:1]
    for (_, y, *_), point in pairwise(points):
        if y is not None and point[1] is None:
            yield point[0], y, None, None, None
        yield point


def _lone(points: Sequence[Point], step: bool) -> Iterator[int]:
    """Where one value stands that gaps part from all others; of a step with the end that `_held` gave it."""
    if all(y is not None for _, y, *_ in points):
        return
    for known, run in groupby(range(len(points)), key=lambda i: points[i][1] is not None):
        places = list(run)
        held = 1 if step and places[-1] < len(points) - 1 else 0
        if known and len(places) == 1 + held:
            yield places[0]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most ``most`` of the points, in their order, and a gap of every stretch that has some. Of neighbours that are
    merged the lowest and the highest stay: a mean would hide the very peak that one looks for."""
    if len(points) <= most:
        return tuple(points)
    groups = most // 2
    edges = [len(points) * i // groups for i in range(groups + 1)]
    kept: list[Point] = []
    for first, last in pairwise(edges):
        heights = {i: y for i in range(first, last) if (y := points[i][1]) is not None}
        gaps = [i for i in range(first, last) if i not in heights][:1]
        ends = {choose(heights, key=heights.__getitem__) for choose in (min, max)} if heights else set()
        kept += [points[i] for i in sorted({*ends, *gaps})]
    return tuple(kept)
