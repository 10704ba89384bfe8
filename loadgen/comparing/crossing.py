"""Where along a numeric axis (concurrency, mostly) does the better side change? Every such place, with its direction.

An MoE often wins at 1, loses in the middle, where every expert is read anyway, and wins again once the GPU is bound by
compute; so there may be several crossings, and each is reported.

A cell is *decided* if its interval excludes equality. A crossing is decided if it lies between two decided cells of
opposite sign with no decided cell between them: then the bracket is certain (95 % each) though its middle may not be.
Where only the estimates change sign, the place is reported as undecided. Within a bracket each pair of repeats has its
own crossing, interpolated linearly in the logarithm of the axis; those of the pairs give a t interval. With few pairs
that may reach past a certain bracket, where the cells themselves say otherwise; it ends there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from loadgen.comparing.comparison import ComparedCell, Crossing, Crossings
from loadgen.comparing.sentence import cell_name, crossing_sentence
from loadgen.metrics import measure
from loadgen.statistics import Ratio, mean_interval


class Point(msgspec.Struct, frozen=True):
    """A place on the axis where both sides are known.

    ``d`` is ln(candidate / baseline), signed so that above zero is better for the candidate.
    ``sign`` is that of a decided place, 0 for others; ``pairs`` holds d by pair number, empty where sides are unpaired.
    """

    x: float
    d: float
    sign: int
    pairs: Mapping[int, float]


def crossings(cells: Sequence[ComparedCell], axis: str) -> Iterator[Crossings]:
    """The crossings of every measure, once per pair of targets and combination of the other axes.

    Cells without a ratio (invalid, not comparable, blank) are passed over, and so are values that are no number above
    zero (they have no logarithm). A group with fewer than two points has nothing to cross.
    """
    for group in grouped(cells, axis):
        for name in (group[0].primary.measure, *group[0].secondary):
            found = _of_measure(group, name, axis)
            if found is not None:
                yield found


def grouped(cells: Sequence[ComparedCell], axis: str) -> list[list[ComparedCell]]:
    """Cells that differ in the axis alone, together, in its ascending order; those that have no number there are left
    out."""
    groups: dict[tuple[object, ...], list[tuple[float, ComparedCell]]] = {}
    for cell in cells:
        x = cell.axes.get(axis)
        if isinstance(x, int | float) and x > 0:
            rest = tuple(sorted((name, value) for name, value in cell.axes.items() if name != axis))
            groups.setdefault((cell.baseline, cell.candidate, *rest), []).append((x, cell))
    return [[cell for _, cell in sorted(group, key=lambda one: one[0])] for group in groups.values()]


def find(line: Sequence[Point]) -> tuple[Crossing, ...]:
    """Crossings of points in ascending x."""
    ends = [i for i, point in enumerate(line) if point.sign]
    found: list[Crossing] = []
    for start, end in pairwise(dict.fromkeys((0, *ends, len(line) - 1))):
        if line[start].sign * line[end].sign < 0:
            found.append(_crossing(line[start : end + 1], decided=True))
        else:
            parts = pairwise(point for point in line[start : end + 1] if point.d)
            found += [_crossing(part, decided=False) for part in parts if part[0].d * part[1].d < 0]
    return tuple(found)


def point(x: float, ratio: Ratio, better: str, pairs: Mapping[int, tuple[float, float]]) -> Point:
    """The point of a ratio; ``pairs`` has (baseline's, candidate's) values by pair number."""
    way = -1 if better == "lower" else 1
    sign = 0
    if ratio.low is not None and ratio.high is not None:
        sign = way * ((ratio.low > 1) - (ratio.high < 1))
    known = {i: way * math.log(b / a) for i, (a, b) in pairs.items()} if ratio.paired else {}
    return Point(x, way * math.log(ratio.value), sign, known)


def _of_measure(group: Sequence[ComparedCell], name: str, axis: str) -> Crossings | None:
    points = []
    for cell in group:
        compared = cell.compared(name)
        if compared is not None and compared.ratio is not None and compared.better is not None:
            sides = zip(compared.baseline_values, compared.candidate_values, strict=False)
            pairs = {i: (a, b) for i, (a, b) in enumerate(sides) if a and b}
            points.append(point(float(cell.axes[axis]), compared.ratio, compared.better, pairs))
    if len(points) < 2:
        return None
    cell, span = group[0], (points[0].x, points[-1].x)
    found = find(points)
    rest = {key: value for key, value in cell.axes.items() if key != axis}
    label = measure(name).label + cell_name(rest)
    return Crossings(
        measure=name,
        axis=axis,
        baseline=cell.baseline,
        candidate=cell.candidate,
        group=rest,
        first=span[0],
        last=span[1],
        crossings=found,
        sentence=crossing_sentence((cell.baseline, cell.candidate), label, axis, span, found),
    )


def _crossing(bracket: Sequence[Point], *, decided: bool) -> Crossing:
    rising = bracket[-1].d > bracket[0].d
    common = set.intersection(*(set(point.pairs) for point in bracket))
    places = [_place([(point.x, point.pairs[i]) for point in bracket], rising) for i in sorted(common)]
    crossed = [place for place in places if place is not None]
    interval = mean_interval(crossed)
    if interval is not None:
        interval = math.exp(interval[0]), math.exp(interval[1])
        if decided:
            interval = max(interval[0], bracket[0].x), min(interval[1], bracket[-1].x)
    middle = _place([(point.x, point.d) for point in bracket], rising)
    assert middle is not None  # the ends of a bracket have opposite signs
    at = math.fsum(crossed) / len(crossed) if crossed else middle  # unpaired sides cross in their means alone
    direction: Literal["overtakes", "falls behind"] = "overtakes" if rising else "falls behind"
    return Crossing(
        low=bracket[0].x,
        high=bracket[-1].x,
        direction=direction,
        decided=decided,
        pairs=sum(place is not None for place in places),
        at=math.exp(at),
        interval=interval,
    )


def _place(line: Sequence[tuple[float, float]], rising: bool) -> float | None:
    """The ln x at which a line through (x, d) changes sign in the direction of the bracket; the middle one of several.

    None if it does not end on the other side than it began.
    """
    if not (line[0][1] < 0 < line[-1][1] if rising else line[-1][1] < 0 < line[0][1]):
        return None
    places = []
    for (x0, d0), (x1, d1) in pairwise(line):
        if d0 != d1 and min(d0, d1) <= 0 <= max(d0, d1):
            places.append(math.log(x0) - d0 / (d1 - d0) * (math.log(x1) - math.log(x0)))
    return sorted(places)[len(places) // 2]
