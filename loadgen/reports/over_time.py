"""Long repeats in words and rows: what each interval came to, and whether the repeat ended as it began.

In: a `RunReport`. Out: lines and tables for the terminal, Markdown and HTML. A table holds at most so many intervals,
evenly chosen, the first and the last among them; ``intervals.jsonl`` has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from loadgen.assemble import RunReport
from loadgen.long.intervals import Interval
from loadgen.long.over_time import OverTime
from loadgen.long.trend import found_drifting, sentence
from loadgen.progress import counted, duration
from loadgen.reports.machines import Table
from loadgen.reports.yardsticks import Column
from loadgen.shown import DASH, number

MOST_ROWS, MORE_ROWS = 12, 60
"""Intervals of a table on a terminal, and elsewhere."""

MOST_TABLES = 4
"""Repeats whose intervals stand in tables; what is said of drift is said of all."""

_COLUMNS: tuple[tuple[str, Callable[[Interval], str], int], ...] = (
    ("output tok/s", lambda one: number(one.output_tok_s), 0),
    ("req/s", lambda one: number(one.request_rps), 4),
    ("TTFT p50 ms", lambda one: number(one.ttft_p50_s, 1e3), 0),
    ("p99", lambda one: number(one.ttft_p99_s, 1e3), 0),
    ("TPOT p50 ms", lambda one: number(one.tpot_p50_s, 1e3), 1),
    ("in flight", lambda one: number(one.in_flight), 5),
    ("failed", lambda one: f"{one.failed:,}", 0),
    ("server MB", lambda one: number(one.server.get("server_bytes"), 1e-6), 2),
    ("GPU GB", lambda one: number(one.server.get("gpu_bytes"), 1e-9), 3),
    ("client cores", lambda one: number(one.client_cores), 6),
)


def tables(report: RunReport, most: int = MOST_ROWS) -> Iterator[Table]:
    """A table of intervals for each of the first long repeats, with what is said of it."""
    for one in report.over_time[:MOST_TABLES]:
        shown = chosen([each for each in one.intervals if each.length_s > one.intervals[0].length_s / 2], most)
        known = [
            Column(head, lambda _: "", yields)
            for head, text, yields in _COLUMNS
            if any(text(interval) != DASH for interval in shown)
        ]
        yield Table(_heading(one), known, _rows(one, shown), [*_notes(one, len(shown)), *lines_of(one)])


def lines(report: RunReport) -> list[str]:
    """What is said of the repeats that have no table; why there is no test, once for all of whom it is true."""
    found: list[str] = []
    untested: dict[str, list[str]] = {}
    for one in report.over_time[MOST_TABLES:]:
        found += [f"{_where(one)}: {line}" for line in lines_of(one, tested=True)]
        for drift in one.drifts:
            if drift.why is not None:
                untested.setdefault(drift.why, []).append(_where(one))
    for why, places in untested.items():
        some = list(dict.fromkeys(places))
        where = some[0] if len(some) == 1 else f"{len(some)} other repeats, first {some[0]}"
        found.append(f"not tested for drift: {why} ({where})")
    return found


def lines_of(one: OverTime, tested: bool = False) -> list[str]:
    """What is said of the drift of each series of a repeat, or of those that were ``tested``."""
    drifting = {drift.what for drift in found_drifting(one.drifts)}
    shown = [drift for drift in one.drifts if drift.why is None or not tested]
    return [sentence(drift, drift.what in drifting) for drift in shown]


def chosen(intervals: Sequence[Interval], most: int) -> list[Interval]:
    """At most so many of them, evenly; the first and the last always."""
    n = len(intervals)
    if n <= most:
        return list(intervals)
    return [intervals[round(i * (n - 1) / (most - 1))] for i in range(most)]


def _heading(one: OverTime) -> str:
    return f"Over time: {_where(one)}" + ("" if one.ended else ", so far")


def _where(one: OverTime) -> str:
    return f"{one.cell}, {one.target}, repeat {one.rep}"


def _notes(one: OverTime, shown: int) -> Iterator[str]:
    if shown < len(one.intervals):
        path = f"cells/{one.cell}/{one.target}/rep-{one.rep:03d}/attempt-{one.attempt}/intervals.jsonl"
        yield f"{shown} of {len(one.intervals)} intervals are shown; {path} has them all."
    if not one.ended:
        yield f"The repeat goes on, or was cut off: {counted(len(one.intervals), 'interval')} so far."


def _rows(one: OverTime, shown: Sequence[Interval]) -> Callable[[Sequence[Column]], list[list[str]]]:
    texts = {head: text for head, text, _ in _COLUMNS}

    def build(columns: Sequence[Column]) -> list[list[str]]:
        head = ["from", "phase", *(column.head for column in columns)]
        return [head, *([_at(i), _phase(one, i), *(texts[c.head](i) for c in columns)] for i in shown)]

    return build


def _at(interval: Interval) -> str:
    return duration(interval.start_s)


def _phase(one: OverTime, interval: Interval) -> str:
    if interval.start_s < one.window.w0 - 1e-6:
        return "warm-up"
    return "measured" if interval.end_s <= one.window.w1 + 1e-6 else "drain"
