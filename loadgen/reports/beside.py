"""Several runs side by side: each cell of all of them in one table, and what each run says of itself.

In: `RunReport`s. Out: text for a terminal, and Markdown. Nothing is compared here: runs that were measured at different
times differ by more than what was changed. `loadgen compare` says which differences are more than noise.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from loadgen.assemble import ReportCell, RunReport
from loadgen.reports import about, markdown, objectives, rows, search, text
from loadgen.scenario.label import value_text
from loadgen.shown import DASH

Section = tuple[str, list[str]]


def render(reports: Sequence[RunReport], width: int = 100, unicode: bool = True) -> str:
    """The runs in lines of at most ``width`` characters where words allow; ASCII only without ``unicode``."""
    names, left = short_names(reports), len(_axes(reports) or [""]) + 2
    parts = text.section("Side by side", _titles(reports, names), width)
    lines, dropped = text.fitted(lambda columns: table(reports, columns), _columns(reports), left, width)
    parts += [*lines, *text.left_out(dropped, width), ""]
    for heading, said in _sections(reports, names, objectives.UNICODE if unicode else objectives.ASCII):
        parts += text.section(heading, said, width)
    parts += text.wrapped(_advice(reports), width)
    parts += map(text.where, reports)
    whole = "\n".join(parts) + "\n"
    return whole if unicode else text.ascii_only(whole)


def render_markdown(reports: Sequence[RunReport]) -> str:
    """The same with every column."""
    names = short_names(reports)
    parts = ["# Side by side", "", *markdown.bullets(_titles(reports, names)), *markdown.tabled(table(reports))]
    for heading, said in _sections(reports, names, objectives.UNICODE):
        parts += markdown.bullets(said, f"## {markdown.safe(heading)}")
    return "\n".join([*parts, markdown.safe(_advice(reports))]) + "\n"


def table(reports: Sequence[RunReport], columns: Sequence[rows.Column] | None = None) -> list[list[str]]:
    """A header and a row for each target of each cell of each run; those of one cell stand together."""
    axes, names = _axes(reports), short_names(reports)
    columns = _columns(reports) if columns is None else columns
    found: dict[tuple[str, ...], dict[str, list[list[str]]]] = {}
    for report, name in zip(reports, names, strict=True):
        for cell in report.cells:
            labels = _labels(cell, axes)
            for target in cell.targets:
                row = [*labels, target.target, name, *(column.text(target) for column in columns)]
                found.setdefault(tuple(labels), {}).setdefault(target.target, []).append(row)
    head = [*(axes or ["cell"]), "target", "run", *(column.head for column in columns)]
    return [head, *(row for targets in found.values() for same in targets.values() for row in same)]


def short_names(reports: Sequence[RunReport]) -> list[str]:
    """What tells the runs apart: the end of their names, the whole names where two ends are alike."""
    whole = [str(report.run.get("run") or report.path) for report in reports]
    ends = [name.rpartition("-")[2] for name in whole]
    return ends if len(set(ends)) == len(ends) and all(ends) else whole


def _columns(reports: Sequence[RunReport]) -> Sequence[rows.Column]:
    """The columns of the runs' own tables where those are the same: one definition of speed holds for all, or none."""
    each = [rows.columns_of(report) for report in reports]
    same = len({tuple(column.head for column in columns) for columns in each}) == 1
    return each[0] if same else rows.COLUMNS


def _axes(reports: Sequence[RunReport]) -> list[str]:
    return list(dict.fromkeys(axis for report in reports for axis in rows.axis_names(report)))


def _labels(cell: ReportCell, axes: Sequence[str]) -> list[str]:
    return [value_text(cell.axes[axis]) if axis in cell.axes else DASH for axis in axes] or [cell.id]


def _titles(reports: Sequence[RunReport], names: Sequence[str]) -> list[str]:
    return [
        f"{name}: {about.title(one)}, {one.run.get('started') or 'at an unknown time'}, {one.run.get('status')}"
        for one, name in zip(reports, names, strict=True)
    ]


def _sections(reports: Sequence[RunReport], names: Sequence[str], marks: objectives.Marks) -> Iterator[Section]:
    """What each run says of its own targets, its objectives, and what weakens it."""
    for report, name in zip(reports, names, strict=True):
        failed = [f"failed: {line}" for line in rows.failure_lines(report)]
        said = [*search.lines(report), *rows.comparison_lines(report), *objectives.lines(report, marks)]
        yield name, [*said, *failed]
        yield f"Warnings of {name}", rows.warning_lines(report)


def _advice(reports: Sequence[RunReport]) -> str:
    which = shlex.join(str(report.run.get("run") or report.path) for report in reports)
    return f"Which differences are more than noise: loadgen compare {which}"
