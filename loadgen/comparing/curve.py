"""Curves of a target through its cells: the Pareto front, the value between two cells, what two curves have in common.

In: points (x, y), both above zero, one a cell. Out: points and numbers. Pure; nothing here knows what x and y are.
Between two cells a curve is a straight line in ln x and ln y: throughput over the batch size is nearly one until the
GPU is bound by compute, and a ratio of two such curves is one again. Nothing is ever extrapolated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Curve: TypeAlias = Sequence[Point]
"""Points in ascending x."""

GROWTH = 1.05
"""How much larger than the last the x of a cell must be to be another point of a curve."""


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other equals or exceeds in both x and y: the Pareto front, in ascending x, descending y."""
    best: list[Point] = []
    for x, y in sorted(points, reverse=True):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return tuple(reversed(best))


def at(curve: Curve, x: float) -> float | None:
    """The y of a curve at x, interpolated linearly in ln x and ln y; None outside its first and last x."""
    if not curve or not curve[0][0] <= x <= curve[-1][0]:
        return None
    right = bisect_left(curve, x, key=lambda point: point[0])
    (x1, y1), (x0, y0) = curve[right], curve[max(right - 1, 0)]
    if x == x1 or x0 == x1:
        return y1
    share = math.log(x / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + share * math.log(y1 / y0))


def growing(xs: Sequence[float]) -> list[int]:
    """Which of ``xs`` (in the order of rising load) are larger than all before them by `GROWTH`.

    Once a server runs all that it can, more load lengthens its queue and not its batch: further cells have the same x,
    and a y that does not follow from x.
    """
    kept: list[int] = []
    for i, x in enumerate(xs):
        if not kept or x >= GROWTH * xs[kept[-1]]:
            kept.append(i)
    return kept


def overlap(curves: Iterable[Curve]) -> tuple[float, float] | None:
    """The range of x (first, last) that all of the curves reach; None where there is none, or no curve."""
    ends = [(curve[0][0], curve[-1][0]) if curve else (math.inf, -math.inf) for curve in curves]
    if not ends:
        return None
    low, high = max(first for first, _ in ends), min(last for _, last in ends)
    return (low, high) if low < high else None


def middle(points: Sequence[Point]) -> Point:
    """The geometric mean of one cell's points over its repeats."""
    return _geometric_mean([x for x, _ in points]), _geometric_mean([y for _, y in points])


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))
