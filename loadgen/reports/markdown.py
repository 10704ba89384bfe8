"""The report as Markdown: what the terminal shows, with every column, every repeat, and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.assemble import RunReport
from loadgen.metrics import METRICS
from loadgen.reports import about, machines, objectives, over_time, ratios, repeats, rows, search, yardsticks
from loadgen.reports import parts as parts_of


def render(report: RunReport) -> str:
    """The whole report."""
    run = report.run
    parts = [f"# {safe(run['scenario']['name'])}", ""]
    if run["scenario"].get("description"):
        parts += [safe(run["scenario"]["description"]), ""]
    parts += bullets(_facts(report))
    parts += tabled(rows.rows(report))
    parts += bullets(search.lines(report), "## Answer")
    parts += bullets([*rows.comparison_lines(report), *yardsticks.predicted_lines(report)], "## Comparison")
    parts += ratios_of(report)
    parts += _floors(report)
    parts += _normalised(report)
    for one in [
        *search.tables(report, more=True),
        *parts_of.tables(report),
        *machines.tables(report, more=True),
        *over_time.tables(report, over_time.MORE_ROWS),
    ]:
        parts += [f"## {one.heading}", "", *tabled(one.rows(one.columns)), *bullets(one.notes)]
    parts += bullets(over_time.lines(report), "## Over time: the other repeats")
    parts += bullets(rows.routing_lines(report), f"## {rows.routing_heading(report)}")
    parts += bullets(objectives.lines(report, objectives.UNICODE), "## Objectives")
    parts += bullets(rows.failure_lines(report), "## Failed")
    parts += bullets(rows.warning_lines(report), "## Warnings")
    parts += bullets(about.server_lines(report), "## Servers")
    parts += bullets([*yardsticks.mixture_lines(report), *rows.notes(report)], "## Notes")
    parts += ["## Every repeat", "", *tabled(repeats.rows_of(report))]
    origin = run.get("origin") or {}
    definitions = origin.get("definitions") or {metric.name: metric.definition for metric in METRICS.values()}
    parts += [f"## Definitions of {safe(origin['tool'])} {safe(origin['read_in'])}" if origin else "## Definitions", ""]
    parts += [f"- **{METRICS[name].label}**: {safe(definition)}" for name, definition in definitions.items()]
    return "\n".join(parts) + "\n"


def _facts(report: RunReport) -> list[str]:
    run, machine = report.run, report.run["machine"]
    if origin := run.get("origin"):
        files = ", ".join(file["name"] for file in origin["files"])
        when = f"run {run['run']}, measured {run['started'] or 'at an unknown time'}"
        return [safe(fact) for fact in (about.imported(report), f"files: {files}", when)]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    facts = [
        f"run {run['run']}, {run['started']} to {run['ended']}, {run['status']}",
        f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {gpus}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        f"seed {run['seed']}",
    ]
    if run.get("profile"):
        facts.append(run["profile_reason"])
    if scope := about.scope_line(report):
        facts.append(scope)
    return [safe(fact) for fact in facts]


def ratios_of(report: RunReport) -> list[str]:
    """Candidate / baseline of every measure, with its interval."""
    parts: list[str] = []
    for comparison in report.comparisons:
        if comparison.cells:
            parts += [f"## {safe(ratios.heading(comparison))}", "", *tabled(ratios.rows_of(comparison))]
            equal = ratios.equal_rows(comparison)
            if len(equal) > 1:
                parts += ["### At an equal batch, at equal interactivity (tok/s a user)", "", *tabled(equal)]
    return parts


def _floors(report: RunReport) -> list[str]:
    """Every cell against its roofline, and what has none."""
    if not report.run.get("served"):
        return []
    parts = tabled(yardsticks.floor_rows(report, yardsticks.MORE_FLOORS)) if yardsticks.floor_columns(report) else []
    if ratio := yardsticks.predicted_rows(report):
        parts += tabled(ratio)
    parts += bullets([*yardsticks.floor_lines(report), *yardsticks.why_lines(report)])
    return ["## Against the floor", "", *parts] if parts else []


def _normalised(report: RunReport) -> list[str]:
    """Output tok/s by what it took, with all that is known."""
    table = yardsticks.normalised_rows(report, yardsticks.MORE_NORMALISED)
    return ["## Normalised", "", *tabled(table)] if len(table) > 1 else []


def tabled(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is its head."""
    head, *body = [[safe(text).replace("|", "\\|") for text in row] for row in table]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return [*lines, ""]


def bullets(lines: Sequence[str], heading: str = "") -> list[str]:
    """A list under its heading; nothing where there is nothing to list."""
    if not lines:
        return []
    return [*([heading, ""] if heading else []), *(f"- {safe(line)}" for line in lines), ""]


def safe(text: str) -> str:
    """Text of others as text: no HTML, no line ends, no control characters."""
    return rows.plain(" ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
