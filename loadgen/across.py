"""Runs that lie in the store, held against each other: the same cells of two runs, or two targets of one run.

In: assembled reports, and what is meant to differ. Out: an `Across`: comparisons as a run itself makes them, with where
both sides come from and what else differs between them. Targets of one run were interleaved and are compared by pairs.
Those of different runs were not: their interval is Welch's, and does not hold what changed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from loadgen.assemble import ReportCell, RunReport, TargetCell, Warned, axis_of, pairs_of, warnings_of
from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import Comparison, Settings
from loadgen.errors import EXIT_INVALID, EXIT_OK, UsageError
from loadgen.fair import fairness
from loadgen.host import machine_words
from loadgen.matching import Asked, Of, pairs_of_cells, pairs_of_sides
from loadgen.noise import Noise, doubted, remembered
from loadgen.scenario.factors import FACTORS
from loadgen.scenario.override import did_you_mean
from loadgen.statistics import Verdict
from loadgen.summary import Doubt

VERSION = 1
"""Version of the layout of `Across` as JSON."""

MAX_WINDOW_DIFFERENCE = 0.1
"""Windows whose lengths differ by more carry a doubt: a longer one is quieter, and sees other moments."""

NoiseOf = Callable[[Mapping[str, Any], Any, str, str], Noise | None]
"""(machine, scope, load, measure) -> its noise, as `noise.noise_of` finds it in a store."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One target of one run, under the name that sentences have for it."""

    name: str
    target: str
    run: str
    path: str
    scenario: str
    started: str | None
    status: str | None
    machine: str
    loadgen: str | None


class Across(msgspec.Struct, frozen=True, kw_only=True):
    """What stored runs say of each other. ``cells`` are those that both sides have, with their targets by the names of
    ``sides``; ``comparisons`` has one entry for each pair of sides."""

    schema: int = VERSION
    sides: tuple[Side, ...]
    cells: tuple[ReportCell, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[Warned, ...]
    notes: tuple[str, ...]
    exit_code: int


def across(reports: Sequence[RunReport], asked: Asked, noise: NoiseOf | None = None) -> Across:
    """Compares the first run's target with those of the later ones, or the targets of the only run.

    Raises UsageError for targets and factors that do not exist, and for runs that have no cell in common.
    """
    pairs = pairs_of_sides(reports, asked)
    found = [_compared(baseline, candidate, asked, noise) for baseline, candidate in pairs]
    comparisons = tuple(comparison for comparison, _, _ in found)
    cells = _merged([cell for _, cells, _ in found for cell in cells])
    sides = {side.name: side for pair in pairs for side in pair}
    return Across(
        sides=tuple(map(_side, sides.values())),
        cells=cells,
        comparisons=comparisons,
        warnings=tuple(warnings_of(cells)),
        notes=tuple(dict.fromkeys(note for _, _, notes in found for note in notes)),
        exit_code=_exit_code(comparisons),
    )


def _compared(
    baseline: Of, candidate: Of, asked: Asked, noise: NoiseOf | None
) -> tuple[Comparison, list[ReportCell], list[str]]:
    """The comparison of two sides, their common cells, and notes."""
    matched, notes = pairs_of_cells(baseline, candidate)
    cells = [_two(before, baseline, after, candidate) for before, after in matched]
    declared = _declared(baseline, candidate, asked)
    paired = baseline.run == candidate.run
    made, doubts = (
        [],
        [*_doubts(baseline, candidate, cells), *(() if paired else _missing(matched, baseline, candidate))],
    )
    differing: list[str] = []
    for cell, (before, after) in zip(cells, matched, strict=True):
        sides = (_held(baseline, before), _held(candidate, after))
        _check_factors(asked.factor or (), [side.facts for side in sides])
        differing += fairness.differences(sides[0].facts, sides[1].facts, declared)
        pairs = msgspec.structs.replace(pairs_of(cell, baseline.name, candidate.name), paired=paired)
        made.append(fairness.held(pairs, *sides, declared))
        notes += filter(None, [fairness.same_replies(*sides)])
    settings = _settings(baseline, candidate, asked, cells)
    comparison = compare(made, settings)
    notes += [fairness.note(declared, [text for one in made for text in one.differences]), *_how_to_declare(differing)]
    comparison = msgspec.structs.replace(comparison, doubts=(*comparison.doubts, *dict.fromkeys(doubts)))
    if noise is not None:
        comparison = doubted(comparison, dict(_noise(baseline, candidate, comparison.primary, noise)))
    return comparison, cells, notes


def _two(before: ReportCell, baseline: Of, after: ReportCell, candidate: Of) -> ReportCell:
    """One cell with both sides as its targets. Two sides of one run keep their pairs; those of two have none, and so
    a repeat that is missing leaves nothing else out."""
    sides = [_renamed(before, baseline), _renamed(after, candidate)]
    if baseline.run != candidate.run:
        sides = [msgspec.structs.replace(side, results=tuple(filter(None, side.results))) for side in sides]
    return msgspec.structs.replace(before, targets=tuple(sides))


def _renamed(cell: ReportCell, side: Of) -> TargetCell:
    target = next(target for target in cell.targets if target.target == side.target)
    return msgspec.structs.replace(target, target=side.name)


def _settings(baseline: Of, candidate: Of, asked: Asked, cells: Sequence[ReportCell]) -> Settings:
    words = baseline.report.run["scenario"].get("comparison") or {}
    primary = asked.metric or words.get("metric") or Settings().primary
    plans = (baseline.report.plan, candidate.report.plan)
    restarted = plans[0].restarts(baseline.target) and plans[1].restarts(candidate.target)
    return Settings(
        primary=primary,
        margins={**(words.get("margin") or {}), **({} if asked.margin is None else {primary: asked.margin})},
        axis=axis_of(tuple(cells)),
        scope="restart" if restarted else "instance",
        sequential=any(plan.until is not None for plan in plans),
    )


# What differs, and what weakens it ------------------------------------------------------------------------------------


def _declared(baseline: Of, candidate: Of, asked: Asked) -> tuple[str, ...]:
    """What is meant to differ: what was asked for; of targets of one run, what their scenario says."""
    if asked.factor is not None:
        return asked.factor
    if baseline.run != candidate.run:
        return ()
    words = baseline.report.run["scenario"].get("comparison") or {}
    return tuple(words.get("factor", ("model",)))


def _held(side: Of, cell: ReportCell) -> fairness.Side:
    kept = fairness.Kept(side.report.run, side.report.plan, side.report.fingerprints)
    return kept.side(cell.id, side.target).named(side.name)


def _check_factors(declared: Sequence[str], facts: Sequence[Mapping[str, str]]) -> None:
    found = [name.removeprefix("found.").partition(".")[0] for side in facts for name in side]
    known = dict.fromkeys([*FACTORS, *(name for name in found if name not in ("target", "place"))])
    for word in declared:
        if word not in known:
            raise UsageError(f"--factor {word}: there is no such factor{did_you_mean(word, known)}.")


def _how_to_declare(differing: Sequence[str]) -> list[str]:
    """Which words would declare what was found to differ."""
    words = dict.fromkeys(sentence.partition(" ")[0].partition(".")[0] for sentence in differing)
    flags = " ".join(f"--factor {word}" for word in words)
    return [f"If that is what is meant to differ, say so: {flags}"] if words else []


def _doubts(baseline: Of, candidate: Of, cells: Sequence[ReportCell]) -> Iterator[Doubt]:
    for side in dict.fromkeys((baseline.run, candidate.run)):
        status = next(one.report.run.get("status") for one in (baseline, candidate) if one.run == side)
        if status not in ("complete", None):
            yield Doubt("not_complete", f"{side} is {status}: what it lacks is not in the comparison.")
    for cell in cells:
        before, after = ([summary.window.length_s for summary in target.summaries] for target in cell.targets)
        if before and after:
            a, b = sum(before) / len(before), sum(after) / len(after)
            if abs(b - a) > MAX_WINDOW_DIFFERENCE * max(a, b):
                text = f"The windows of {baseline.name} lasted {a:.3g} s and those of {candidate.name} {b:.3g} s."
                yield Doubt("window_differs", text)
                return


def _missing(matched: Sequence[tuple[ReportCell, ReportCell]], *sides: Of) -> Iterator[Doubt]:
    """Repeats that are not there. Of targets of one run their pairs are left out, and the comparison says so itself."""
    for i, side in enumerate(sides):
        targets = [_renamed(cells[i], side) for cells in matched]
        missing = sum(target.results.count(None) for target in targets)
        if missing:
            planned = sum(len(target.results) for target in targets)
            yield Doubt("missing", f"{missing} of {planned} repeats of {side.name} are missing.")


def _noise(baseline: Of, candidate: Of, measure: str, noise: NoiseOf) -> Iterator[tuple[str, Noise]]:
    """The noise of each cell of the baseline: the larger one of what is known of both sides' machines."""
    for cell in baseline.report.cells:
        found = []
        for side in (baseline, candidate):
            load = remembered(side.report.run).loads.get(cell.id)
            if load is not None:
                found.append(noise(side.report.run.get("machine") or {}, side.report.plan.scope, load, measure))
        known = [one for one in found if one is not None]
        if known:
            yield cell.id, max(known, key=lambda one: one.cv)


# What is printed of it ------------------------------------------------------------------------------------------------


def _side(side: Of) -> Side:
    run = side.report.run
    machine = run.get("machine") or {}
    return Side(
        name=side.name,
        target=side.target,
        run=side.run,
        path=side.report.path,
        scenario=str(run["scenario"]["name"]),
        started=run.get("started"),
        status=run.get("status"),
        machine=machine_words(machine) if machine else _elsewhere(run),
        loadgen=(run.get("versions") or {}).get("loadgen"),
    )


def _elsewhere(run: Mapping[str, Any]) -> str:
    """Of a run whose machine is not known: who measured, if it was another tool."""
    origin = run.get("origin")
    return f"imported from {origin['tool']}, machine not known" if origin else "machine not known"


def _merged(cells: Sequence[ReportCell]) -> tuple[ReportCell, ...]:
    """Each cell once, with every side that some comparison has in it."""
    found: dict[str, dict[str, TargetCell]] = {}
    for cell in cells:
        found.setdefault(cell.id, {}).update({target.target: target for target in cell.targets})
    first = {cell.id: cell for cell in reversed(cells)}
    return tuple(
        msgspec.structs.replace(first[name], targets=tuple(targets.values())) for name, targets in found.items()
    )


def _exit_code(comparisons: Sequence[Comparison]) -> int:
    verdicts = [cell.primary.verdict for comparison in comparisons for cell in comparison.cells]
    return EXIT_INVALID if Verdict.INVALID in verdicts else EXIT_OK
