"""One series of a store, night by night, with what was expected of each and where epochs begin.

In: the entries of a series (``baseline.py``). Out: `Lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median

from loadgen.metrics import METRICS, measure
from loadgen.nights.baseline import Entry
from loadgen.nights.verdicts import State
from loadgen.plots.chart import Axis, Level, Lines, Panel, Point, Series, gap, line

MOST_NIGHTS = 400
"""Nights that are drawn: the last ones."""

_ALARMS = (State.REGRESSION, State.SUSPECT, State.IMPROVEMENT)


def nights(entries: Sequence[Entry]) -> Lines | None:
    """The last `MOST_NIGHTS` of a series; None where no night has a value."""
    kept = entries[-MOST_NIGHTS:]
    if all(entry.point.value is None for entry in kept):
        return None
    what, series = measure(kept[0].point.series.measure), kept[0].point.series
    scale = METRICS[what.metric].read_in[1]
    drawn = [
        line("night", _points(kept, lambda one: one.point.value, scale)),
        line("expected from", _points(kept, _expected(0), scale), colour=6, dashed=True),
        line("expected to", _points(kept, _expected(1), scale), colour=6, dashed=True),
    ]
    for number, state in enumerate(_ALARMS):
        own = _points(kept, lambda one, state=state: one.point.value if one.state is state else None, scale)  # type: ignore[misc]
        drawn.append(Series(name=state.value, points=line("", own).known, colour=(1, 4, 2)[number]))
    return Lines(
        title=f"Nights of {series.name}",
        reading=(
            "Each point is a night, the geometric mean of its repeats; a line breaks at a night without a good repeat "
            "and where nights are missing. Between the dashed lines 95 % of nights lie if nothing changed: one in "
            "twenty lies outside by chance, and is no regression until it was measured again. At a vertical line "
            "something began that cannot be compared with what was before (a driver, a model, somebody's word). A slow "
            "drift moves the expected band along with it: look at the whole line, too."
        ),
        x=Axis(name="night", scale="names", names=tuple(entry.point.at[:10] for entry in kept)),
        panels=(
            Panel(
                y=Axis(name=what.head),
                series=tuple(one for one in drawn if one.known),
                levels=tuple(_epochs(kept)),
            ),
        ),
    )


def _points(kept: Sequence[Entry], value: Callable[[Entry], float | None], scale: float) -> list[Point]:
    """The value of each night, with a gap where it has none, or where nights before it are missing."""
    found: list[Point] = []
    for i, (entry, late) in enumerate(zip(kept, _late(kept), strict=True)):
        one = value(entry)
        found += [gap(float(i))] if late else []
        found.append((float(i), None if one is None else one * scale, None, None, None))
    return found


def _late(kept: Sequence[Entry]) -> list[bool]:
    """Whether a night came later after the one before than half as long again as nights usually do."""
    at = [datetime.fromisoformat(entry.point.at).timestamp() for entry in kept]
    waits = [after - before for before, after in pairwise(at)]
    return [False, *(wait > 1.5 * median(waits) for wait in waits)]


def _expected(end: int) -> Callable[[Entry], float | None]:
    def found(entry: Entry) -> float | None:
        held = entry.verdict.expected if entry.verdict else None
        return None if held is None else held[end]

    return found


def _epochs(kept: Sequence[Entry]) -> list[Level]:
    return [Level(name="epoch", x=i - 0.5) for i in range(1, len(kept)) if kept[i].epoch != kept[i - 1].epoch]
