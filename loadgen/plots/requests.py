"""Charts of the inside of a cell: TTFT, percentiles, gaps, the time line, and the requests themselves.

In: `Trace`s. Out: charts. Of several repeats each is drawn by itself or gives one value; requests of different repeats
are never pooled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from loadgen.arrays import NDArray, np
from loadgen.plots.chart import (
    MOST_POINTS,
    Axis,
    Band,
    Bars,
    Heat,
    Level,
    Lines,
    Panel,
    Phase,
    Point,
    Series,
    apart,
    line,
)
from loadgen.plots.groups import point_of
from loadgen.plots.trace import GAP_EDGES_MS, Floats, Trace
from loadgen.statistics import floor_of, nearest_rank, tally

MOST_REQUESTS = 300
"""Requests of a gantt."""

_QUANTILES = 200
_STEPS = 120
_FINEST_S = 0.08
_COLUMNS = 60
_MOST_NINES = 5.0
_GOLDEN = (5**0.5 - 1) / 2
_SILENT = 3.5
"""Times the usual wait between two looks at a server: where it did not answer for longer, nobody knows what it did."""

Colours = Mapping[str, int]
"""By target: the number of its colour."""

WORDS = {
    "waiting": "queue (server)",
    "running": "running (server)",
    "kv_use": "KV cache in use (share)",
    "gpu_watts": "GPU watts",
}
"""What a server, or its GPU, says of itself, in the order of the panels."""


def ttft(traces: Sequence[Trace], colours: Colours, limits: Mapping[str, float] | None = None) -> Lines | None:
    """What share of requests had their first token by when: a panel a cell, a line a repeat. ``limits`` are objectives
    (by their text, in s)."""
    panels = []
    for cell in dict.fromkeys(trace.cell for trace in traces):
        own = [trace for trace in traces if trace.cell == cell]
        series = tuple(_cumulative(trace, colours) for trace in own if len(trace.measured("ttft")))
        if series:
            levels = tuple(Level(name=text, x=limit * 1e3) for text, limit in (limits or {}).items())
            y = Axis(name="share of requests", low=0.0, high=1.0)
            panels.append(Panel(y=y, series=series, levels=levels, name=cell))
    if not panels:
        return None
    return Lines(
        title="TTFT distribution",
        reading=(
            "Each line is a repeat and climbs to 1: at height 0.5 it stands at the median, at 0.95 at p95. Steep is "
            "steady; a foot to the right is a slow tail; two steps are two kinds of requests (a cache hit, a queue). "
            "Lines of one colour that lie apart say that the repeats differ more than any percentile inside one of "
            "them. TTFT counts from the send: what waited in the client is not in it."
        ),
        x=Axis(name="TTFT ms", scale="log"),
        panels=tuple(panels),
    )


def _cumulative(trace: Trace, colours: Colours) -> Series:
    ordered = trace.measured("ttft") * 1e3
    n = len(ordered)
    ranks, _ = tally(np.linspace(0, n - 1, min(n, _QUANTILES)).round().astype(np.int64))
    points: list[Point] = [(float(ordered[rank]), (int(rank) + 1) / n, None, None, None) for rank in ranks]
    start: Point = (float(ordered[0]), 0.0, None, None, None)
    return Series(
        name=trace.target, points=(start, *points), colour=colours.get(trace.target, 0), joined=True, step=True
    )


def percentiles(traces: Sequence[Trace], colours: Colours) -> Lines | None:
    """TTFT and e2e by percentile, on an axis that gives each further nine the same room."""
    panels = []
    for name, label in (("ttft", "TTFT ms"), ("e2e", "e2e ms")):
        series = []
        for target in dict.fromkeys(trace.target for trace in traces):
            repeats = [values for trace in traces if trace.target == target and len(values := trace.measured(name))]
            points = tuple(_percentiles(repeats))
            if points:
                series.append(Series(name=target, points=points, colour=colours.get(target, 0), joined=True))
        if series:
            panels.append(Panel(y=Axis(name=label, scale="log"), series=tuple(series)))
    if not panels:
        return None
    return Lines(
        title=f"Percentiles: {', '.join(dict.fromkeys(trace.cell for trace in traces))}",
        reading=(
            "To the right are ever rarer requests: 90 %, 99 %, 99.9 %. Each point is the mean over the repeats of the "
            "repeat's own percentile, with its 95 % t interval; a line ends where the smallest repeat has too few "
            "requests for the next percentile. A line that turns up at its end is a tail that means and medians hide. "
            "In a closed loop a slow server is asked less often, so that its tail looks better than users would find."
        ),
        x=Axis(name="percentile", scale="nines"),
        panels=tuple(panels),
    )


def _percentiles(repeats: Sequence[Floats]) -> Iterator[Point]:
    """Points at tenths of a nine, up to where the smallest sample still gives the percentile."""
    n = min(map(len, repeats), default=0)
    for tenth in range(int(_MOST_NINES * 10) + 1):
        p = 1 - 10 ** (-tenth / 10)
        if n < floor_of(max(p, 0.5)):
            return
        point = point_of(tenth / 10, [nearest_rank(ordered, p) for ordered in repeats], scale=1e3)
        if point is not None:
            yield point


def gaps(trace: Trace) -> Heat | None:
    """How long the gaps between chunks were, over time."""
    if not trace.gaps.counts.any():
        return None
    width, length = _steps(trace.end_s, _COLUMNS, trace.gaps.width_s)
    counts = trace.gaps.over(width, length)
    filled = np.flatnonzero(counts.any(axis=1))
    rows = range(int(filled[0]), int(filled[-1]) + 1)
    cells = tuple(
        (column, row - rows[0], int(counts[row, column]))
        for row in rows
        for column in range(length)
        if counts[row, column]
    )
    return Heat(
        title=f"Chunk gaps over time: {trace.target}, {trace.cell}, repeat {trace.rep}",
        reading=(
            "Each column is a span of time, each row a length of gap; the scale below says how many gaps a colour is. "
            "A level band is steady decoding; a second band above it is chunks that waited for somebody's prefill; a "
            "column that reaches up is a stall of everybody. A chunk may hold several tokens: a gap is not a time per "
            "token, and an engine that sends two tokens at once looks half as fast here."
        ),
        x=Axis(name="s from the start of the repeat", scale="names", names=_names(i * width for i in range(length))),
        y=Axis(name="gap, ms and more", scale="names", names=_names(GAP_EDGES_MS[row] for row in rows)),
        cells=cells,
        count="gaps",
    )


def timeline(traces: Sequence[Trace], colours: Colours) -> Lines | None:
    """What happened when, in client and server, over one repeat of each target."""
    kept = [trace for trace in traces if len(trace.columns["send"])]
    if not kept:
        return None
    finest = max(_FINEST_S, *(trace.tokens.width_s for trace in kept))
    width, length = _steps(max(trace.end_s for trace in kept), _STEPS, finest)
    lines = {
        "in flight": [_in_steps(trace, _in_flight(trace, width, length), width, colours) for trace in kept],
        "output tok/s": [
            _in_steps(trace, trace.tokens.over(width, length)[0] / width, width, colours) for trace in kept
        ],
    }
    for word, label in WORDS.items():
        lines[label] = [_said(trace, word, colours) for trace in kept if trace.server.get(word)]
    lines["send late ms"] = [_late(trace, width, length, colours) for trace in kept]
    window = kept[0].window
    reps = " and ".join(dict.fromkeys(str(trace.rep) for trace in kept))
    bands = (Band(name="measured", low=window[0], high=window[1]),)
    return Lines(
        title=f"Time line: {kept[0].cell}, repeat {reps}",
        reading=(
            "Everything over one time axis, from the start of the repeat; grey is what was measured, before it is "
            "warm-up, after it the drain. Tokens count when they arrive. In flight that grows all the time is a rate "
            "that the server does not keep up with. Lateness is the client's own, of the latest send of each step that "
            "has one: where it is high, the client was the bottleneck. "
            f"Steps are {width:g} s long: what is shorter does not show."
        ),
        x=Axis(name="s from the start of the repeat", low=0.0, high=width * length),
        panels=tuple(
            Panel(y=Axis(name=label, zero=True), series=tuple(series), bands=bands)
            for label, series in lines.items()
            if series
        ),
    )


def _in_steps(trace: Trace, values: Floats, width: float, colours: Colours) -> Series:
    points = tuple((i * width, float(value), None, None, None) for i, value in enumerate(values))
    return Series(name=trace.target, points=points, colour=colours.get(trace.target, 0), joined=True, step=True)


def _said(trace: Trace, word: str, colours: Colours) -> Series:
    said = trace.server[word]
    every = max(1, math.ceil(len(said) / MOST_POINTS))
    points: list[Point] = [(t, value, None, None, None) for t, value in said[::every]]
    usual = sorted(after[0] - before[0] for before, after in pairwise(points))[(len(points) - 1) // 2 :][:1]
    looks = apart(points, _SILENT * usual[0]) if usual else points
    return line(trace.target, looks, colour=colours.get(trace.target, 0))


def _in_flight(trace: Trace, width: float, length: int) -> Floats:
    """Mean requests in flight in each step: what the integral grows by."""
    edges = np.arange(length + 1, dtype=np.float64) * width
    send, end = trace.columns["send"], trace.columns["end"]
    over: Floats = np.sort(np.where(np.isnan(end), trace.end_s, end))
    held: Floats = np.diff(_since(send, edges) - _since(over, edges)) / width
    return held


def _since(starts: Floats, edges: Any) -> Floats:
    """At each edge, the sum over the starts before it of the time since then. ``starts`` ascend."""
    before = np.searchsorted(starts, edges, side="right")
    sums = np.concatenate([[0.0], np.cumsum(starts)])
    since: Floats = before * edges - sums[before]
    return since


def _late(trace: Trace, width: float, length: int, colours: Colours) -> Series:
    """The longest lateness of a send in each step, ms; a step in which nothing was sent has none, and no zero."""
    send = trace.columns["send"]
    found = np.full(length, -1.0)
    steps = np.minimum((np.maximum(send, 0) / width).astype(np.int64), length - 1)
    np.maximum.at(found, steps, np.maximum(send - trace.columns["sched"], 0.0) * 1e3)
    points = tuple((float(i * width), float(found[i]), None, None, None) for i in np.flatnonzero(found >= 0))
    return Series(name=trace.target, points=points, colour=colours.get(trace.target, 0))


def gantt(trace: Trace) -> Bars | None:
    """Requests as bars: what each waited for. Of more than 300 a sample, one of each stretch."""
    count = len(trace.columns["send"])
    if count == 0:
        return None
    chosen = _sampled(count)
    rows = {name: column[chosen].tolist() for name, column in trace.columns.items()}
    phases = _phases(rows, trace.end_s)
    sampled = f" {len(chosen)} of {count} requests are drawn, one of each stretch." if len(chosen) < count else ""
    return Bars(
        title=f"Requests: {trace.target}, {trace.cell}, repeat {trace.rep}",
        reading=(
            "A row is a request, in the order of sending. Queue is the wait before the send, and in the server where "
            "it says so; where it does not, that wait is part of prefill, which ends with the first token. Bars that "
            f"begin together and end together are a batch.{sampled}"
        ),
        x=Axis(name="s from the start of the repeat", zero=True),
        y=Axis(name="request"),
        phases=phases,
    )


def _sampled(count: int) -> NDArray[np.int64]:
    """Places of at most `MOST_REQUESTS` of so many: one of each stretch, at a place that moves by the golden ratio. At
    equal distances every n-th request of a batch would be all that one sees."""
    if count <= MOST_REQUESTS:
        return np.arange(count)
    stretch = np.arange(MOST_REQUESTS)
    return np.floor((stretch + stretch * _GOLDEN % 1) * count / MOST_REQUESTS).astype(np.int64)


def _phases(rows: Mapping[str, list[float]], over: float) -> tuple[Phase, ...]:
    queue, prefill, decode, failed = [], [], [], []
    names = ("sched", "send", "queue", "first", "last", "end", "ok")
    for row, (sched, send, waited, first, last, end, ok) in enumerate(
        zip(*(rows[name] for name in names), strict=True)
    ):
        if not ok:
            failed.append((row, send, over if math.isnan(end) else end))
            continue
        last = end if math.isnan(last) else last
        first = last if math.isnan(first) else first
        begun = min(send + waited, first)
        queue += [(row, min(sched, send), begun)] if begun > sched else []
        prefill.append((row, begun, first))
        decode += [(row, first, last)] if last > first else []
    kinds = (("queue", queue), ("prefill", prefill), ("decode", decode))
    found = [Phase(name=name, spans=tuple(spans)) for name, spans in kinds]
    return (*found, Phase(name="failed", spans=tuple(failed), bad=True)) if failed else tuple(found)


def _steps(end_s: float, most: int, finest: float) -> tuple[float, int]:
    """The length of a step, a multiple of ``finest``, and how many of them (at most ``most``) reach the end."""
    width = finest * max(1, math.ceil(end_s / (most * finest) - 1e-9))
    return width, max(1, math.ceil(end_s / width - 1e-9))


def _names(values: Iterator[float] | Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{value:.6g}" for value in values)
