"""Searches in words and rows: the answer of each, and the path that led to it, probe by probe.

In: a `RunReport`. Out: lines and tables for the terminal, Markdown and HTML. What weakens an answer stands with all
other doubts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from loadgen.assemble import RunReport
from loadgen.metrics import METRICS, measure
from loadgen.plots.search import title_of
from loadgen.reports.machines import Table
from loadgen.reports.rows import verdict
from loadgen.reports.yardsticks import Column
from loadgen.search.path import Goal
from loadgen.search.sweep import Course
from loadgen.search.verdict import OF_ALL, Held, Trial
from loadgen.searched import Looked, Searched
from loadgen.shown import DASH, number

_HEADS = {"max_rate": "offered req/s", "max_concurrency": "in flight"}


def lines(report: RunReport) -> list[str]:
    """The answer of every search, each with its target and its cell of the matrix."""
    return [f"{_where(one)}: {one.sentence}" for one in report.searches]


def tables(report: RunReport, more: bool = False) -> Iterator[Table]:
    """The path of every search. With ``more`` it also says how many requests missed each objective."""
    for one in report.searches:
        if one.probes:
            columns = list(_of_sweep(one.goal) if isinstance(one.goal, Course) else _of_search(one, more))
            why = f"It ended: {one.why}." if one.stop else f"{one.why[:1].upper()}{one.why[1:]}."
            yield Table(title_of(one), columns, _rows(one), [why])


def _where(one: Searched) -> str:
    axes = ", ".join(f"{name} {value}" for name, value in one.axes.items())
    return f"{one.target}, {axes}" if axes else one.target


def _rows(one: Searched) -> Callable[[Sequence[Column]], list[list[str]]]:
    unit = _HEADS[one.goal.find] if isinstance(one.goal, Goal) else "load"

    def build(columns: Sequence[Column]) -> list[list[str]]:
        head = ["probe", unit, *(column.head for column in columns)]
        return [head, *([str(p.number), _load(one, p), *(column.text(p) for column in columns)] for p in one.probes)]

    return build


def _load(one: Searched, probe: Looked) -> str:
    if isinstance(one.goal, Goal):
        return f"{probe.load:g}"
    return f"{probe.load:g} {'req/s' if probe.word == 'rate_rps' else 'in flight'}"


def _of_search(one: Searched, more: bool) -> Iterator[Column]:
    found = next((probe.trial.objectives for probe in one.probes if probe.trial and probe.trial.objectives), ())
    yield Column("requests", lambda probe: f"{probe.requests:,}", len(found) + 1)
    yield Column("answered req/s", lambda probe: number(probe.request_rps), len(found) + 2)
    for i, held in enumerate(found, 1):
        yield Column(held.text, _held(held.text, _value), i)
        if more and held.metric not in OF_ALL:
            head = f"missed it, % (at most {held.allowed * 100:.3g}): {held.text}"
            yield Column(head, _held(held.text, _missed))
    yield Column("verdict", lambda probe: _verdict(probe.trial))


def _of_sweep(course: Course) -> Iterator[Column]:
    yield Column("requests", lambda probe: f"{probe.requests:,}", 2)
    yield Column("answered req/s", lambda probe: number(probe.request_rps))
    yield Column(f"{measure(course.latency).label} ms", lambda probe: number(probe.latency, 1e3))
    yield Column("goodput %", lambda probe: number(probe.goodput, 100), 1)
    yield Column("state", lambda probe: "ok" if probe.answers else "INVALID")


def _held(text: str, say: Callable[[Held], str]) -> Callable[[Looked], str]:
    def of(probe: Looked) -> str:
        found = probe.trial.objectives if probe.trial is not None else ()
        return next((say(held) for held in found if held.text == text), DASH)

    return of


def _value(held: Held) -> str:
    """What was measured, with its interval; the count of what missed it where one window is too small for a value."""
    if held.metric in OF_ALL and held.share is not None and held.share_interval is not None:
        low, high = held.share_interval
        good = held.metric == "goodput"
        return _percent(1 - held.share, (1 - high, 1 - low)) if good else _percent(held.share, (low, high))
    if held.value is None:
        return f"{held.missed:,} of {held.n:,} missed" if held.n else DASH
    unit, scale = METRICS[held.metric].read_in
    ends = [number(end, scale) for end in held.interval or ()]
    return f"{number(held.value, scale)} {unit}" + (f" [{', '.join(ends)}]" if ends else "")


def _missed(held: Held) -> str:
    return DASH if held.share is None or held.share_interval is None else _percent(held.share, held.share_interval)


def _percent(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value * 100:.3g} % [{low * 100:.3g}, {high * 100:.3g}]"


def _verdict(trial: Trial | None) -> str:
    """The verdict on a load by then, and of how many windows."""
    if trial is None:
        return DASH
    windows = f", {trial.windows} windows" if trial.windows > 1 else ""
    return f"{verdict(trial)}{windows}"
