"""Reports as CSV, for spreadsheets and notebooks: a row a repeat, every number in its base unit and with all digits.

In: `RunReport`s. Out: text with a header. A repeat that is missing has a row without numbers, and one that is not to be
trusted has its state and the reason beside them: leave out what is not ``ok`` before you average. A repeat that has
parts (turns, endpoints) is followed by a row for each, which its last column, ``part``, names: it is empty for whole
repeats, and the rates of a repeat's parts of one kind add up to its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.metrics import METRICS, PERCENTILES, Measure
from loadgen.parts import Part
from loadgen.repeat import Result
from loadgen.reports.rows import plain

_FIRST = ("run", "scenario", "cell")
_NAMES = (
    "target",
    "repeat",
    "attempt",
    "state",
    "why",
    "interrupted",
    "started",
    "window_s",
    "requests",
    "ok",
    "failed",
)
_LAST = ("batch_seen", "cached_share", "implied_low", "implied_high", "late_p99_s", "energy_j", "part")
_FORMULAS = ("=", "+", "-", "@")


def render(reports: Sequence[RunReport]) -> str:
    """All of them in one table. The axes of the matrix follow the cell, each in a column of its own."""
    axes = list(dict.fromkeys(axis for report in reports for cell in report.cells for axis in cell.axes))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measures = list(_measures())
    writer.writerow([*_FIRST, *map(one_line, axes), *_NAMES, *(str(one).replace(" ", "_") for one in measures), *_LAST])
    for report in reports:
        for cell in (*report.cells, *report.routing_cells):
            for target in cell.targets:
                writer.writerows(_rows(report, cell, target, axes, measures))
    return out.getvalue()


def _measures() -> Iterator[Measure]:
    """Every metric: those of requests by mean and percentiles, those of the window as they are."""
    for metric in METRICS.values():
        if metric.per == "window":
            yield Measure(metric.name)
        else:
            yield from (Measure(metric.name, statistic) for statistic in ("mean", *PERCENTILES))


def _rows(
    report: RunReport, cell: ReportCell, target: TargetCell, axes: Sequence[str], measures: Sequence[Measure]
) -> Iterator[list[object]]:
    scenario = str(report.run["scenario"]["name"])
    values = [cell.axes.get(axis) for axis in axes]
    for number, result in enumerate(target.results, 1):
        start = (report.run.get("run"), scenario, cell.id, *values, target.target)
        for rest in (_repeat(number, result, measures, target.ahead.get(number, "skipped")), *_parts(result, measures)):
            yield [one_line(value) if isinstance(value, str) else value for value in (*start, *rest)]


def _repeat(number: int, result: Result | None, measures: Sequence[Measure], missing: str) -> Iterator[object]:
    """What follows the target's name. ``number`` and ``missing`` stand for a repeat that left nothing."""
    if result is None:
        yield from (number, None, missing)
        return
    one = result.summary
    why = " ".join(doubt.text for doubt in one.invalid)
    yield from (result.rep, result.attempt, one.state, why, int(result.interrupted), result.started)
    yield from (one.window.length_s, one.requests, one.ok, one.failed)
    yield from (one.get(measure) for measure in measures)
    bounds = (None, None) if result.implied is None else (result.implied.low, result.implied.high)
    yield from (result.seen.batch_seen, result.cached_share, *bounds, one.audit.late_p99_s, result.energy_j, "")


def _parts(result: Result | None, measures: Sequence[Measure]) -> Iterator[Iterator[object]]:
    """A line for each part of a repeat, under its repeat's number and state, with what a part holds."""
    if result is None:
        return
    for kind, named in result.parts.items():
        for name, part in named.items():
            yield _part(result, part, f"{kind} {name}", measures)


def _part(result: Result, part: Part, name: str, measures: Sequence[Measure]) -> Iterator[object]:
    one = result.summary
    yield from (result.rep, result.attempt, one.state, "", int(result.interrupted), result.started)
    yield from (one.window.length_s, part.requests, part.ok, part.failed)
    yield from (part.get(measure) if hasattr(part, measure.metric) else None for measure in measures)
    yield from (None, part.cached_share, None, None, None, None, name)


def one_line(text: str) -> str:
    """Text of others on one line, and never a formula of a spreadsheet."""
    line = plain(" ".join(text.split()))
    return f"'{line}" if line.startswith(_FORMULAS) else line
