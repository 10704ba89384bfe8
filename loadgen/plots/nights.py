"""One series of a store, night by night, with what was expected of each and where epochs begin.

In: the entries of a series (``baseline.py``). Out: `Lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadgen.metrics import METRICS, measure
from loadgen.nights.baseline import Entry
from loadgen.nights.verdicts import State
from loadgen.plots.chart import Axis, Level, Lines, Panel, Point, Series

MOST_NIGHTS = 400
"""Nights that are drawn: the last ones."""

_ALARMS = (State.REGRESSION, State.SUSPECT, State.IMPROVEMENT)


def nights(entries: Sequence[Entry]) -> Lines | None:
    """The last `MOST_NIGHTS` of a series; None where no night has a value."""
    kept = [entry for entry in entries if entry.point.value is not None][-MOST_NIGHTS:]
    if not kept:
        return None
    what, series = measure(kept[0].point.series.measure), kept[0].point.series
    scale = METRICS[what.metric].read_in[1]
    drawn = [
        Series(name="night", points=_points(kept, lambda one: one.point.value, scale), joined=True),
        Series(name="expected from", points=_points(kept, _expected(0), scale), colour=6, joined=True, dashed=True),
        Series(name="expected to", points=_points(kept, _expected(1), scale), colour=6, joined=True, dashed=True),
    ]
    for number, state in enumerate(_ALARMS):
        own = _points(kept, lambda one, state=state: one.point.value if one.state is state else None, scale)  # type: ignore[misc]
        drawn.append(Series(name=state.value, points=own, colour=(1, 4, 2)[number]))
    return Lines(
        title=f"Nights of {series.name}",
        reading=(
            "Each point is a night, the geometric mean of its repeats. Between the dashed lines 95 % of nights lie if "
            "nothing changed: one in twenty lies outside by chance, and is no regression until it was measured again. "
            "At a vertical line something began that cannot be compared with what was before (a driver, a model, "
            "somebody's word). A slow drift moves the expected band along with it: look at the whole line, too."
        ),
        x=Axis(name="night", scale="names", names=tuple(entry.point.at[:10] for entry in kept)),
        panels=(
            Panel(
                y=Axis(name=what.head),
                series=tuple(one for one in drawn if one.points),
                levels=tuple(_epochs(kept)),
            ),
        ),
    )


def _points(kept: Sequence[Entry], value: Callable[[Entry], float | None], scale: float) -> tuple[Point, ...]:
    found = [(float(i), value(entry)) for i, entry in enumerate(kept)]
    return tuple((i, one * scale, None, None, None) for i, one in found if one is not None)


def _expected(end: int) -> Callable[[Entry], float | None]:
    def found(entry: Entry) -> float | None:
        held = entry.verdict.expected if entry.verdict else None
        return None if held is None else held[end]

    return found


def _epochs(kept: Sequence[Entry]) -> list[Level]:
    return [Level(name="epoch", x=i - 0.5) for i in range(1, len(kept)) if kept[i].epoch != kept[i - 1].epoch]
