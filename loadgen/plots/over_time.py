"""The course of a long repeat: its intervals as lines over hours. In: an `OverTime`. Out: a chart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from loadgen.assemble import RunReport
from loadgen.long.intervals import Interval
from loadgen.long.over_time import OverTime
from loadgen.plots.chart import Axis, Band, Lines, Panel, Point, Series, line, thinned
from loadgen.plots.groups import laid

MOST_CHARTS = 4

_HOUR_S = 2 * 3600.0
"""Longer repeats are drawn in hours, others in minutes."""

Value = Callable[[Interval], float | None]

_PANELS: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = (
    ("output tok/s", (("", lambda one: one.output_tok_s),)),
    ("TTFT ms", (("p50", lambda one: _ms(one.ttft_p50_s)), ("p99", lambda one: _ms(one.ttft_p99_s)))),
    ("TPOT p50 ms", (("", lambda one: _ms(one.tpot_p50_s)),)),
    ("failed", (("", lambda one: float(one.failed)),)),
    ("in flight", (("", lambda one: one.in_flight),)),
    ("server MB", (("", lambda one: _mega(one.server.get("server_bytes"))),)),
    ("GPU MB", (("", lambda one: _mega(one.server.get("gpu_bytes"))),)),
    ("waiting (server)", (("", lambda one: one.server.get("waiting")),)),
)
"""The panels of a chart: the name of the axis, and a line for each value."""

_FROM_ZERO = ("failed", "in flight", "waiting (server)")
"""Panels whose axis begins at zero; in the others a drift of a few percent should be seen."""


def over_time(report: RunReport) -> Iterator[Lines]:
    """A chart for each of the first long repeats of a run."""
    for one in report.over_time[:MOST_CHARTS]:
        if len(one.intervals) > 1:
            yield chart(one, laid(report).colours.get(one.target, 0))


def chart(one: OverTime, colour: int = 0) -> Lines:
    """Everything about one repeat over one time axis."""
    unit, length = ("h", 3600.0) if one.intervals[-1].end_s > _HOUR_S else ("min", 60.0)
    bands = (Band(name="measured", low=one.window.w0 / length, high=one.window.w1 / length),)
    panels = []
    for name, values in _PANELS:
        made = (_series(one, label, value, length, (colour, number)) for number, (label, value) in enumerate(values))
        series = tuple(each for each in made if each.known)
        if series and not (name == "failed" and not any(interval.failed for interval in one.intervals)):
            panels.append(Panel(y=Axis(name=name, zero=name in _FROM_ZERO), series=series, bands=bands))
    return Lines(
        title=f"Over time: {one.cell}, {one.target}, repeat {one.rep}",
        reading=(
            f"Each step is an interval of {one.intervals[0].length_s:g} s; grey is what was measured. A level line is "
            "a server that does at the end what it did at the beginning; what the eye takes for a slope may be noise, "
            "which is why the drift test stands beside it; axes of speed and memory do not begin at zero. Requests "
            "count where they ended, tokens where they arrived. A line breaks over an interval of which nothing is "
            "known: too few requests for a percentile, or a server that did not answer; what stands alone is a dot."
        ),
        x=Axis(name=f"{unit} from the start of the repeat", low=0.0),
        panels=tuple(panels),
    )


def _series(one: OverTime, label: str, value: Value, length: float, look: tuple[int, int]) -> Series:
    """``look``: the number of the colour, and 1 for a line that is dashed to tell it from the first."""
    name = f"{one.target} {label}".strip()
    points = thinned(list(_points(one.intervals, value, length)))
    return line(name, points, step=True, colour=look[0], dashed=look[1] > 0)


def _points(intervals: Sequence[Interval], value: Value, length: float) -> Iterable[Point]:
    for interval in intervals:
        if interval.length_s > intervals[0].length_s / 2:  # rates over a moment say nothing
            yield interval.start_s / length, value(interval), None, None, None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _mega(count: float | None) -> float | None:
    return None if count is None else count / 1e6
