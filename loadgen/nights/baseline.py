"""The nights of a series in order -> epochs, the baseline of tonight, the alert that is open.

In: points of a series, what was said of them, what people decided. Out: a `Past`. Pure functions; nights follow each
other in the order in which they were written down, which is that of ``events.jsonl``.

An epoch begins where what was measured before is no measure of what comes: another driver, another revision of the
model, another way of pinning the image, or somebody's word (``loadgen baseline accept``). A night that was a regression
in its epoch is no part of the baseline, so that it cannot become the new normal by itself; accepted, it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from loadgen.nights.events import Accepted, Event, Pinned, Raised, Recovered
from loadgen.nights.regression import RECENT, WINDOW
from loadgen.nights.series import EPOCH, Point
from loadgen.nights.verdicts import Past, SeriesVerdict, State

GOOD = (State.OK, State.LEARNING, State.SUSPECT, State.IMPROVEMENT)
"""Nights that were measured, and were no regression."""

SOUND = (State.OK, State.LEARNING, State.IMPROVEMENT)
"""Nights that nothing was said against."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One night of a series: its point, what was said of it, and the run that began its epoch; ``accepted`` is True if
    that was somebody's word."""

    point: Point
    verdict: SeriesVerdict | None
    epoch: str
    accepted: bool = False

    @property
    def state(self) -> State:
        """How the series stood; learning for a night of which nothing was said."""
        if self.verdict is not None:
            return self.verdict.state
        return State.INVALID if self.point.y is None else State.LEARNING

    @property
    def counts(self) -> bool:
        """True if the night may stand in a baseline of its epoch: every repeat is good, and it was no regression, or
        one that was accepted since."""
        since = self.accepted and self.verdict is not None and self.verdict.epoch != self.epoch
        return self.point.state == "ok" and (self.state is not State.REGRESSION or since)


def entries_of(points: Sequence[Point], said: Mapping[str, SeriesVerdict], events: Sequence[Event]) -> list[Entry]:
    """The nights of one series with their epochs. ``said`` are its verdicts by run."""
    begins = set(_accepted(points[0].series.key, events)) if points else set()
    known: dict[str, str] = {}
    found: list[Entry] = []
    epoch = ""
    for point in points:
        marks = {name: point.facts[name] for name in EPOCH if name in point.facts}
        if not epoch or point.run in begins or _differ(known, marks):
            epoch, known = point.run, {}
        known |= marks
        found.append(Entry(point=point, verdict=said.get(point.run), epoch=epoch, accepted=epoch in begins))
    return found


def past_of(
    entries: Sequence[Entry], events: Sequence[Event], tonight: Point | None = None, floor: float | None = None
) -> Past:
    """What is known of a series before ``tonight`` (None: after all of its nights). A night is never its own past."""
    if tonight is not None:
        entries = [entry for entry in entries if entry.point.run != tonight.run]
        said = {entry.point.run: entry.verdict for entry in entries if entry.verdict is not None}
        with_tonight = entries_of([*(entry.point for entry in entries), tonight], said, events)
        entries, epoch = with_tonight[:-1], with_tonight[-1].epoch
    else:
        epoch = entries[-1].epoch if entries else ""
    good = [entry.point for entry in entries if entry.epoch == epoch and entry.counts]
    reference = _reference(good, events)
    recent = [point for point in good[-RECENT:] if point not in reference]
    return Past(
        nights=_logs(good[-WINDOW:]),
        reference=_logs(reference),
        recent=_logs(recent),
        floor=floor,
        epoch=epoch,
        alert=_alert(entries, events, epoch),
    )


def kept_runs(entries: Sequence[Entry], events: Sequence[Event]) -> set[str]:
    """The runs of a series that must not be deleted: of the baseline's window, of the reference, and pinned ones."""
    if not entries:
        return set()
    good = [entry.point for entry in entries if entry.epoch == entries[-1].epoch and entry.counts]
    pinned = {run for event in _pins(entries[0].point.series.key, events) for run in event.runs}
    return pinned | {point.run for point in (*good[-WINDOW:], *_reference(good, events))}


def news(verdicts: Sequence[SeriesVerdict], pasts: Mapping[str, Past], at: str) -> list[Event]:
    """Alerts that this night raises, and those that it ends. ``at`` is now, in UTC."""
    found: list[Event] = []
    for one in verdicts:
        before = pasts.get(one.series.key, Past()).alert
        if one.alert is not None and before is None:
            found.append(Raised(at=at, series=one.series.key, run=one.run, epoch=one.epoch))
        elif one.alert is None and before is not None:
            found.append(Recovered(at=at, series=one.series.key, run=one.run))
    return found


def failing(entries: Sequence[Entry]) -> int:
    """How many nights in a row, up to the last one, were regressions. Nights without a good repeat count neither
    way."""
    nights = 0
    for entry in reversed(entries):
        if entry.state in GOOD:
            break
        nights += entry.state is State.REGRESSION
    return nights


def last_good(entries: Sequence[Entry], states: Sequence[State] = GOOD) -> Entry | None:
    """The last night in one of these states: without any, one that was measured and was no regression."""
    return next((entry for entry in reversed(entries) if entry.state in states), None)


def _differ(known: Mapping[str, str], marks: Mapping[str, str]) -> bool:
    """True if something that begins an epoch changed; what is not known of a night is no change."""
    return any(known.get(name, value) != value for name, value in marks.items())


def _logs(points: Sequence[Point]) -> tuple[float, ...]:
    return tuple(point.y for point in points if point.y is not None)


def _reference(good: Sequence[Point], events: Sequence[Event]) -> list[Point]:
    """The pinned nights among these, else the first ones."""
    pins = list(_pins(good[0].series.key, events)) if good else []
    pinned = [point for point in good if pins and point.run in pins[-1].runs]
    return pinned or list(good[:WINDOW])


def _pins(key: str, events: Sequence[Event]) -> Iterator[Pinned]:
    return (event for event in events if isinstance(event, Pinned) and key in event.series)


def _accepted(key: str, events: Sequence[Event]) -> Iterator[str]:
    return (event.run for event in events if isinstance(event, Accepted) and key in event.series)


def _alert(entries: Sequence[Entry], events: Sequence[Event], epoch: str) -> str | None:
    """The run that raised the alert which is open in an epoch."""
    key = entries[0].point.series.key if entries else None
    epochs = {entry.point.run: entry.epoch for entry in entries}
    alert = None
    for event in events:
        if isinstance(event, Raised) and event.series == key:
            alert = event.run if epochs.get(event.run, event.epoch) == epoch else None
        elif (isinstance(event, Recovered) and event.series == key) or (
            isinstance(event, Accepted) and key in event.series
        ):
            alert = None
    return alert
