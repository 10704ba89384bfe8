"""Repeats in parts, as tables: each turn of conversations, each endpoint, each workload of a mix by itself.

In: a `RunReport`. Out: a table for each kind of part that any repeat has. A value is the mean over the valid repeats
that have it; requests and failures are counted over all repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from loadgen.assemble import ReportCell, RunReport
from loadgen.metrics import Measure
from loadgen.parts import Part
from loadgen.repeat import Result
from loadgen.reports.machines import Table
from loadgen.reports.rows import axis_names, labels
from loadgen.reports.yardsticks import Column
from loadgen.shown import DASH, number

HEADINGS = {
    "turn": "By turn of the conversations",
    "endpoint": "By endpoint",
    "source": "By workload",
}


MOST_ROWS = 60
"""Rows of a table on a terminal; longer ones stand in the other reports."""


class Held(NamedTuple):
    """One part of a target in a cell: of all repeats that have it, and of those of them that are valid."""

    cell: ReportCell
    target: str
    name: str
    every: Sequence[Part]
    valid: Sequence[Part]


def _mean(metric: str, statistic: str | None = None, scale: float = 1.0) -> Callable[[Held], str]:
    def text(held: Held) -> str:
        values = [value for part in held.valid if (value := part.get(Measure(metric, statistic))) is not None]
        return number(sum(values) / len(values) if values else None, scale)

    return text


def _failed(held: Held) -> str:
    return f"{sum(part.failed for part in held.every):,}/{sum(part.requests for part in held.every):,}"


COLUMNS = (
    Column("TTFT mean ms", _mean("ttft_s", "mean", 1e3)),
    Column("p50", _mean("ttft_s", "p50", 1e3), 1),
    Column("p99", _mean("ttft_s", "p99", 1e3), 2),
    Column("TPOT p50 ms", _mean("tpot_s", "p50", 1e3), 3),
    Column("e2e p50 ms", _mean("e2e_s", "p50", 1e3), 6),
    Column("output tok/s", _mean("output_tok_s"), 1),
    Column("req/s", _mean("request_rps"), 5),
    Column("input tok", _mean("in_tok", "mean"), 4),
    Column("cached %", _mean("cached_share", None, 100)),
    Column("failed", _failed),
)


def tables(report: RunReport) -> Iterator[Table]:
    """A table for each kind of part, with what must be said of it. Its first columns are `left_of` it."""
    cells = (*report.cells, *report.routing_cells)
    for kind, heading in HEADINGS.items():
        held = [part for cell in cells for part in _held(cell, kind)]
        if held:
            known = [column for column in COLUMNS if any(column.text(one) != DASH for one in held)]
            yield Table(heading, known, _rows(report, kind, held), list(_notes(kind, cells)))


def left_of(report: RunReport) -> int:
    """How many columns name a part."""
    return len(axis_names(report) or [""]) + 2


def _held(cell: ReportCell, kind: str) -> Iterator[Held]:
    for target in cell.targets:
        results = [result for result in target.results if result is not None]
        for name in dict.fromkeys(name for result in results for name in result.parts.get(kind, ())):
            mine = [result for result in results if name in result.parts.get(kind, ())]
            valid = [result.parts[kind][name] for result in mine if target.vouched(result.summary)]
            yield Held(cell, target.target, name, [result.parts[kind][name] for result in mine], valid)


def _rows(report: RunReport, kind: str, held: Sequence[Held]) -> Callable[[Sequence[Column]], list[list[str]]]:
    word = {"source": "workload"}.get(kind, kind)
    head = [*(axis_names(report) or ["cell"]), "target", word]
    return lambda columns: [
        [*head, *(column.head for column in columns)],
        *([*labels(report, one.cell), one.target, one.name, *(c.text(one) for c in columns)] for one in held),
    ]


def _notes(kind: str, cells: Iterable[ReportCell]) -> Iterator[str]:
    if kind != "turn":
        return
    for cell in cells:
        for target in cell.targets:
            if said := _conversations([result for result in target.results if result is not None]):
                yield f"{cell.id}, {target.target}: {said}"


def _conversations(results: Sequence[Result]) -> str:
    """How many conversations there were, and how they ended, over all repeats."""
    found = [audit.conversations for result in results for audit in result.workers if audit.conversations is not None]
    begun, whole, broken = (sum(getattr(one, word) for one in found) for word in ("begun", "whole", "broken"))
    if not begun:
        return ""
    cut = begun - whole - broken
    return (
        f"{begun} conversations were begun, {whole} came to their end, {broken} were broken off by a failed turn, "
        f"{cut} were cut by the end of the repeat."
    )
