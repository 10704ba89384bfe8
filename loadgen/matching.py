"""Which targets and cells of stored runs belong together. In: reports, and what was asked for. Out: pairs of sides.

A target of the first run is the baseline; the candidates are the same target of the later runs, or the other targets of
the only one. Cells belong together by their axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from loadgen.assemble import ReportCell, RunReport
from loadgen.errors import UsageError
from loadgen.scenario.override import did_you_mean


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be compared, by name, as the command line says it; everything has a default.

    ``margin`` is for the primary measure, ``metric``; ``factor`` is what is meant to differ.
    """

    baseline: str | None = None
    candidates: tuple[str, ...] = ()
    metric: str | None = None
    margin: float | None = None
    factor: tuple[str, ...] | None = None


class Of(NamedTuple):
    """A target of a run, and its name in sentences."""

    report: RunReport
    target: str
    name: str = ""

    @property
    def run(self) -> str:
        return str(self.report.run.get("run") or self.report.path)


def pairs_of_sides(reports: Sequence[RunReport], asked: Asked) -> list[tuple[Of, Of]]:
    """Who is held against whom: (baseline, candidate), with names that tell all sides apart.

    Raises UsageError for targets that do not exist, and where nothing says which belong together.
    """
    return _named(list(_within(reports[0], asked) if len(reports) == 1 else _between(reports, asked)))


def _within(report: RunReport, asked: Asked) -> Iterator[tuple[Of, Of]]:
    """The targets of one run: the baseline asked for (else the scenario's, else the first) and all others."""
    names = _targets(report)
    words = report.run["scenario"].get("comparison") or {}
    baseline = _known(report, asked.baseline, "--baseline") or words.get("baseline") or names[0]
    for name in asked.candidates:
        if _known(report, name, "--candidate") == baseline:
            raise UsageError(f"--candidate {name}: it is the baseline, and nothing is compared with itself.")
    candidates = asked.candidates or [name for name in names if name != baseline]
    if not candidates:
        run = Of(report, baseline).run
        raise UsageError(f"{run} has one target, {baseline}; name a second run, to compare it with.")
    for name in candidates:
        yield Of(report, baseline), Of(report, name)


def _between(reports: Sequence[RunReport], asked: Asked) -> Iterator[tuple[Of, Of]]:
    """The first run and each later one: the targets asked for, else the only ones, else those of the same name."""
    first, *later = reports
    names = [Of(report, "").run for report in reports]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{twice[0]} is named twice, and nothing is compared with itself.")
    for report in later:
        for before, after in _matched(first, report, asked):
            yield Of(first, before), Of(report, after)


def _matched(first: RunReport, later: RunReport, asked: Asked) -> list[tuple[str, str]]:
    mine, theirs = _targets(first), _targets(later)
    baseline = _known(first, asked.baseline, "--baseline")
    candidates = [_known(later, name, "--candidate") or name for name in asked.candidates]
    if candidates and (baseline or len(mine) == 1):
        return [(baseline or mine[0], name) for name in candidates]
    if len(theirs) == 1 and (baseline or len(mine) == 1):
        return [(baseline or mine[0], theirs[0])]
    wanted = [baseline] if baseline else candidates or mine
    found = [(name, name) for name in wanted if name in mine and name in theirs]
    if not found:
        raise UsageError(
            f"no target has the same name in both runs: {Of(first, '').run} has {', '.join(mine)}, "
            f"{Of(later, '').run} has {', '.join(theirs)}; say which with --baseline and --candidate."
        )
    return found


def _targets(report: RunReport) -> list[str]:
    return list(report.run["scenario"]["targets"])


def _known(report: RunReport, name: str | None, flag: str) -> str | None:
    names = _targets(report)
    if name is not None and name not in names:
        raise UsageError(f"{flag} {name}: {Of(report, name).run} has no such target{did_you_mean(name, names)}.")
    return name


def _named(pairs: Sequence[tuple[Of, Of]]) -> list[tuple[Of, Of]]:
    """The sides with names that tell them apart: the target's, with the end of the run's where two share it."""
    sides = list(dict.fromkeys((side.run, side.target) for pair in pairs for side in pair))
    targets = [target for _, target in sides]
    ends = {run: run.rpartition("-")[2] for run, _ in sides}
    unique = len(set(ends.values())) == len(ends) and all(ends.values())

    def name(side: Of) -> Of:
        if targets.count(side.target) == 1:
            return side._replace(name=side.target)
        return side._replace(name=f"{side.target} ({ends[side.run] if unique else side.run})")

    return [(name(baseline), name(candidate)) for baseline, candidate in pairs]


def pairs_of_cells(baseline: Of, candidate: Of) -> tuple[list[tuple[ReportCell, ReportCell]], list[str]]:
    """Pairs of cells with the same axes, and a note on the others. Two runs of one cell each have that in common.

    Raises UsageError where there is no pair.
    """
    mine, theirs = ({_key(cell): cell for cell in side.report.cells} for side in (baseline, candidate))
    found = [(cell, theirs[key]) for key, cell in mine.items() if key in theirs]
    if not found and len(mine) == len(theirs) == 1:
        found = [(baseline.report.cells[0], candidate.report.cells[0])]
    told = [f"{side.run} has {_listed(side.report.cells)}" for side in (baseline, candidate)]
    if not found:
        raise UsageError(f"the runs have no cell in common: {'; '.join(told)}.")
    alone = [
        f"In {side.run} alone: {_listed([cell for key, cell in own.items() if key not in other])}."
        for side, own, other in ((baseline, mine, theirs), (candidate, theirs, mine))
        if set(own) - set(other) and len(found) < len(own)
    ]
    return found, alone


def _key(cell: ReportCell) -> tuple[tuple[str, str], ...]:
    numbers = {
        name: value for name, value in cell.axes.items() if isinstance(value, int) and not isinstance(value, bool)
    }
    axes = {**cell.axes, **{name: float(value) for name, value in numbers.items()}}
    return tuple(sorted((name, repr(value)) for name, value in axes.items()))


def _listed(cells: Sequence[ReportCell], most: int = 8) -> str:
    names = [cell.id for cell in cells]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
