"""Where along a numeric axis (concurrency, mostly) does the better side change? Every such place, with its direction.

An MoE often wins at 1, loses in the middle, where every expert is read anyway, and wins again once the GPU is bound by
compute; so there may be several crossings, and each is reported.

A cell is *decided* if its interval excludes equality. A crossing is decided if it lies between two decided cells of
opposite sign with no decided cell between them: then the bracket is certain (95 % each) though its middle may not be.
Where only the estimates change sign, the place is reported as undecided. Within a bracket each pair of repeats has its
own crossing, interpolated linearly in the logarithm of the axis; those of the pairs give a t interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from loadgen.comparison import Compared, ComparedCell, Crossing, Crossings
from loadgen.sentence import crossing_sentence
from loadgen.statistics import mean_interval


class _Point(msgspec.Struct, frozen=True):
    """One cell on the axis: d = ln(candidate / baseline), signed so that above zero is better for the candidate.

    ``sign`` is that of a decided cell, 0 for others; ``pairs`` holds d by pair number, empty where sides are unpaired.
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
    groups: dict[tuple[object, ...], list[ComparedCell]] = {}
    for cell in cells:
        rest = tuple(sorted((name, value) for name, value in cell.axes.items() if name != axis))
        groups.setdefault((cell.baseline, cell.candidate, *rest), []).append(cell)
    for group in groups.values():
        for name in (group[0].primary.measure, *group[0].secondary):
            found = _of_measure(group, name, axis)
            if found is not None:
                yield found


def find(points: Sequence[tuple[float, float, int, Mapping[int, float]]]) -> tuple[Crossing, ...]:
    """Crossings of points (x, d, sign, d by pair), in ascending x; see `_Point`."""
    line = [_Point(*point) for point in points]
    ends = [i for i, point in enumerate(line) if point.sign]
    found: list[Crossing] = []
    for start, end in pairwise(dict.fromkeys((0, *ends, len(line) - 1))):
        if line[start].sign * line[end].sign < 0:
            found.append(_crossing(line[start : end + 1], decided=True))
        else:
            parts = pairwise(point for point in line[start : end + 1] if point.d)
            found += [_crossing(part, decided=False) for part in parts if part[0].d * part[1].d < 0]
    return tuple(found)


def _of_measure(group: Sequence[ComparedCell], name: str, axis: str) -> Crossings | None:
    points = []
    for cell in group:
        compared, x = cell.primary if cell.primary.measure == name else cell.secondary[name], cell.axes.get(axis)
        if isinstance(x, int | float) and x > 0 and compared.ratio is not None and compared.better is not None:
            points.append(_point(float(x), compared))
    points.sort(key=lambda point: point[0])
    if len(points) < 2:
        return None
    cell, span = group[0], (points[0][0], points[-1][0])
    found = find(points)
    label = (cell.primary if cell.primary.measure == name else cell.secondary[name]).label
    return Crossings(
        measure=name,
        axis=axis,
        baseline=cell.baseline,
        candidate=cell.candidate,
        group={key: value for key, value in cell.axes.items() if key != axis},
        first=span[0],
        last=span[1],
        crossings=found,
        sentence=crossing_sentence((cell.baseline, cell.candidate), label, axis, span, found),
    )


def _point(x: float, compared: Compared) -> tuple[float, float, int, Mapping[int, float]]:
    ratio, way = compared.ratio, -1 if compared.better == "lower" else 1
    assert ratio is not None
    sign = 0
    if ratio.low is not None and ratio.high is not None:
        sign = way * ((ratio.low > 1) - (ratio.high < 1))
    sides = zip(compared.baseline_values, compared.candidate_values, strict=False)
    pairs = {i: way * math.log(b / a) for i, (a, b) in enumerate(sides) if a and b} if ratio.paired else {}
    return x, way * math.log(ratio.value), sign, pairs


def _crossing(bracket: Sequence[_Point], *, decided: bool) -> Crossing:
    rising = bracket[-1].d > bracket[0].d
    common = set.intersection(*(set(point.pairs) for point in bracket))
    places = [_place([(point.x, point.pairs[i]) for point in bracket], rising) for i in sorted(common)]
    crossed = [place for place in places if place is not None]
    interval = mean_interval(crossed)
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
        interval=None if interval is None else (math.exp(interval[0]), math.exp(interval[1])),
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
