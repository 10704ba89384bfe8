"""A run folder becomes a `RunReport`: the results of every repeat, comparisons, judgements, doubts, the exit code.

In: files of the store. Out: one struct that every report renders. It reads what was written and nothing else, so
``loadgen report RUN`` gives the same as the end of the run did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from loadgen.cells import (
    Again,
    Ahead,
    ReportCell,
    TargetCell,
    Warned,
    again_of,
    ahead_of,
    elsewhere,
    not_come_to,
    warnings_of,
)
from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, Comparison, Settings, Sides
from loadgen.ended import exit_code_of
from loadgen.fair.fairness import Kept, held, with_note
from loadgen.fair.fingerprint import Fingerprint, read_fingerprints
from loadgen.judge import judge
from loadgen.limits.floor import Floors, MeasuredCell
from loadgen.limits.mixture import Mixture
from loadgen.limits.normalise import Normalisation
from loadgen.limits.yardsticks import Yardsticks, yardsticks
from loadgen.long.over_time import OverTime, over_time
from loadgen.noise import doubted, remembered
from loadgen.plan import Plan, PlannedCell
from loadgen.repeat import Result
from loadgen.routing import RoutingCheck, routing_check
from loadgen.scenario import Objective, contrasts, parse_objective
from loadgen.searched import Searched, read_plan, searched
from loadgen.store import Run
from loadgen.summary import Summary
from loadgen.until import too_wide

VERSION = 1

__all__ = [
    "ReportCell",
    "RunReport",
    "TargetCell",
    "Warned",
    "assemble",
    "axis_of",
    "pairs_of",
    "so_far",
    "warnings_of",
]


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a report says. ``run`` is run.json; ``comparisons`` has one entry for each candidate. The cells of a
    routing check stand apart from those that are compared, and ``routing`` is what they came to. ``floors`` are the
    cells against their rooflines, ``normalised`` their rates by what they took, ``over_time`` the long repeats in
    intervals. The cells of ``searches`` are their probes."""

    schema: int = VERSION
    path: str
    run: dict[str, Any]
    plan: Plan
    cells: tuple[ReportCell, ...]
    comparisons: tuple[Comparison, ...]
    routing_cells: tuple[ReportCell, ...] = ()
    routing: RoutingCheck | None = None
    floors: Floors = Floors()
    normalised: Normalisation = Normalisation()
    mixtures: tuple[Mixture, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    over_time: tuple[OverTime, ...] = ()
    searches: tuple[Searched, ...] = ()
    warnings: tuple[Warned, ...]
    failures: tuple[str, ...]
    exit_code: int


def assemble(run: Run, interrupted: int | None = None) -> RunReport:
    """The report of a run as far as it has come. ``interrupted`` is the exit code of a signal that ended it."""
    described = run.described()
    plan = read_plan(run)
    found = _cells(run, plan, plan.cells, described)
    plain = [cell for cell in found if cell.routing is None]
    known = yardsticks(described, {cell.id: _measured(cell) for cell in plain}, contrasts(described["scenario"]))
    cells = tuple(_with_facts(plain, known))
    extra = tuple(cell for cell in found if cell.routing is not None)
    kept = Kept(described, plan, tuple(read_fingerprints(run)))
    compared = _comparisons(cells, kept)
    if plan.until is not None:
        compared = [too_wide(plan.until, comparison) for comparison in compared]
    comparisons = tuple(_doubted(compared, described))
    failures = tuple(described.get("failures", ()))
    objectives = objectives_of(described["scenario"])
    searches = tuple(searched(run, plan, number, objectives) for number in range(len(plan.searches)))
    lacking = [] if searches else not_come_to(found, described)
    return RunReport(
        path=str(run.folder),
        run=described,
        plan=plan,
        cells=cells,
        comparisons=comparisons,
        routing_cells=extra,
        routing=_routing(cells, extra, comparisons),
        warnings=(*lacking, *elsewhere(described), *warnings_of((*cells, *extra))),
        failures=failures,
        exit_code=interrupted or exit_code_of(found, failures, searches, lacking=bool(lacking)),
        searches=searches,
        floors=known.floors,
        normalised=known.normalised,
        mixtures=known.mixtures,
        fingerprints=tuple(kept.fingerprints),
        over_time=tuple(sorted(over_time(run, described["scenario"]), key=_place_in(found))),
    )


def _place_in(cells: Sequence[ReportCell]) -> Callable[[OverTime], tuple[int, int]]:
    """Where a long repeat stands: cells in the plan's order, targets in the scenario's, repeats as they are."""
    every = [(cell.id, target.target) for cell in cells for target in cell.targets]
    places = {place: number for number, place in enumerate(every)}
    return lambda one: (places.get((one.cell, one.target), len(every)), one.rep)


def so_far(run: Run, plan: Plan, cells: Sequence[PlannedCell]) -> list[Comparison]:
    """What is stored of these cells by now, compared; no repeat may be there yet. None is of the routing check."""
    kept = Kept(run.described(), plan, read_fingerprints(run))
    return _comparisons(_cells(run, plan, cells, kept.described), kept)


def _cells(run: Run, plan: Plan, cells: Sequence[PlannedCell], described: Mapping[str, Any]) -> tuple[ReportCell, ...]:
    ahead = ahead_of(run, plan, described)
    return tuple(_cell(run, plan, cell, described["scenario"], ahead) for cell in cells)


def _cell(
    run: Run, plan: Plan, planned: PlannedCell, scenario: dict[str, Any], ahead: Mapping[tuple[str, str, int], Ahead]
) -> ReportCell:
    cell = planned.id
    judged_here = planned.routing is None and not plan.searches  # a search says itself what its probes came to
    objectives = objectives_of(scenario) if judged_here else []
    targets = []
    for target in scenario["targets"]:
        reps = sorted(step.rep for step in plan.steps if step.cell == cell and step.target == target)
        if plan.until is not None:  # a repeat that was never begun is one that nobody needed
            reps = reps[: max(planned.least, run.begun(cell))]
        results = _that_count([_result(run, cell, target, rep) for rep in reps])
        summaries = [result.summary if result else None for result in results]
        judged = judge(objectives, summaries) if any(summaries) else []
        known = dict(zip(reps, results, strict=True))
        targets.append(
            TargetCell(
                target=target,
                results=results,
                judgements=tuple(judged),
                ahead={
                    rep: ahead[cell, target, rep] for rep in reps if not known[rep] and (cell, target, rep) in ahead
                },
                again=tuple(_again(run, cell, target, known)),
                probed=bool(plan.searches),
            )
        )
    here = tuple(target for target in targets if target.results)
    return ReportCell(id=cell, axes=planned.axes, targets=here, routing=planned.routing)


def _that_count(results: Sequence[Result | None]) -> tuple[Result | None, ...]:
    """One that was interrupted says what there is where nothing else does; beside whole repeats it is a missing one,
    for a part of a window is no window."""
    if not any(result is not None and not result.interrupted for result in results):
        return tuple(results)
    return tuple(None if result is not None and result.interrupted else result for result in results)


def _again(run: Run, cell: str, target: str, results: Mapping[int, Result | None]) -> Iterator[Again]:
    for rep, result in results.items():
        yield from again_of(run.repeat(cell, target, rep), None if result is None else result.attempt)


def objectives_of(scenario: dict[str, Any]) -> list[Objective]:
    """Those of a scenario as run.json has it."""
    return [parse_objective(text) for text in scenario.get("objectives", ())]


def _with_facts(cells: Sequence[ReportCell], known: Yardsticks) -> Iterator[ReportCell]:
    facts = known.facts()
    for cell in cells:
        targets = [msgspec.structs.replace(one, **facts[cell.id, one.target]) for one in cell.targets]
        yield msgspec.structs.replace(cell, targets=tuple(targets))


def _measured(cell: ReportCell) -> MeasuredCell:
    return MeasuredCell(axes=cell.axes, targets={target.target: target.results for target in cell.targets})


def _result(run: Run, cell: str, target: str, rep: int) -> Result | None:
    """The result of a repeat: of the newest whole attempt, else of the newest one that was interrupted."""
    repeat = run.repeat(cell, target, rep)
    whole = repeat.whole()
    paths = [whole / "summary.json"] if whole else [path / "interrupted.json" for path in reversed(repeat.attempts())]
    for path in paths:
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Result)
    return None


def _comparisons(cells: tuple[ReportCell, ...], kept: Kept) -> list[Comparison]:
    """Every contrast of the scenario. Its sides are held against each other by what is known of them first."""
    words = kept.described["scenario"].get("comparison") or {}
    declared = words.get("factor", ("model",))
    primary, margins = words.get("metric", "output_tok_s"), words.get("margin") or {}
    found = []
    for a, b in contrasts(kept.described["scenario"]):
        settings = Settings(
            primary=primary,
            margins=margins,
            axis=axis_of(cells),
            scope="restart" if kept.plan.restarts(a, b) else "instance",
            sequential=kept.plan.until is not None,
        )
        of = [(cell, _measured(cell).targets) for cell in cells]
        both = [(kept.side(cell.id, a, mine[a]), kept.side(cell.id, b, mine[b])) for cell, mine in of]
        pairs = [held(pairs_of(cell, a, b), *two, declared) for cell, two in zip(cells, both, strict=True)]
        found.append(with_note(compare(pairs, settings), pairs, declared))
    return found


def _doubted(comparisons: list[Comparison], described: dict[str, Any]) -> Iterator[Comparison]:
    """The comparisons with what the noise of this machine says against them, as far as the run knew it. Of a target
    and itself, where nothing is meant to differ, nothing of the kind is said: that is how noise is measured."""
    known = remembered(described).known
    for comparison in comparisons:
        yield doubted(comparison, known) if described["scenario"]["comparison"].get("factor") != [] else comparison


def axis_of(cells: tuple[ReportCell, ...]) -> str | None:
    """The numeric axis along which a crossing is looked for: concurrency if there is one, else the only numeric one."""
    numeric = [
        name
        for name in (cells[0].axes if cells else {})
        if all(isinstance(cell.axes.get(name), int | float) and not isinstance(cell.axes[name], bool) for cell in cells)
        and len({cell.axes[name] for cell in cells}) > 1
    ]
    return "concurrency" if "concurrency" in numeric else numeric[0] if len(numeric) == 1 else None


def pairs_of(cell: ReportCell, baseline: str, candidate: str) -> CellPairs:
    """Two targets of a cell as the sides of a comparison, repeat by repeat."""
    sides = {target.target: target for target in cell.targets}
    return CellPairs(
        cell=cell.id,
        axes=cell.axes,
        baseline=baseline,
        candidate=candidate,
        baseline_repeats=sides[baseline].whole,
        candidate_repeats=sides[candidate].whole,
        batch_seen=Sides(*(sides[name].by_repeat(lambda one: one.seen.batch_seen) for name in (baseline, candidate))),
        cached=Sides(*(sides[name].by_repeat(lambda one: one.cached_share) for name in (baseline, candidate))),
        gpus=(sides[baseline].gpus, sides[candidate].gpus),
        doubts=tuple(filter(None, (sides[baseline].routing, sides[candidate].routing))),
    )


def _routing(
    cells: tuple[ReportCell, ...], extra: tuple[ReportCell, ...], comparisons: tuple[Comparison, ...]
) -> RoutingCheck | None:
    """What the cells of a routing check say of each target, and of every pair that is compared."""
    if not extra:
        return None
    sides: dict[str, dict[str, list[Summary | None]]] = {}
    for cell in extra:
        for target in cell.targets:
            repeats = [result.summary if result else None for result in target.results]
            sides.setdefault(target.target, {})[str(cell.routing)] = repeats
    axes = {name: value for name, value in extra[0].axes.items() if name != "routing"}
    pattern = next((cell.id for cell in cells if cell.axes == axes), "all")
    contrasts = [(one.cells[0].baseline, one.cells[0].candidate) for one in comparisons if one.cells]
    return routing_check(pattern, sides, contrasts)
