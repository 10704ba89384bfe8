"""Stored runs held against each other, for a terminal, as Markdown and as JSON. In: an `Across`. Out: text."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loadgen.across import Across, Side
from loadgen.assemble import RunReport
from loadgen.plan import Plan
from loadgen.reports import markdown, rows, text


def render(found: Across, width: int = 100, unicode: bool = True) -> str:
    """The comparison in lines of at most ``width`` characters where words allow; ASCII only without ``unicode``."""
    report = _as_report(found)
    parts = [part for line in _sides(found) for part in text.wrapped(line, width)]
    parts += ["", *text.table(report, width, "--format markdown has all"), ""]
    parts += text.section("", rows.comparison_lines(report), width)
    parts += text.section("Warnings", rows.warning_lines(report), width)
    parts += text.section("Notes", [*found.notes, *rows.notes(report)], width)
    whole = "\n".join(parts).rstrip("\n") + "\n"
    return whole if unicode else text.ascii_only(whole)


def render_markdown(found: Across) -> str:
    """The same with every column and every measure."""
    report = _as_report(found)
    parts = ["# Comparison", "", *markdown.bullets(_sides(found)), *markdown.tabled(rows.rows(report))]
    parts += markdown.bullets(rows.comparison_lines(report), "## Comparison")
    parts += markdown.ratios_of(report)
    parts += markdown.bullets(rows.warning_lines(report), "## Warnings")
    parts += markdown.bullets([*found.notes, *rows.notes(report)], "## Notes")
    return "\n".join(parts).rstrip("\n") + "\n"


def render_json(found: Across) -> str:
    """For programs. The repeats' own results are left out: they are in the runs."""
    values = msgspec.to_builtins(found)
    del values["cells"]
    return msgspec.json.format(msgspec.json.encode(values), indent=1).decode() + "\n"


def _sides(found: Across) -> list[str]:
    first = [comparison.cells[0].baseline for comparison in found.comparisons if comparison.cells]
    return [f"{'baseline' if side.name in first else 'candidate'} {_side(side)}" for side in found.sides]


def _side(side: Side) -> str:
    known = [side.started, side.status, side.machine, f"loadgen {side.loadgen}" if side.loadgen else None]
    return f"{side.name}: {side.target} of {side.run} ({', '.join(filter(None, known))})"


def _as_report(found: Across) -> RunReport:
    """The same as a run's report, as far as tables and sentences are made of it."""
    return RunReport(
        path=str(Path()),
        run={"scenario": {"name": "comparison", "targets": {side.name: {} for side in found.sides}}, "servers": {}},
        plan=Plan(scope=found.comparisons[0].scope, cells=(), steps=(), servers={}, estimate_s=0),
        cells=found.cells,
        comparisons=found.comparisons,
        warnings=found.warnings,
        failures=(),
        exit_code=found.exit_code,
    )
