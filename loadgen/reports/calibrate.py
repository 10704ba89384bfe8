"""A calibration for a terminal: what varies by how much, what that lets a comparison resolve, and the A/A verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.assemble import RunReport
from loadgen.calibrate import unsteady
from loadgen.metrics import measure
from loadgen.noise import Floor, FloorCell, half_width
from loadgen.reports import rows
from loadgen.reports.text import aligned, wrapped

REPEATS = (3, 6, 10)
"""For how many repeats a table says what they resolve."""

SHOWN = ("output_tok_s", "p50 ttft_s", "p99 ttft_s", "p50 tpot_s", "p99 tpot_s")
"""The measures of the table, behind the one that the scenario's comparison goes by; the file of the floor has all."""

_ALIKE = ("random_weights", "routing", "unknown_factor")
"""Doubts about what is the same on both sides."""


def render(floor: Floor, report: RunReport, path: str, width: int = 100) -> str:
    """The table, a sentence for each cell, and what is wrong with it; ``path`` is where the floor was kept."""
    repeats = max((len(target.results) for cell in report.cells for target in cell.targets), default=0)
    lines = wrapped(f"{floor.target} of {floor.scenario} against itself, {repeats} repeats a side", width)
    if floor.cells:
        lines += ["", *aligned(_table(floor, _primary(report)), left=2), ""]
        lines += wrapped(
            "CV: standard deviation between repeats; in pairs: what of it is left between two that follow each other. "
            "Behind it: the smallest difference between two targets that so many repeats can tell from that.",
            width,
        )
    problems = [*unsteady(report), *_left_out(floor, report), *rows.failure_lines(report)]
    problems += rows.warning_lines(_about_noise(report))
    for heading, part in (("Verdicts", _verdicts(report)), ("Warnings", problems)):
        lines += ["", heading, *(piece for line in part for piece in wrapped(line, width, "  "))] if part else []
    kept = f"noise floor: {path}" if floor.cells else "No noise floor was kept."
    return "\n".join([*lines, "", kept, f"report: {report.path}/report.md"]) + "\n"


def values(floor: Floor, report: RunReport, path: str) -> dict[str, Any]:
    """The same for programs: the floor, the comparison of the target with itself, where both are kept."""
    return {
        "floor": msgspec.to_builtins(floor),
        "resolves": {
            cell.cell: {
                what: {str(n): math.expm1(half_width(cv, n)) for n in REPEATS} for what, cv in cell.pair_cv.items()
            }
            for cell in floor.cells
        },
        "comparisons": msgspec.to_builtins(report.comparisons),
        "unsteady": unsteady(report),
        "path": path if floor.cells else None,
        "report": report.path,
        "exit_code": report.exit_code,
    }


def _primary(report: RunReport) -> str:
    return next((comparison.primary for comparison in report.comparisons), SHOWN[0])


def _table(floor: Floor, primary: str) -> list[list[str]]:
    head = ["cell", "measure", "CV", "in pairs", *(f"{n} repeats" for n in REPEATS)]
    return [head, *(row for cell in floor.cells for row in _rows(cell, list(dict.fromkeys((primary, *SHOWN)))))]


def _rows(cell: FloorCell, shown: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for what in shown:
        if what in cell.cv:
            resolved = [_percent(math.expm1(half_width(cell.pair_cv[what], n))) for n in REPEATS]
            noise = [_percent(cell.cv[what]), _percent(cell.pair_cv[what])]
            found.append([cell.cell if not found else "", measure(what).label, *noise, *resolved])
    return found


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %" if share < 0.1 else f"{share * 100:.1f} %"


def _verdicts(report: RunReport) -> list[str]:
    return [cell.primary.sentence for comparison in report.comparisons for cell in comparison.cells]


def _left_out(floor: Floor, report: RunReport) -> list[str]:
    missing = [cell.id for cell in report.cells if cell.id not in {kept.cell for kept in floor.cells}]
    if not missing:
        return []
    return [f"No noise floor for {', '.join(missing)}: it takes three pairs of repeats, all of them to be trusted."]


def _about_noise(report: RunReport) -> RunReport:
    """The report without doubts about what is the same on both sides: random weights, and what they do to experts."""
    cells = [
        msgspec.structs.replace(
            comparison,
            cells=tuple(
                msgspec.structs.replace(cell, doubts=tuple(doubt for doubt in cell.doubts if doubt.code not in _ALIKE))
                for cell in comparison.cells
            ),
        )
        for comparison in report.comparisons
    ]
    kept = tuple(warning for warning in report.warnings if warning.code not in _ALIKE)
    return msgspec.structs.replace(report, warnings=kept, comparisons=tuple(cells))
