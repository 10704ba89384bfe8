"""The report for a terminal or a pipe: plain text of a given width. In: a `RunReport`. Out: text, no escapes.

Columns that do not fit give way, the least needed first, and are named. Control characters in what came from outside
(names, error texts) never get through.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from loadgen.assemble import RunReport
from loadgen.reports import rows


def render(report: RunReport, width: int = 100, unicode: bool = True) -> str:
    """The report in lines of at most ``width`` characters where words allow; ASCII only without ``unicode``."""
    parts = [*wrapped(rows.title(report), width), "", *table(report, width), ""]
    parts += section("", rows.comparison_lines(report), width)
    parts += section(rows.routing_heading(report), rows.routing_lines(report), width)
    parts += section("Objectives", rows.objective_lines(report, rows.UNICODE if unicode else rows.ASCII), width)
    parts += section("Failed", rows.failure_lines(report), width)
    parts += section("Warnings", rows.warning_lines(report), width)
    parts += section("Notes", [*filter(None, [rows.scope_line(report)]), *rows.notes(report)], width)
    parts.append(f"report: {report.path}/report.md")
    text = "\n".join(parts) + "\n"
    return text if unicode else text.encode("ascii", "replace").decode()


def table(report: RunReport, width: int) -> list[str]:
    """The table of results, as wide as it may be."""
    columns = list(rows.COLUMNS)
    dropped: list[str] = []
    while True:
        lines = aligned(rows.rows(report, columns), left=len(rows.axis_names(report) or [""]) + 1)
        most = max(columns, key=lambda column: column.yields)
        if len(lines[0]) <= width or most.yields == 0:
            break
        columns.remove(most)
        dropped.append(_full_name(most))
    if dropped:
        lines += wrapped(f"left out at this width: {', '.join(dropped)} (Markdown has all)", width)
    return lines


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
