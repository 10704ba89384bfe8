"""The report for a terminal or a pipe: plain text of a given width. In: a `RunReport`. Out: text, no escapes.

Headings that do not fit stand on two lines; columns that still do not fit give way, the least needed first, and are
named. Where not even the others fit, each row is a paragraph. Control characters in what came from outside (names,
error texts) never get through.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from loadgen.assemble import RunReport
from loadgen.progress import flowed
from loadgen.reports import about, machines, objectives, over_time, rows, search, yardsticks
from loadgen.reports import parts as parts_of
from loadgen.shown import DASH


class Yielding(Protocol):
    """A column, as far as fitting a table into a window needs to know it."""

    @property
    def head(self) -> str:
        """Its heading."""

    @property
    def yields(self) -> int:
        """How soon it gives way; 0 never."""


C = TypeVar("C", bound=Yielding)


def render(report: RunReport, width: int = 100, unicode: bool = True) -> str:
    """The report in lines of at most ``width`` characters where words allow; ASCII only without ``unicode``."""
    parts = [*wrapped(about.title(report), width), "", *table(report, width), ""]
    parts += section("Answer", search.lines(report), width)
    parts += section("", [*rows.comparison_lines(report), *yardsticks.predicted_lines(report)], width)
    parts += _searches(report, width)
    parts += _floors(report, width)
    parts += _normalised(report, width)
    parts += _parts(report, width)
    parts += _machines(report, width)
    parts += _over_time(report, width)
    parts += section(rows.routing_heading(report), rows.routing_lines(report), width)
    parts += section("Objectives", objectives.lines(report, objectives.UNICODE if unicode else objectives.ASCII), width)
    parts += section("Failed", rows.failure_lines(report), width)
    parts += section("Warnings", rows.warning_lines(report), width)
    said = [*filter(None, [about.scope_line(report)]), *yardsticks.mixture_lines(report), *rows.notes(report)]
    parts += section("Notes", said, width)
    if report.run["scenario"].get("published"):
        parts.append(f"beside the published table: loadgen report {report.run['run']} --layout published")
    parts.append(where(report))
    text = "\n".join(parts) + "\n"
    return text if unicode else ascii_only(text)


def where(report: RunReport) -> str:
    """Where to look further: the page, or the run's folder where a run that was killed has none."""
    page = Path(report.path) / "report.html"
    return f"report: {page}" if page.exists() else f"run: {report.path}"


def ascii_only(text: str) -> str:
    """The same for a terminal that knows nothing else; a question mark for what has no like."""
    for char, like in (("±", "+/-"), ("×", "x"), ("≤", "<="), ("≥", ">=")):
        text = text.replace(char, like)
    return text.encode("ascii", "replace").decode()


def table(report: RunReport, width: int, whole: str = "report.md has all") -> list[str]:
    """The table of results, as wide as it may be; ``whole`` says where all of its columns are."""
    left = len(rows.axis_names(report) or [""]) + 1
    lines, dropped = fitted(lambda columns: rows.rows(report, columns), rows.columns_of(report), left, width)
    return lines + left_out(dropped, width, whole)


def _floors(report: RunReport, width: int) -> list[str]:
    """Measured against the roofline, where anything has a floor."""
    columns, left = yardsticks.floor_columns(report), len(rows.axis_names(report) or [""]) + 1
    if not columns:
        return []
    lines, dropped = fitted(lambda kept: yardsticks.floor_rows(report, kept), columns, left, width)
    lines += left_out(dropped, width)
    notes = [part for line in yardsticks.floor_lines(report) for part in wrapped(line, width)]
    return [*wrapped(yardsticks.floor_heading(report), width), "", *lines, *notes, ""]


def _normalised(report: RunReport, width: int) -> list[str]:
    """Output tok/s by what it took, where that tells targets apart."""
    columns, left = yardsticks.normalised_columns(report), len(rows.axis_names(report) or [""]) + 1
    if not columns:
        return []
    lines, dropped = fitted(lambda kept: yardsticks.normalised_rows(report, kept), columns, left, width)
    heading = wrapped("Normalised: output tok/s by what it took", width)
    return [*heading, "", *lines, *left_out(dropped, width), ""]


def _searches(report: RunReport, width: int) -> list[str]:
    """The path of every search."""
    parts = []
    for one in search.tables(report):
        lines, dropped = fitted(one.rows, one.columns, 2, width)
        notes = [part for note in one.notes for part in wrapped(note, width, "  ")]
        parts += [*wrapped(one.heading, width), "", *lines, *left_out(dropped, width), *notes, ""]
    return parts


def _parts(report: RunReport, width: int) -> list[str]:
    """What repeats came to in parts: turns of conversations, endpoints, workloads of a mix."""
    found: list[str] = []
    for one in parts_of.tables(report):
        if (rows_of := len(one.rows([])) - 1) > parts_of.MOST_ROWS:
            found += [*wrapped(f"{one.heading}: {rows_of} rows, in report.md", width), ""]
            continue
        lines, dropped = fitted(one.rows, one.columns, parts_of.left_of(report), width)
        notes = [part for note in one.notes for part in wrapped(note, width)]
        found += [*wrapped(one.heading, width), "", *lines, *left_out(dropped, width), *notes, ""]
    return found


def _machines(report: RunReport, width: int) -> list[str]:
    """What the machines say: memory, energy, the server's own TTFT; each as far as anything is known."""
    parts, left = [], len(rows.axis_names(report) or [""]) + 1
    for one in machines.tables(report):
        lines, dropped = fitted(one.rows, one.columns, left, width)
        notes = [part for note in one.notes for part in wrapped(note, width)]
        parts += [*wrapped(one.heading, width), "", *lines, *left_out(dropped, width), *notes, ""]
    return parts


def _over_time(report: RunReport, width: int) -> list[str]:
    """The course of long repeats."""
    parts = []
    for one in over_time.tables(report):
        lines, dropped = fitted(one.rows, one.columns, 2, width)
        notes = [part for note in one.notes for part in wrapped(note, width, "  ")]
        parts += [*wrapped(one.heading, width), "", *lines, *left_out(dropped, width), *notes, ""]
    return parts + section("", over_time.lines(report), width)


def fitted(
    build: Callable[[Sequence[C]], list[list[str]]], columns: Sequence[C], left: int, width: int
) -> tuple[list[str], list[str]]:
    """The lines of a table with as many of its columns as fit, and the full headings of those that gave way; a
    paragraph for each row where even the others do not."""
    return as_table(build, columns, left, width) or (_paragraphs(build(columns), left, width), [])


def as_table(
    build: Callable[[Sequence[C]], list[list[str]]], columns: Sequence[C], left: int, width: int
) -> tuple[list[str], list[str]] | None:
    """The same, None where the columns that never give way do not fit. One in which nothing stands goes first."""
    kept, dropped = list(columns), list[C]()
    body = build(columns)[1:]
    empty = {id(one) for i, one in enumerate(columns, left) if all(row[i] == DASH for row in body)}
    while True:
        rows_of = build(kept)
        for lines in (aligned(rows_of, left), aligned(_stacked(rows_of, left), left)):
            if max(map(len, lines)) <= width:
                names = dict(zip(map(id, columns), _full_names([column.head for column in columns]), strict=True))
                return lines, [names[id(column)] for column in dropped]
        most = max(kept, key=lambda column: (column.yields > 0, id(column) in empty, column.yields))
        if most.yields == 0:
            return None
        kept.remove(most)
        dropped.append(most)


def left_out(heads: Sequence[str], width: int, whole: str = "report.md has all") -> list[str]:
    """Which columns are not shown, and where they are."""
    return wrapped(f"left out at this width: {', '.join(heads)} ({whole})", width) if heads else []


def _stacked(table: list[list[str]], left: int) -> list[list[str]]:
    """The same with headings of several words on two lines, broken where that makes them narrowest."""
    head, *body = table
    return [[*head[:left], *map(_in_two, head[left:])], *body]


def _in_two(head: str) -> str:
    words = head.split(" ")
    ways = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(ways, key=lambda two: max(map(len, two)))) if ways else head


def _paragraphs(table: list[list[str]], left: int, width: int) -> list[str]:
    """A paragraph for each row, for windows that hold no table: what it is of, then what is known of it."""
    head, *body = table
    lines, names = [], _full_names(head)
    for row in body:
        words = [rows.plain(f"{name} {value}") for name, value in zip(names, row, strict=True)]
        lines += flowed(words[:left], width)
        known = [word for word, value in zip(words, row, strict=True) if value != DASH]
        lines += flowed([word for word in words[left:] if word in known], width, "  ")
    return lines


def _full_names(heads: Sequence[str]) -> list[str]:
    """Headings that can stand alone: a bare percentile belongs to the column before it."""
    names, family = [], ""
    for head in heads:
        bare = re.fullmatch(r"p[\d.]+", head) is not None
        family = family if bare else head.split(" ")[0]
        names.append(f"{family} {head}" if bare else head)
    return names


def aligned(table: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as lines: the first ``left`` columns to the left, the others to the right; a rule under the header, whose
    texts may have two lines."""
    head, *body = table
    over = [text.rpartition("\n")[0] for text in head]
    under = [text.rpartition("\n")[2] for text in head]
    drawn = [*([over] if any(over) else []), under, *body]
    widths = [max(len(row[i]) for row in drawn) for i in range(len(head))]
    lines = []
    for row in drawn:
        cells = [
            text.ljust(size) if i < left else text.rjust(size)
            for i, (text, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(len(drawn) - len(body), "-" * max(len(line) for line in lines))
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
