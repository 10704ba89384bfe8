"""What stands in tables on the page: a `Table` has a caption, a head and rows of text, and goes through no markup.

In: a `RunReport`. Out: tables, in the order of the page. The template escapes every text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from loadgen.assemble import ReportCell, RunReport
from loadgen.reports import machines, over_time, parts, ratios, repeats, rows, search, yardsticks

MOST_ROWS = 1000
"""Rows of the longest table on the page. The Markdown report has them all."""


class Table(msgspec.Struct, frozen=True):
    """Rows of text under a head. The first ``left`` columns stand to the left; ``more`` is said below it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    more: str = ""
    marked: Sequence[str] = ("FAILED", "INVALID", "SKIPPED")


class Chapter(msgspec.Struct, frozen=True):
    """Tables under one heading, and lines below them."""

    id: str
    heading: str
    tables: Sequence[Table]
    lines: Sequence[str] = ()


def table(caption: str, lines: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table of lines, the first of which is the head; what is over `MOST_ROWS` is counted and left out."""
    head, *body = lines
    over = len(body) - MOST_ROWS
    more = f"{over} more rows are in report.md, and in report.json with all digits." if over > 0 else ""
    return Table(caption, head, body[:MOST_ROWS], left, more)


def cells(report: RunReport) -> Table:
    """The table of results."""
    caption = "Mean over the valid repeats of each repeat's own value; a dash: none has enough samples"
    return table(caption, rows.rows(report), _left(report))


def of_cells(report: RunReport, chosen: Sequence[ReportCell]) -> RunReport:
    """A report of these cells alone."""
    ids = {cell.id for cell in chosen}
    return msgspec.structs.replace(
        report,
        cells=tuple(chosen),
        comparisons=tuple(
            msgspec.structs.replace(one, cells=tuple(cell for cell in one.cells if cell.cell in ids))
            for one in report.comparisons
        ),
        floors=msgspec.structs.replace(
            report.floors, cells=tuple(one for one in report.floors.cells if one.cell in ids)
        ),
        normalised=msgspec.structs.replace(
            report.normalised, cells=tuple(one for one in report.normalised.cells if one.cell in ids)
        ),
    )


def chapters(report: RunReport) -> Iterator[Chapter]:
    """Everything below the charts."""
    known = (_parts(report), _over_time(report), _ratios(report), _floors(report), _normalised(report))
    for chapter in (_searches(report), *known, _machines(report), _routing(report), _repeats(report)):
        if chapter.tables or chapter.lines:
            yield chapter


def _searches(report: RunReport) -> Chapter:
    found = list(search.tables(report, more=True))
    shown = [table(one.heading, one.rows(one.columns), 2) for one in found]
    return Chapter("searches", "The path of the search", shown, [note for one in found for note in one.notes])


def _left(report: RunReport) -> int:
    return len(rows.axis_names(report) or [""]) + 1


def _parts(report: RunReport) -> Chapter:
    found = list(parts.tables(report))
    shown = [table(one.heading, one.rows(one.columns), parts.left_of(report)) for one in found]
    return Chapter("parts", "In parts", shown, [note for one in found for note in one.notes])


def _over_time(report: RunReport) -> Chapter:
    found = list(over_time.tables(report, over_time.MORE_ROWS))
    shown = [table(one.heading, one.rows(one.columns), 2) for one in found]
    return Chapter(
        "over-time", "Over time", shown, [*(note for one in found for note in one.notes), *over_time.lines(report)]
    )


def _ratios(report: RunReport) -> Chapter:
    shown = []
    for comparison in report.comparisons:
        if comparison.cells:
            named = ratios.heading(comparison)
            shown.append(table(f"{named}, every measure", ratios.rows_of(comparison), 2))
            equal = ratios.equal_rows(comparison)
            if len(equal) > 1:
                shown.append(table(f"{named} at an equal batch and at equal tok/s a user", equal, 4))
    return Chapter("ratios", "Ratios", shown)


def _floors(report: RunReport) -> Chapter:
    shown = []
    if report.run.get("served") and yardsticks.floor_columns(report):
        lines = yardsticks.floor_rows(report, yardsticks.MORE_FLOORS)
        shown.append(table(yardsticks.floor_heading(report), lines, _left(report)))
    if predicted := yardsticks.predicted_rows(report):
        shown.append(table("Predicted by the floors, and measured", predicted, 2))
    said = [*yardsticks.floor_lines(report), *yardsticks.why_lines(report)] if report.run.get("served") else []
    return Chapter("floors", "Against the floor", shown, said)


def _normalised(report: RunReport) -> Chapter:
    lines = yardsticks.normalised_rows(report, yardsticks.MORE_NORMALISED)
    shown = [table("Output tok/s by what it took", lines, _left(report))] if len(lines) > 1 else []
    return Chapter("normalised", "Normalised", shown)


def _machines(report: RunReport) -> Chapter:
    found = machines.tables(report, more=True)
    shown = [table(one.heading, one.rows(one.columns), _left(report)) for one in found]
    return Chapter(
        "machines", "Memory, energy, TTFT, prefix cache", shown, [note for one in found for note in one.notes]
    )


def _routing(report: RunReport) -> Chapter:
    return Chapter("routing", rows.routing_heading(report) or "Routing", [], rows.routing_lines(report))


def _repeats(report: RunReport) -> Chapter:
    lines = repeats.rows_of(report)
    return Chapter("repeats", "Every repeat", [table("Each repeat by itself", lines, 2)] if len(lines) > 1 else [])
