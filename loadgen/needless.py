"""Which steps of a plan need not be run, by what is stored: those that are done, and those that ``until`` spares.

In: a run's folder and its plan. Out: numbers of steps. The run asks when it begins, where a resumed one takes over what
is whole, and after every block.
"""

from __future__ import annotations

from collections.abc import Callable

from loadgen.assemble import so_far
from loadgen.plan import Plan, Step
from loadgen.store import Run
from loadgen.until import enough, last_of_block, stands


def whole(run: Run, plan: Plan, paired: bool) -> set[int]:
    """Steps of pairs of which every target's repeat is whole. Where nothing is compared (``paired`` is False) a repeat
    is no part of a pair."""
    pairs: dict[tuple[str, int, str], list[int]] = {}
    for number, step in enumerate(plan.steps):
        pairs.setdefault((step.cell, step.rep, "" if paired else step.target), []).append(number)
    done: set[int] = set()
    for pair in pairs.values():
        steps = [plan.steps[number] for number in pair]
        if all(run.repeat(step.cell, step.target, step.rep).whole() for step in steps):
            done.update(pair)
    return done


def spared(run: Run, plan: Plan, after: Step | None, say: Callable[[str], None]) -> set[int]:
    """Steps that the intervals make needless: of every ladder, or of that of the step ``after`` which a block ended,
    whatever became of it. It says how wide the interval is."""
    if plan.until is None:
        return set()
    ladders = {cell.id: cell.ladder for cell in plan.cells}
    found: set[int] = set()
    for ladder in dict.fromkeys(ladders.values()):
        if after is None:
            found |= _of_ladder(run, plan, ladder, 0, lambda _: None)
        elif ladder == ladders[after.cell]:
            found |= _of_ladder(run, plan, ladder, after.rep, say)
    return found


def _of_ladder(run: Run, plan: Plan, ladder: str, rep: int, say: Callable[[str], None]) -> set[int]:
    cells = [cell for cell in plan.cells if cell.ladder == ladder and cell.routing is None]
    begun = {cell.id: max(rep, run.begun(cell.id)) for cell in cells}
    if plan.until is None or not cells or any(begun[cell.id] < cell.least for cell in cells):
        return set()
    comparisons = so_far(run, plan, cells)
    done = enough(plan.until, cells, begun, comparisons)
    say(stands(plan.until, cells, comparisons, done))
    steps = enumerate(plan.steps)
    return {n for n, step in steps if done and step.cell in begun and step.rep > last_of_block(begun[step.cell])}
