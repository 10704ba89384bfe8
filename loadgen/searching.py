"""The story of one search: probe after probe, until no other load is to be tried.

In: the search, and how a probe is driven. Out: sentences for the person who waits; what was measured lies in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from loadgen.plan import Plan
from loadgen.scenario import Cell, Loaded, parse_objective
from loadgen.scenario.model import Load
from loadgen.scenario.search_rules import probe_cell
from loadgen.search.path import Stop
from loadgen.searched import Probe, Searched, next_probe, searched
from loadgen.shown import brief
from loadgen.store import Run

_TRIES = 2
"""How often a probe is driven that comes to nothing, because its server dies."""


_WIDE = 10**9
"""More than any machine has workers for, of which it then takes as many as it has cores to spare."""


class Search(NamedTuple):
    """The search that ``number`` counts to in a plan, from 0. ``pattern`` is the cell that is searched in."""

    run: Run
    plan: Plan
    number: int
    pattern: Cell
    loaded: Loaded


def probe_after_probe(of: Search, drive: Callable[[Probe, Cell], None], stopped: Callable[[], bool]) -> Iterator[str]:
    """Drives every probe that is still to be made. It gives up where one fails twice in a row."""
    target, failed = of.plan.searches[of.number].target, 0
    while not stopped() and failed < _TRIES:
        probe = next_probe(of.run, of.plan, of.number, of.pattern, of.loaded)
        if isinstance(probe, Stop):
            break
        drive(probe, probe_cell(of.pattern, probe.word, probe.load))
        failed = 0 if of.run.repeat(probe.step.cell, probe.step.target, probe.step.rep).whole() else failed + 1
        if not failed:
            yield f"{target}, probe {probe.number}: {_came_to(_so_far(of))}"
    found = _so_far(of)
    yield f"{target}: {found.sentence}; {found.why}"


def widest_loads(cells: Iterable[Cell]) -> list[Load]:
    """Loads that need as many workers as any probe may."""
    return [cell.scenario.load.model_copy(update={"concurrency": _WIDE, "rate_rps": _WIDE}) for cell in cells]


def _so_far(of: Search) -> Searched:
    objectives = [parse_objective(text) for text in of.pattern.scenario.objectives]
    return searched(of.run, of.plan, of.number, objectives)


def _came_to(found: Searched) -> str:
    """What the last probe said."""
    last = found.probes[-1]
    load = f"{last.load:g} {'requests/s' if last.word == 'rate_rps' else 'in flight'}"
    if last.trial is not None:
        return f"{load} {last.trial.verdict} ({last.trial.why})"
    return f"{load}, {brief(last.request_rps or 0.0, 3)} answered a second" + ("" if last.answers else " (INVALID)")
