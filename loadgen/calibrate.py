"""A target against itself: what a comparison here says where nothing differs, and how much its repeats vary.

In: a scenario and one of its targets. Out: the same scenario with that target twice, called ``a`` and ``b``, to be run
as any other; and, of the report of that run, the noise floor (see ``noise.py``). Whatever the run says beyond
"equivalent" or "inconclusive" is the machine or the method, since there is no difference to find.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.errors import ScenarioError, UsageError
from loadgen.metrics import METRICS, Measure
from loadgen.noise import DIFFERENT, Floor, FloorCell, machine_key, pair_cv, pooled_cv, remembered
from loadgen.scenario import Loaded, Scenario, expand
from loadgen.scenario.axes import axis_path
from loadgen.scenario.override import did_you_mean
from loadgen.scenario.sides import urls_of
from loadgen.scenario.tree import dotted
from loadgen.statistics import MIN_REPEATS
from loadgen.summary import Summary

A, B = "a", "b"
"""The names of the two sides."""

_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def chosen(scenario: Scenario, target: str | None) -> str:
    """The target that is calibrated: the one asked for, else the comparison's baseline, else the first.

    Raises UsageError for one that does not exist.
    """
    names = list(scenario.targets)
    if target is not None and target not in names:
        raise UsageError(f"--target {target}: there is no such target{did_you_mean(target, names)}.")
    return target or (scenario.comparison and scenario.comparison.baseline) or names[0]


def against_itself(loaded: Loaded, target: str, repeats: int) -> Loaded:
    """The scenario in which the target is held against itself, in the scope that the scenario's comparison has.

    Without a comparison servers are restarted between repeats; an endpoint, which nobody restarts, is one instance.
    Objectives are left out: they are nobody's business here. Raises ScenarioError where both sides cannot stand.
    """
    scenario = loaded.scenario
    if scenario.search is not None:
        raise UsageError(
            f"{loaded.path}: a search has no load of its own to measure the noise of; set one, and no search."
        )
    data = scenario.model_dump(by_alias=True, exclude_unset=True)
    words = data["targets"][target]
    comparison = data.get("comparison") or {"scope": "instance" if urls_of(words) else "restart"}
    changed = {
        **data,
        "name": f"{scenario.name[:50]}-calibrate",
        "targets": {A: words, B: copy.deepcopy(words)},
        "matrix": _matrix(data, target),
        "repeats": repeats,
        "objectives": (),
        "comparison": {**comparison, "baseline": A, "candidates": (B,), "factor": (), "until": None},
        "workload": {word: value for word, value in data["workload"].items() if word != "routing_check"},
    }
    twice = Scenario.build(changed, _references(scenario, target))
    try:
        expand(twice)
    except ScenarioError as error:
        raise ScenarioError(f"{loaded.path}: with {target} on both sides, {A} and {B}: {error}") from error
    return msgspec.structs.replace(loaded, scenario=twice)


def _matrix(data: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The matrix with what it says of the target said of both sides; what it says of other targets is left out, and
    so is every exclusion that goes by them."""
    matrix = data.get("matrix", {})
    excluded = [_renamed(entry, data, target) for entry in matrix.get("exclude", ())]
    included = [_renamed(entry, data, target) for entry in matrix.get("include", ())]
    kept = [new for new, old in zip(excluded, matrix.get("exclude", ()), strict=True) if len(new) == len(old)]
    axes = {word: values for word, values in matrix.items() if word not in ("include", "exclude")}
    return {
        **_renamed(axes, data, target),
        "exclude": tuple(kept),
        "include": tuple(entry for entry in included if entry),
    }


def _renamed(values: Mapping[str, Any], data: Mapping[str, Any], target: str) -> dict[str, Any]:
    found = {}
    for word, value in values.items():
        path = axis_path(word, data)
        if path[0] != "targets" or path[1] == "*":
            found[word] = value
        elif path[1] == target:
            found[dotted(("targets", "*", *path[2:]))] = value
    return found


def _references(scenario: Scenario, target: str) -> dict[tuple[str | int, ...], str]:
    found = {path: text for path, text in scenario.references.items() if path[0] != "targets"}
    for path, text in scenario.references.items():
        if path[:2] == ("targets", target):
            found |= {("targets", side, *path[2:]): text for side in (A, B)}
    return found


def floor_of(report: RunReport, scenario: str, target: str) -> Floor:
    """The noise floor that a run of `against_itself` found; ``scenario`` and ``target`` are the names it goes by.

    A cell without three pairs of repeats is left out, and one with a repeat that is invalid or failed; so is a measure
    that some repeat lacks.
    """
    loads = remembered(report.run).loads
    cells = (_cell(cell, loads.get(cell.id, "")) for cell in report.cells)
    return Floor(
        key=machine_key(report.run["machine"]),
        machine=report.run["machine"],
        scope=report.plan.scope,
        scenario=scenario,
        target=target,
        run=str(report.run["run"]),
        at=str(report.run["ended"]),
        cells=tuple(cell for cell in cells if cell.cv),
    )


def _cell(cell: ReportCell, load: str) -> FloorCell:
    a, b = (_good(target) for target in cell.targets)
    cv, in_pairs = {}, {}
    if len(a.keys() & b.keys()) >= MIN_REPEATS:
        for what in _measures():
            sides = [{rep: summary.get(what) or 0.0 for rep, summary in side.items()} for side in (a, b)]
            if all(all(side.values()) for side in sides):
                pairs = [[side[rep] for rep in sorted(a.keys() & b.keys())] for side in sides]
                cv[str(what)] = pooled_cv([list(side.values()) for side in sides]) or 0.0
                in_pairs[str(what)] = pair_cv(*pairs) or 0.0
    return FloorCell(cell=cell.id, axes=cell.axes, load=load, n=len(a) + len(b), cv=cv, pair_cv=in_pairs)


def _good(target: TargetCell) -> dict[int, Summary]:
    """The summaries by repeat, those left out that were interrupted; none at all where one is not to be trusted."""
    done = {result.rep: result.summary for result in target.results if result is not None and not result.interrupted}
    return done if all(summary.state == "ok" for summary in done.values()) else {}


def _measures() -> Iterator[Measure]:
    for name, metric in METRICS.items():
        if metric.better is not None:
            yield from (Measure(name, one) for one in ((None,) if metric.per == "window" else _STATISTICS))


def unsteady(report: RunReport) -> list[str]:
    """A sentence for each cell in which a target is said to differ from itself."""
    return [
        f"The verdict in {cell.cell} is {cell.primary.verdict}, of a target and itself: the machine or the method is "
        "unsteady. See what else runs here (`loadgen doctor`), make load.window_s longer, and calibrate again."
        for comparison in report.comparisons
        for cell in comparison.cells
        if cell.primary.verdict in DIFFERENT
    ]
