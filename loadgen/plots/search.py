"""The path of a search: what each load came to, the limits, and what is left between them.

In: a `Searched`. Out: `Lines`, or None where nothing was measured. A point is a load, with what all of its windows say
together; a panel is an objective, and the last one is the path, probe by probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import msgspec

from loadgen.assemble import RunReport
from loadgen.metrics import METRICS, Measure, measure
from loadgen.plots.chart import Axis, Band, Level, Lines, Panel, Point, Series
from loadgen.scenario import parse_objective
from loadgen.search.path import Goal
from loadgen.search.sweep import Course
from loadgen.search.verdict import OF_ALL, Held, Verdict
from loadgen.searched import Looked, Searched
from loadgen.shown import brief

MOST_CHARTS = 6
"""Searches of a run that are drawn."""

_COLOURS = {"met": 2, "undecided, taken as met": 0, "undecided, taken as missed": 4, "missed": 1, "INVALID": 6}
"""What is said of a load, and the number of its colour."""

_UNITS = {"max_rate": "requests/s that were offered", "max_concurrency": "requests in flight"}

_READING = (
    "A point is a load with all of its windows; its bar is the 95 % interval of one window. Red lines are the limits, "
    "grey is what is left between the load that holds and the one that does not. What a load is called is decided by "
    "counts and by all objectives together, so that a point below its line may be missed or undecided. A load with too "
    "few requests for a percentile has no point there, and an objective that no request missed has no panel; the "
    "lowest panel has every probe."
)
_SWEPT = (
    "Left of the grey band (the knee with its 95 % interval) a request waits for little but its own work. Right of it "
    "a queue grows for as long as the window lasts, so that those latencies say how long was measured and nothing "
    "else. A closed loop stands at the rate that it was answered at, with its requests in flight."
)


def searches(report: RunReport) -> Iterator[Lines]:
    """A chart for each of the first searches of a run that has something to show."""
    for one in report.searches[:MOST_CHARTS]:
        if (made := search(one)) is not None:
            yield made


def search(one: Searched) -> Lines | None:
    """The chart of a search for the largest load, or of a sweep."""
    return _swept(one, one.goal) if isinstance(one.goal, Course) else _path(one, one.goal)


def title_of(one: Searched) -> str:
    """What is looked for, and where: ``Search for max_rate: a, input_tokens 64``."""
    what = "Sweep" if isinstance(one.goal, Course) else f"Search for {one.goal.find}"
    return f"{what}: {', '.join([one.target, *(f'{name} {value}' for name, value in one.axes.items())])}"


# The largest load -----------------------------------------------------------------------------------------------------


def _path(one: Searched, goal: Goal) -> Lines | None:
    if not one.probes:
        return None
    last = {probe.load: probe for probe in one.probes}
    bands, ends = tuple(_left(one)), tuple(_lone_end(one))
    panels = [_objective(text, found) for text, found in _held(list(last.values())).items()]
    panels.append(Panel(y=Axis(name="probe", zero=True), series=_probes(one.probes)))
    return Lines(
        title=title_of(one),
        reading=_READING,
        x=Axis(name=_UNITS[goal.find], zero=True),
        panels=tuple(msgspec.structs.replace(panel, levels=(*panel.levels, *ends), bands=bands) for panel in panels),
    )


def _left(one: Searched) -> Iterator[Band]:
    """What is left between the load that holds and the one that does not."""
    if one.answer is not None and one.answer.holds is not None and one.answer.blocks is not None:
        low, high = one.answer.holds, one.answer.blocks
        yield Band(name=f"{low:g} to {high:g}", low=low, high=high)


def _lone_end(one: Searched) -> Iterator[Level]:
    """The only end that there is, where every load held or none did."""
    if one.answer is not None and one.answer.blocks is None and one.answer.holds is not None:
        yield Level(name="all that was tried holds", x=one.answer.holds)


def _probes(probes: Sequence[Looked]) -> tuple[Series, ...]:
    """Every probe at its place in the path."""
    points = [(probe, (probe.load, float(probe.number), None, None, None)) for probe in probes]
    line = tuple(point for _, point in points)
    path = Series(name="path", points=line, colour=6, joined=True, dashed=True, bare=True)
    return (path, *_by_verdict(points))


def _held(last: Sequence[Looked]) -> dict[str, list[tuple[Looked, Held]]]:
    """By objective: what is said of it at each load. One that no request missed is left out where others were."""
    found: dict[str, list[tuple[Looked, Held]]] = {}
    for probe in last:
        for held in probe.trial.objectives if probe.trial is not None else ():
            found.setdefault(held.text, []).append((probe, held))
    missed = {text: some for text, some in found.items() if any(held.missed for _, held in some)}
    return missed or found


def _objective(text: str, found: Sequence[tuple[Looked, Held]]) -> Panel:
    """The values of an objective with its limit; the shares that missed it where windows are too small for values."""
    known = sum(held.value is not None for _, held in found)
    scale = _scale_of(found[0][1], shares=known < min(2, len(found)))
    points = [(probe, (probe.load, *place, None)) for probe, held in found if (place := scale.place(held)) is not None]
    return Panel(y=scale.axis, series=_by_verdict(points), levels=(Level(name=text, y=scale.limit),))


_Place = tuple[float, float | None, float | None]


class _Scale(NamedTuple):
    """How an objective is drawn: on which axis, where its limit lies, and where a load (value, low, high)."""

    axis: Axis
    limit: float
    place: Callable[[Held], _Place | None]


def _scale_of(held: Held, shares: bool) -> _Scale:
    objective = parse_objective(held.text)
    what, scale = Measure(objective.metric, objective.statistic), METRICS[objective.metric].read_in[1]
    if objective.metric in OF_ALL:
        place = partial(_share, good=objective.metric == "goodput")
        return _Scale(Axis(name=what.head, zero=True), objective.value * scale, place)
    if shares:
        return _Scale(Axis(name=f"% that miss {what.label}", zero=True), held.allowed * 100, _share)
    return _Scale(Axis(name=what.head, scale="log"), objective.value * scale, partial(_value, scale=scale))


def _share(held: Held, good: bool = False) -> _Place | None:
    """The share of the requests that missed the objective, in per cent; with ``good`` that of the others."""
    if held.share is None or held.share_interval is None:
        return None
    low, high = held.share_interval
    return _percent(1 - held.share, 1 - high, 1 - low) if good else _percent(held.share, low, high)


def _percent(value: float, low: float, high: float) -> _Place:
    return value * 100, low * 100, high * 100


def _value(held: Held, scale: float) -> _Place | None:
    if held.value is None or held.value <= 0:
        return None
    low, high = held.interval or (None, None)
    return held.value * scale, None if low is None else low * scale, None if high is None else high * scale


def _by_verdict(points: Sequence[tuple[Looked, Point]]) -> tuple[Series, ...]:
    """A series for each verdict that there is, so that each has its own colour and mark."""
    found: dict[str, list[Point]] = {}
    for probe, point in points:
        found.setdefault(_word(probe), []).append(point)
    return tuple(
        Series(name=word, points=tuple(sorted(found[word], key=itemgetter(0))), colour=colour)
        for word, colour in _COLOURS.items()
        if word in found
    )


def _word(probe: Looked) -> str:
    trial = probe.trial
    if trial is None or trial.verdict is Verdict.INVALID:
        return "INVALID"
    if trial.verdict is not Verdict.UNDECIDED:
        return str(trial.verdict)
    return "undecided, taken as met" if trial.leans else "undecided, taken as missed"


# A sweep --------------------------------------------------------------------------------------------------------------


def _swept(one: Searched, course: Course) -> Lines | None:
    places = [(probe, probe.load if probe.word == "rate_rps" else probe.request_rps) for probe in one.probes]
    known = [(probe, x) for probe, x in places if x is not None and probe.answers]
    panels = (
        _steps(known, measure(course.latency).head, lambda probe: probe.latency, 1e3),
        _steps(known, "answered requests/s", lambda probe: probe.request_rps, 1.0),
        _steps(known, "goodput %", lambda probe: probe.goodput, 100.0),
    )
    if not panels[0].series:
        return None
    knee = one.swept.knee if one.swept is not None else None
    maximum = one.swept.maximum if one.swept is not None else None
    bands = () if knee is None else (Band(name=f"knee {brief(knee.rate, 3)}", low=knee.low, high=knee.high),)
    levels = () if maximum is None else (Level(name="measured maximum", x=maximum),)
    return Lines(
        title=title_of(one),
        reading=_SWEPT,
        x=Axis(name="requests/s that were offered", zero=True),
        panels=tuple(msgspec.structs.replace(one, bands=bands, levels=levels) for one in panels if one.series),
    )


def _steps(
    known: Sequence[tuple[Looked, float]], name: str, value: Callable[[Looked], float | None], scale: float
) -> Panel:
    """A panel of a sweep: open loops joined by rising rate, closed loops with their requests in flight as labels."""
    series = []
    for word, said, colour in (("rate_rps", "open loop", 0), ("concurrency", "closed loop", 1)):
        own = [(x, probe, found) for probe, x in known if probe.word == word and (found := value(probe)) is not None]
        points = tuple(
            (x, found * scale, None, None, None if word == "rate_rps" else f"{probe.load:g}")
            for x, probe, found in sorted(own, key=itemgetter(0))
        )
        if points:
            series.append(Series(name=said, points=points, colour=colour, joined=word == "rate_rps"))
    return Panel(y=Axis(name=name, zero=True), series=tuple(series))
