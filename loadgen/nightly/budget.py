"""What a night has time for: the cells that fit into a budget, the most important first.

In: a scenario's cells, seconds, and how long nights of it took against their plans. Out: the cells that are run and the
names of those that are left out. The budget also holds a second measurement of the cell that takes longest, so that a
candidate found in the last minute can still be confirmed. Pure functions.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from loadgen.errors import UsageError
from loadgen.plan import make_plan
from loadgen.scenario import Cell, Scenario
from loadgen.scenario.override import did_you_mean

NIGHTS = 5
"""So many past nights say how long this scenario really takes."""


def ordered(cells: Sequence[Cell], priority: Sequence[str]) -> list[Cell]:
    """The cells from the most important on: those that ``priority`` names, then the rest in the matrix's order.

    Raises UsageError for a name that is none of the cells'.
    """
    by_id = {cell.id: cell for cell in cells}
    for name in priority:
        if name not in by_id:
            raise UsageError(f"nightly.priority: there is no cell {name!r}{did_you_mean(name, list(by_id))}.")
    return [*(by_id[name] for name in priority), *(cell for cell in cells if cell.id not in priority)]


def pace(took_and_planned: Sequence[tuple[float, float]]) -> float:
    """How much longer nights take than their plans say: the median of the last ones, 1 where there are none."""
    ratios = [took / planned for took, planned in took_and_planned[-NIGHTS:] if took > 0 and planned > 0]
    return statistics.median(ratios) if ratios else 1.0


def seconds_of(scenario: Scenario, cells: Sequence[Cell], paced: float, folder: Path = Path()) -> float:
    """About how long these cells take, with the starts of their servers; the most, where ``until`` adds repeats.
    ``folder`` is the scenario's."""
    return make_plan(scenario, cells, folder).estimate_s * paced if cells else 0.0


def within(
    budget_s: float, scenario: Scenario, cells: Sequence[Cell], paced: float, folder: Path = Path()
) -> tuple[list[Cell], list[str]]:
    """The cells that a night has time for, in their own order, and the ids of those that are left out; ``folder`` is
    the scenario's.

    Raises UsageError if there is no time for a single one.
    """
    by_priority = ordered(cells, scenario.nightly.priority)

    def takes(count: int) -> float:
        chosen = by_priority[:count]
        again = max(seconds_of(scenario, [cell], paced, folder) for cell in chosen)
        return seconds_of(scenario, chosen, paced, folder) + again

    low, high = 0, len(by_priority)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if takes(middle) <= budget_s else (low, middle - 1)
    if not low:
        raise UsageError(
            f"--budget: {by_priority[0].id}, the first cell, takes about {takes(1):.0f} s (measured twice, as it must "
            f"be where it seems worse), and there are {budget_s:.0f} s; allow more, or shorten load.window_s."
        )
    kept = {cell.id for cell in by_priority[:low]}
    return [cell for cell in cells if cell.id in kept], [cell.id for cell in by_priority[low:]]


def in_time(
    left_s: float, scenario: Scenario, wanted: Sequence[Cell], paced: float, folder: Path = Path()
) -> tuple[list[str], list[str]]:
    """Of cells that ask for a second measurement, the most urgent first: the ids of those that there is time left
    for, and of the others. ``folder`` is the scenario's."""
    kept: list[Cell] = []
    late = []
    for cell in wanted:
        if seconds_of(scenario, [*kept, cell], paced, folder) <= left_s:
            kept.append(cell)
        else:
            late.append(cell.id)
    return [cell.id for cell in kept], late
