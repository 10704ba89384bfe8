"""Every repeat by itself as rows: the table that Markdown and the page share. In: a `RunReport`. Out: a head and rows
of text, of the routing check's cells too; repeats that are missing have no row."""

from __future__ import annotations

from loadgen.assemble import RunReport, TargetCell
from loadgen.repeat import Result
from loadgen.shown import number
from loadgen.summary import Summary

_HEAD = (
    *("cell", "target", "repeat", "window s", "ok", "failed", "input tok", "output tok", "output tok/s"),
    *("TTFT p50 ms", "late p99 ms", "state"),
)


def rows_of(report: RunReport) -> list[list[str]]:
    """A row for each repeat that is there, in the order of the plan's cells."""
    lines = [[*_HEAD]]
    for cell in (*report.cells, *report.routing_cells):
        for target in cell.targets:
            lines += [[cell.id, target.target, *_row(one, target)] for one in target.results if one is not None]
    return lines


def _row(result: Result, target: TargetCell) -> list[str]:
    one = result.summary
    return [
        f"{result.rep}" + (f" (attempt {result.attempt})" if result.attempt > 1 else ""),
        f"{one.window.w0:.1f} to {one.window.w1:.1f}",
        f"{one.ok:,}",
        f"{one.failed:,}",
        number(one.in_tok.mean),
        number(one.out_tok.mean),
        number(one.output_tok_s),
        number(one.ttft_s.p50, 1e3),
        number(one.audit.late_p99_s, 1e3),
        _state(one, target) + (" (interrupted)" if result.interrupted else ""),
    ]


def _state(one: Summary, target: TargetCell) -> str:
    """INVALID is what the client cannot vouch for; an overload that a search looked for is no such thing."""
    state = "ok" if one.state == "invalid" and target.vouched(one) else one.state
    return state if state == "ok" else state.upper()
