"""What the page shows, in its order: a `Page` for the template. In: a `RunReport`. Out: text, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from loadgen.assemble import RunReport
from loadgen.plots import cells as of_cells
from loadgen.plots.choice import cells_that_matter
from loadgen.plots.over_time import over_time
from loadgen.plots.search import searches
from loadgen.reports import about, objectives, rows, search, yardsticks
from loadgen.reports.html import tables, words
from loadgen.reports.html.figures import Figure, figure
from loadgen.reports.html.inside import Inside
from loadgen.reports.html.tables import Chapter, Table
from loadgen.reports.html.words import Compare


class Page(msgspec.Struct, frozen=True):
    """The page from its top to its end."""

    name: str
    description: str
    subtitle: str
    comparisons: Sequence[Compare]
    predicted: Sequence[str]
    answers: Sequence[str]
    cells: Table
    other_cells: Table | None
    doubts: Sequence[str]
    failures: Sequence[str]
    objectives: Sequence[str]
    figures: Sequence[Figure]
    inside: Inside
    tables: Sequence[Chapter]
    servers: Sequence[str]
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]
    definitions: Sequence[tuple[str, str]]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """What can be jumped to: the id and name of each section that is there."""
        kept = [
            ("verdicts", "Verdict", self.comparisons),
            ("answers", "Answer", self.answers),
            ("cells", "Cells", self.cells.rows),
            ("doubts", f"Doubts ({len(self.doubts)})", self.doubts),
            ("failed", f"Failed ({len(self.failures)})", self.failures),
            ("objectives", "Objectives", self.objectives),
            ("charts", "Charts", self.figures),
            ("inside", "Inside a cell", self.inside.details),
            *((chapter.id, chapter.heading, (chapter,)) for chapter in self.tables),
            ("servers", "Servers", self.servers),
            ("notes", "Notes", self.notes),
            ("run", "The run", self.facts),
            ("definitions", "Definitions", self.definitions),
        ]
        return [(id_, name) for id_, name, there in kept if there]

    @property
    def every_figure(self) -> list[Figure]:
        """Those of the whole run, then those of each cell."""
        return [*self.figures, *(figure for detail in self.inside.details for figure in detail.figures)]


def page(report: RunReport, charts: bool) -> Page:
    """All but the inside of cells. Without ``charts`` there are no figures. Of more than 50 cells those that matter are
    shown, and the others stand in one table."""
    scenario = report.run["scenario"]
    chosen = cells_that_matter(report)
    kept = {cell.id for cell in chosen}
    others = [cell for cell in report.cells if cell.id not in kept]
    shown = tables.of_cells(report, chosen) if others else report
    return Page(
        name=str(scenario["name"]),
        description=str(scenario.get("description") or ""),
        subtitle=words.subtitle(report),
        comparisons=[words.compare(one) for one in report.comparisons],
        predicted=yardsticks.predicted_lines(report),
        answers=search.lines(report),
        cells=tables.cells(shown),
        other_cells=tables.cells(tables.of_cells(report, others)) if others else None,
        doubts=rows.warning_lines(report),
        failures=rows.failure_lines(report),
        objectives=objectives.lines(report, objectives.UNICODE),
        figures=tuple(_figures(report)) if charts else (),
        inside=Inside(),
        tables=tuple(tables.chapters(shown)),
        servers=about.server_lines(report),
        notes=[*yardsticks.mixture_lines(report), *rows.notes(report)],
        facts=words.facts(report),
        definitions=words.definitions(report),
    )


def _figures(report: RunReport) -> Iterator[Figure]:
    """Those of the whole run that it has values for; a search's answer first."""
    for number, path in enumerate(searches(report), 1):
        yield figure(f"search-{number}", path)
    for chart in (of_cells.ratio, of_cells.pareto, of_cells.latency, of_cells.roofline):
        if (made := chart(report)) is not None:
            yield figure(chart.__name__, made)
    for number, course in enumerate(over_time(report), 1):
        yield figure(f"over-time-{number}", course)
