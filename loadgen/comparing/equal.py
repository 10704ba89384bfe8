"""Two targets held against each other where their servers did the same, not where the client asked for the same.

Under one load two servers are not in one state: they run batches of different sizes, and a user of the faster one gets
his tokens faster. So each target is a curve through its own cells, repeat by repeat, and the curves are held against
each other where both reach:

* **At an equal batch** (``batch_seen``: what the server says it ran): any measure over the size of the batch.
* **At equal interactivity**: output tok/s of each GPU over the tok/s that one user gets (p50 decode_tok_s), along the
  Pareto front: the cells that no other beats in both. What an operator buys: so fast for a user, how many of them?

In: compared cells that differ in one axis of the load. Out: `Crossings` with the ratios along the common range. Each
pair of repeats has curves of its own, so that the ratio at a place has its t interval as that of a cell has; what the
interpolation between two cells misses is not in it. A repeat that lacks one of the cells has no curve and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from loadgen.comparing.comparison import Compared, ComparedCell, Crossings, Equal, Sides
from loadgen.comparing.crossing import find, grouped, point
from loadgen.comparing.curve import Curve, Point, at, front, growing, middle, overlap
from loadgen.comparing.sentence import BATCH, INTERACTIVITY, equal_sentence
from loadgen.statistics import Ratio, ratio_paired, ratio_welch

LOAD_AXES = ("concurrency", "rate_rps", "burst", "max_batch_size")
"""Axes along which only the load of a server grows: the cells of one curve may differ in nothing else."""

THROUGHPUT = "output_tok_s"
_CLOSE = 1.01  # places on the axis that are nearer to each other than this are one

_Rows: TypeAlias = Mapping[str, Mapping[int, Point]]
"""(x, y) by repeat by cell, in the order of rising load."""

_Known: TypeAlias = Sequence[tuple[ComparedCell, Compared, Ratio]]
"""The cells that have a ratio in the measure."""


class _Side(msgspec.Struct, frozen=True):
    """One target: its curve by repeat, and where its cells lie (geometric mean over the repeats, id of the cell)."""

    target: str
    curves: Mapping[int, Curve]
    cells: Sequence[tuple[float, str]]


def equal_crossings(cells: Sequence[ComparedCell], axis: str) -> Iterator[Crossings]:
    """The crossings of every measure at an equal batch, and of output tok/s at equal interactivity.

    Nothing where ``axis`` is not one of the load's, where a server does not say its batch (for interactivity: where
    replies came whole), or where a side has fewer than two points. Cells without a ratio in the measure are passed
    over.
    """
    if axis.rpartition(".")[2] not in LOAD_AXES:
        return
    for group in grouped(cells, axis):
        found = [_equal_batch(group, name, axis) for name in (group[0].primary.measure, *group[0].secondary)]
        yield from (one for one in (*found, _equal_interactivity(group, axis)) if one is not None)


def _equal_batch(group: Sequence[ComparedCell], name: str, axis: str) -> Crossings | None:
    known = _known(group, name)
    sides = _sides(known, lambda cell: cell.batch_seen, _by_batch)
    return None if sides is None else _crossings(known, sides, (axis, BATCH), None)


def _equal_interactivity(group: Sequence[ComparedCell], axis: str) -> Crossings | None:
    known = _known(group, THROUGHPUT)
    counted = None not in group[0].gpus
    scales = [gpus or 1 if counted else 1 for gpus in group[0].gpus]
    sides = _sides(known, lambda cell: cell.user_tok_s, _by_front, scales)
    per: Literal["GPU", "server"] = "GPU" if counted else "server"
    return None if sides is None else _crossings(known, sides, (axis, INTERACTIVITY), per)


def _known(group: Sequence[ComparedCell], name: str) -> _Known:
    pairs = [(cell, cell.compared(name)) for cell in group]
    return [(cell, one, one.ratio) for cell, one in pairs if one and one.ratio and one.better is not None]


def _sides(
    known: _Known,
    xs: Callable[[ComparedCell], Sides],
    shape: Callable[[str, _Rows], _Side],
    scales: Sequence[int] = (1, 1),
) -> tuple[_Side, _Side] | None:
    """Both sides as curves over x, y divided by ``scales``; None where one has no two points.

    Paired sides keep the repeats that have every cell of both, others those that have every cell of their own.
    """
    if not known:
        return None
    before = {cell.cell: _points(xs(cell).baseline, one.baseline_values, scales[0]) for cell, one, _ in known}
    after = {cell.cell: _points(xs(cell).candidate, one.candidate_values, scales[1]) for cell, one, _ in known}
    if known[0][2].paired:
        repeats = _whole(before) & _whole(after)
        before, after = _only(before, repeats), _only(after, repeats)
    cell = known[0][0]
    sides = shape(cell.baseline, _only(before, _whole(before))), shape(cell.candidate, _only(after, _whole(after)))
    return sides if all(len(side.cells) > 1 for side in sides) else None


def _points(xs: Sequence[float | None], ys: Sequence[float | None], scale: int) -> Mapping[int, Point]:
    """The repeats whose point has a logarithm. What a server says of its batch may be anything: one that was restarted
    in the middle counts backwards."""
    both = enumerate(zip(xs, ys, strict=False))
    return {i: (x, y / scale) for i, (x, y) in both if x and y and 0 < x < math.inf and 0 < y < math.inf}


def _whole(rows: _Rows) -> set[int]:
    """The repeats that have every cell which is known at all."""
    found = [set(row) for row in rows.values() if row]
    return set.intersection(*found) if found else set()


def _only(rows: _Rows, repeats: set[int]) -> dict[str, Mapping[int, Point]]:
    return {cell: {i: row[i] for i in sorted(repeats)} for cell, row in rows.items() if repeats and row}


def _by_batch(target: str, rows: _Rows) -> _Side:
    """The cells up to the one from which on the batch no longer grows."""
    names, middles = list(rows), [middle(list(row.values())) for row in rows.values()]
    kept = [names[i] for i in growing([x for x, _ in middles])]
    return _Side(
        target=target,
        curves={i: sorted(rows[name][i] for name in kept) for i in _whole(rows)},
        cells=[(x, name) for (x, _), name in zip(middles, names, strict=True) if name in kept],
    )


def _by_front(target: str, rows: _Rows) -> _Side:
    """The Pareto front of every repeat; its cells are those on the front of the means."""
    middles = {name: middle(list(row.values())) for name, row in rows.items()}
    best = front(middles.values())
    return _Side(
        target=target,
        curves={i: front(row[i] for row in rows.values()) for i in _whole(rows)},
        cells=[(place[0], name) for name, place in middles.items() if place in best],
    )


def _crossings(
    known: _Known, sides: tuple[_Side, _Side], axes: tuple[str, str], per: Literal["GPU", "server"] | None
) -> Crossings:
    """``axes`` are the axis of the matrix, which is no part of the group, and that of the curves."""
    cell, compared, ratio = known[0]
    span = overlap([curve for side in sides for curve in side.curves.values()])
    places = _places(sides, span) if span else []
    points, equal = [], []
    for x, target, name in places:
        before, after = ({i: y for i, c in side.curves.items() if (y := at(c, x))} for side in sides)
        here = (ratio_paired if ratio.paired else ratio_welch)(list(before.values()), list(after.values()))
        equal.append(Equal(x=x, ratio=here, target=target, cell=name))
        points.append(point(x, here, str(compared.better), {i: (before[i], after[i]) for i in before if i in after}))
    found = find(points) if points else ()
    made = Crossings(
        measure=compared.measure,
        axis=axes[1],
        baseline=cell.baseline,
        candidate=cell.candidate,
        group={key: value for key, value in cell.axes.items() if key != axes[0]},
        first=span[0] if span else None,
        last=span[1] if span else None,
        crossings=found,
        sentence="",
        equal=tuple(equal),
        per=per,
    )
    reach = [(min(side.cells)[0], max(side.cells)[0]) for side in sides]
    return msgspec.structs.replace(made, sentence=equal_sentence(made, compared.label, reach))


def _places(sides: Sequence[_Side], span: tuple[float, float]) -> list[tuple[float, str | None, str | None]]:
    """Where both are looked at, as (x, target, cell): the ends of the common range and each cell of either side.

    Cells that are too close to each other, or to an end, are one place, which has the name of the first of them (at an
    end the baseline's comes first).
    """
    low, high = span
    cells = [(x, side.target, name) for side in sides for x, name in side.cells]
    found: list[tuple[float, str | None, str | None]] = [_end(low, cells)]
    for place in sorted(cells):
        if found[-1][0] * _CLOSE < place[0] < high / _CLOSE:
            found.append(place)
    return [*found, _end(high, cells)]


def _end(x: float, cells: Sequence[tuple[float, str, str]]) -> tuple[float, str | None, str | None]:
    near = [cell for cell in cells if x / _CLOSE <= cell[0] <= x * _CLOSE]
    return (x, near[0][1], near[0][2]) if near else (x, None, None)
