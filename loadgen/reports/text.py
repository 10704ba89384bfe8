"""The report for a terminal or a pipe: plain text of a given width. In: a `RunReport`. Out: text, no escapes.

Columns that do not fit give way, the least needed first, and are named. Control characters in what came from outside
(names, error texts) never get through.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TypeVar

from loadgen.assemble import RunReport
from loadgen.reports import rows, yardsticks

C = TypeVar("C", rows.Column, yardsticks.Column)


def render(report: RunReport, width: int = 100, unicode: bool = True) -> str:
    """The report in lines of at most ``width`` characters where words allow; ASCII only without ``unicode``."""
    parts = [*wrapped(rows.title(report), width), "", *table(report, width), ""]
    parts += section("", [*rows.comparison_lines(report), *yardsticks.predicted_lines(report)], width)
    parts += _floors(report, width)
    parts += _normalised(report, width)
    parts += section(rows.routing_heading(report), rows.routing_lines(report), width)
    parts += section("Objectives", rows.objective_lines(report, rows.UNICODE if unicode else rows.ASCII), width)
    parts += section("Failed", rows.failure_lines(report), width)
    parts += section("Warnings", rows.warning_lines(report), width)
    about = [*filter(None, [rows.scope_line(report)]), *yardsticks.mixture_lines(report), *rows.notes(report)]
    parts += section("Notes", about, width)
    parts.append(f"report: {report.path}/report.md")
    text = "\n".join(parts) + "\n"
    return text if unicode else text.encode("ascii", "replace").decode()


def table(report: RunReport, width: int) -> list[str]:
    """The table of results, as wide as it may be."""
    left = len(rows.axis_names(report) or [""]) + 1
    lines, dropped = fitted(lambda columns: rows.rows(report, columns), rows.COLUMNS, left, width)
    return lines + _left_out([_full_name(column) for column in dropped], width)


def _floors(report: RunReport, width: int) -> list[str]:
    """Measured against the roofline, where anything has a floor."""
    columns, left = yardsticks.floor_columns(report), len(rows.axis_names(report) or [""]) + 1
    if not columns:
        return []
    lines, dropped = fitted(lambda kept: yardsticks.floor_rows(report, kept), columns, left, width)
    lines += _left_out([column.head for column in dropped], width)
    notes = [part for line in yardsticks.floor_lines(report) for part in wrapped(line, width)]
    return [*wrapped(yardsticks.floor_heading(report), width), "", *lines, *notes, ""]


def _normalised(report: RunReport, width: int) -> list[str]:
    """Output tok/s by what it took, where that tells targets apart."""
    columns, left = yardsticks.normalised_columns(report), len(rows.axis_names(report) or [""]) + 1
    if not columns:
        return []
    lines, dropped = fitted(lambda kept: yardsticks.normalised_rows(report, kept), columns, left, width)
    return ["Normalised: output tok/s by what it took", "", *lines, *_left_out([c.head for c in dropped], width), ""]


def fitted(
    build: Callable[[Sequence[C]], list[list[str]]], columns: Sequence[C], left: int, width: int
) -> tuple[list[str], list[C]]:
    """The lines of a table with as many of its columns as fit, and those that gave way."""
    kept = list(columns)
    dropped: list[C] = []
    while True:
        lines = aligned(build(kept), left)
        most = max(kept, key=lambda column: column.yields)
        if max(map(len, lines)) <= width or most.yields == 0:
            return lines, dropped
        kept.remove(most)
        dropped.append(most)


def _left_out(heads: Sequence[str], width: int) -> list[str]:
    return wrapped(f"left out at this width: {', '.join(heads)} (Markdown has all)", width) if heads else []


def _full_name(column: rows.Column) -> str:
    """A heading that can stand alone: a bare percentile belongs to the column before it."""
    if not column.head.startswith("p"):
        return column.head
    before = rows.COLUMNS[: rows.COLUMNS.index(column)]
    family = next(c.head.split()[0] for c in reversed(before) if not c.head.startswith("p"))
    return f"{family} {column.head}"


def aligned(table: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as lines: the first ``left`` columns to the left, the others to the right; a rule under the header."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            text.ljust(size) if i < left else text.rjust(size)
            for i, (text, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def section(heading: str, lines: Sequence[str], width: int) -> list[str]:
    """Lines under their heading, and an empty one; nothing where there are none."""
    if not lines:
        return []
    body = [part for line in lines for part in wrapped(line, width, "  ")]
    return [*([heading] if heading else []), *body, ""]


def wrapped(line: str, width: int, indent: str = "") -> list[str]:
    """A line in pieces of at most ``width`` characters where words allow; those after the first stand further in."""
    return textwrap.wrap(
        rows.plain(line),
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
