"""Which cells of a large run are shown: those that a reader would ask for, the others stand in the tables.

In: a `RunReport`. Out: cells, in the run's order.
"""

from __future__ import annotations

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.comparing.comparison import ComparedCell
from loadgen.statistics import Verdict

MOST_CELLS = 50
"""Cells of a run that are all shown."""


def cells_that_matter(report: RunReport, most: int = MOST_CELLS) -> tuple[ReportCell, ...]:
    """At most ``most`` cells: all where there are no more.

    First those that nobody may overlook: with a target that failed or is invalid, then those that miss an objective;
    then those with the largest differences between targets, decided ones before others; then the first and the last of
    the matrix, and what lies evenly between.
    """
    if len(report.cells) <= most:
        return report.cells
    return tuple(report.cells[position] for position in sorted(by_weight(report)[:most]))


def by_weight(report: RunReport) -> list[int]:
    """Positions of the cells, those that matter most first."""
    differences = _differences(report)
    spread = {position: place for place, position in enumerate(_spread(len(report.cells)))}

    def weight(position: int) -> tuple[int, int, float, int]:
        cell = report.cells[position]
        decided, size = differences.get(cell.id, (False, 0.0))
        return _trouble(cell), 0 if decided else 1, -size, spread[position]

    return sorted(range(len(report.cells)), key=weight)


def _trouble(cell: ReportCell) -> int:
    """0 for a cell that failed or is invalid, 1 for one that misses an objective, 2 for a good one."""
    if any(target.state in ("failed", "invalid") for target in cell.targets):
        return 0
    return 1 if any(_missed(target) for target in cell.targets) else 2


def _missed(target: TargetCell) -> bool:
    return any(judgement.met is False for judgement in target.judgements)


def _differences(report: RunReport) -> dict[str, tuple[bool, float]]:
    """By cell: whether a difference is decided, and the largest, as |ratio - 1| of the farther of ratio and inverse."""
    found: dict[str, tuple[bool, float]] = {}
    for comparison in report.comparisons:
        for cell in comparison.cells:
            found[cell.cell] = max(found.get(cell.cell, (False, 0.0)), _difference(cell))
    return found


def _difference(cell: ComparedCell) -> tuple[bool, float]:
    one = cell.primary
    if one.ratio is None or one.ratio.value <= 0:
        return False, 0.0
    return one.verdict in (Verdict.FASTER, Verdict.SLOWER), max(one.ratio.value, 1 / one.ratio.value) - 1


def _spread(count: int) -> list[int]:
    """0 .. count - 1 so that any beginning of it lies evenly: the ends, the middle, the quarters ..."""
    order = list(dict.fromkeys((0, count - 1)))[:count]
    seen, step = set(order), count - 1
    while len(seen) < count:
        step = max(1, (step + 1) // 2)
        for position in range(0, count, step):
            if position not in seen:
                seen.add(position)
                order.append(position)
    return order
