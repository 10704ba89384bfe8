"""A chart as values, before anything draws it: the page's ECharts and matplotlib are given the same.

In: nothing. Out: structs that are JSON. A point is (x, y, low, high, label): ``low`` and ``high`` are its error bar,
None where it has none. Points are joined by straight lines or not at all, never by a curve. No series has more than
`MOST_POINTS`; `thinned` keeps what is highest and lowest of those that it merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import msgspec

MOST_POINTS = 2000
"""Points of the longest series."""

Point: TypeAlias = tuple[float, float, float | None, float | None, str | None]


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
    holds each value until the next; ``bare`` is a line alone, without a mark at its points."""

    name: str
    points: tuple[Point, ...]
    colour: int = 0
    joined: bool = False
    step: bool = False
    dashed: bool = False
    bare: bool = False


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


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most ``most`` of the points, in their order. Of neighbours that are merged the lowest and the highest stay:
    a mean would hide the very peak that one looks for."""
    if len(points) <= most:
        return tuple(points)
    groups = most // 2
    edges = [len(points) * i // groups for i in range(groups + 1)]
    kept: list[Point] = []
    for first, last in pairwise(edges):
        inside = range(first, last)
        lowest, highest = (choose(inside, key=lambda i: points[i][1]) for choose in (min, max))
        kept += [points[i] for i in sorted({lowest, highest})]
    return tuple(kept)
