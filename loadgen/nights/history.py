"""What a store knows of its nights: every series with its past, read through the index.

In: a store. Out: series with their entries, pasts for `verdicts.judge`, the runs that must be kept.
"""

from __future__ import annotations

import calendar
import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from loadgen.assemble import RunReport
from loadgen.errors import LoadgenError, UsageError
from loadgen.nights.baseline import SOUND, Entry, entries_of, kept_runs, last_good, past_of
from loadgen.nights.blame import Change, changes, sheet
from loadgen.nights.events import Event, Night, decoded
from loadgen.nights.index import look
from loadgen.nights.regression import LEAST, WINDOW
from loadgen.nights.series import Point, Series
from loadgen.nights.verdicts import Past, SeriesVerdict
from loadgen.noise import noise_of, remembered
from loadgen.plan import Plan
from loadgen.store import Run

AHEAD_S = 3600.0
"""A night that began so long from now was measured under another clock."""


class History:
    """The nights of a store as they are known at one moment: by key, every series and its nights in order; and all that
    was decided. ``folders`` are those of its runs, under ``root``."""

    def __init__(
        self, root: Path, points: Mapping[str, Sequence[Point]], events: Sequence[Event], folders: Mapping[str, str]
    ) -> None:
        self.root, self._folders = root, folders
        self.events = tuple(events)
        self.nights = [event for event in events if isinstance(event, Night)]
        said: dict[str, dict[str, SeriesVerdict]] = {}
        for night in self.nights:
            for verdict in night.verdicts:
                said.setdefault(verdict.series.key, {})[night.run] = verdict
        self.series = {key: own[-1].series for key, own in points.items()}
        self.entries = {key: entries_of(own, said.get(key, {}), events) for key, own in points.items()}

    def folders(self) -> dict[str, Path]:
        """The folder of every run of the store, by its id; they may have other names by now."""
        return {run: self.root / folder for run, folder in self._folders.items()}

    # -- what a night needs ---------------------------------------------------------------------------------------

    def pasts(self, tonight: Sequence[Point], floors: Mapping[str, float]) -> dict[str, Past]:
        """By key: what is known of the series of these points before tonight. ``floors`` come from `noise_floors`."""
        keys = {point.series.key: point for point in tonight}
        return {
            key: past_of(self.entries.get(key, ()), self.events, point, floors.get(key)) for key, point in keys.items()
        }

    def by_now(self, keys: Sequence[str]) -> dict[str, Past]:
        """By key: what is known of series after all of their nights."""
        return {key: past_of(self.entries[key], self.events) for key in keys}

    def kept(self) -> set[str]:
        """The runs whose requests must not be deleted, by their folders' names: of a baseline window, of a reference,
        and pinned ones. The runs that confirmed a night go with it."""
        found = {run for entries in self.entries.values() for run in kept_runs(entries, self.events)}
        found |= {run for night in self.nights if night.run in found for run in night.confirms}
        return {self._folders.get(run, run).rpartition("/")[2] for run in found}

    def alternates(self, name: str, tonight: Sequence[Point]) -> bool:
        """True if an earlier night of a scenario's name measured tonight's series, and the last one others: two
        scenarios have one name here, or one was changed and changed back."""
        keys, run = {point.series.key for point in tonight}, tonight[0].run if tonight else ""
        nights = [night.run for night in self.nights if night.scenario == name and night.run != run]
        of_last = {key for key, own in self.entries.items() for entry in own if [entry.point.run] == nights[-1:]}
        return bool(of_last) and not keys & of_last and bool(keys & self.entries.keys())

    def changed(self, point: Point) -> list[str]:
        """What changed around a point since the last sound night of its series before it, in words."""
        earlier = [entry for entry in self.entries.get(point.series.key, ()) if entry.point.run != point.run]
        good = last_good(earlier, SOUND)
        return [] if good is None else [str(change) for change in changes(good.point.facts, point.facts)]

    # -- what people ask ------------------------------------------------------------------------------------------

    def live(self) -> list[str]:
        """The keys of series that the last night of their scenario has, or left out for want of time; others ended when
        the scenario changed."""
        measured = {
            entry.point.run for own in self.entries.values() for entry in own
        }  # a folder may be gone, or broken
        last = {night.scenario: night.run for night in self.nights if night.run in measured}
        spared = {(name, cell) for name, run in last.items() for cell in self._left_out(run)}
        return [
            key
            for key, one in self.series.items()
            if self.entries[key][-1].point.run == last.get(one.scenario) or (one.scenario, one.cell) in spared
        ]

    def _left_out(self, run: str) -> Sequence[str]:
        """The cells that a night had no time for."""
        try:
            told = Run(self.root / self._folders[run]).read("run.json").get("night") or {}
        except LoadgenError:
            return ()
        return [str(cell) for cell in told.get("left_out") or ()]

    def find(self, words: str) -> list[str]:
        """The keys of the series that a user means: a key or its beginning, or words that all stand in its name. Those
        that ended are meant only where none lives. Raises UsageError if there is none."""
        by_key = [key for key in self.series if len(words) >= 4 and key.startswith(words)]
        wanted = words.split()
        found = by_key or [key for key, one in self.series.items() if all(word in _words(one) for word in wanted)]
        if not found:
            named = "; ".join(one.name for one in list(self.series.values())[:4])
            raise UsageError(
                f"no series {words!r} in {self.root}; there are {len(self.series)}{named and ': ' + named}."
            )
        return [key for key in self.live() if key in found] or found

    def stale(self, now: float, limit_s: float, keys: Sequence[str]) -> list[str]:
        """A sentence for each of these series (primary ones alone, if there are any) whose last good night began more
        than so many seconds before ``now`` (seconds since 1970); one sentence where there is no night at all."""
        watched = [key for key in keys if self.entries[key][-1].point.primary] or list(keys)
        if not watched:
            return [f"there is no night in {self.root}."]
        found = []
        for key in watched:
            name, good = self.series[key].name, last_good(self.entries[key])
            if good is None:
                found.append(f"{name}: it never had a good night.")
            elif (age := now - _seconds(good.point.at)) > limit_s:
                found.append(f"{name}: its last good night was {age / 3600:.0f} h ago ({good.point.run}).")
            elif age < -AHEAD_S:
                ahead = f"its last good night began {-age / 3600:.0f} h from now ({good.point.run})"
                found.append(f"{name}: {ahead}: the clock was wrong then, or is now, and nobody knows how old it is.")
        return found

    def night_of(self, key: str, words: str | None) -> str:
        """The run of a night that a user means: a part of its name; without words the night that raised the alert which
        is open, else the last one. Raises UsageError."""
        if words is None:
            return past_of(self.entries[key], self.events).alert or self.entries[key][-1].point.run
        runs = [entry.point.run for entry in self.entries[key]]
        found = [run for run in runs if words in run]
        if len(found) != 1:
            raise UsageError(f"{words!r} fits {len(found)} of the {len(runs)} nights of {self.series[key].name}.")
        return found[0]

    def good_from(self, key: str, words: str | None) -> tuple[str, ...]:
        """The first good nights of a series' epoch, 14 at most, from the one that a user means on. Raises UsageError if
        they are fewer than an alarm needs."""
        entries = self.entries[key]
        runs = [entry.point.run for entry in entries]
        first = runs.index(self.night_of(key, words)) if words is not None else 0
        good = [entry.point.run for entry in entries[first:] if entry.epoch == entries[-1].epoch and entry.counts]
        if len(good) < LEAST:
            raise UsageError(
                f"{self.series[key].name} has {len(good)} good nights from there on, and {LEAST} are needed."
            )
        return tuple(good[:WINDOW])

    def before(self, key: str) -> Entry | None:
        """The last sound night of a series before its last night; of one that has but one night, that of the series
        that had its name before: the scenario changed then."""
        found = last_good(self.entries[key][:-1], SOUND)
        if found is not None or len(self.entries[key]) > 1:
            return found
        place = [night.run for night in self.nights]
        named = [
            own
            for other, own in self.entries.items()
            if other != key and self.series[other].name == self.series[key].name
        ]
        older = [good for own in named if (good := last_good(own, SOUND)) is not None]
        return max(older, key=lambda entry: place.index(entry.point.run), default=None)

    def changes(self, key: str) -> list[Change]:
        """What changed from the night `before` to the last night of a series, by all that both runs wrote."""
        good = self.before(key)
        return [] if good is None else changes(self._sheet(good.point), self._sheet(self.entries[key][-1].point))

    def _sheet(self, point: Point) -> dict[str, str]:
        run = Run(self.root / self._folders[point.run])
        plan = msgspec.convert(run.read("plan.json"), Plan)
        return sheet(run.described(), plan, point.series.cell, point.series.target) | point.facts


def read_history(root: Path, say: Callable[[str], None] = lambda _: None) -> History:
    """The history of a store; its index is brought up to date first, and ``say`` is told if it is made anew.

    Raises StoreError, UsageError where there is no such store.
    """
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}; name one with --store.")
    return look(root, lambda index: _read(root, index), say)


def noise_floors(root: Path, report: RunReport, points: Sequence[Point]) -> dict[str, float]:
    """By key: the spread of nights that noise alone makes in the series of these points of a run, where a calibration
    is known.

    A night is a mean over its repeats. What differs within a pair is drawn anew at every repeat and averages out; what
    repeats differ by beyond that is a mood of the machine, which lasts through the night: sqrt(cv^2 - pair_cv^2 +
    pair_cv^2 / R).
    """
    loads, found = remembered(report.run).loads, {}
    for point in points:
        load = loads.get(point.series.cell)
        if load is None or not point.reps:
            continue
        noise = noise_of(root, report.run.get("machine") or {}, report.plan.scope, load, point.series.measure)
        if noise is not None:
            moods = max(noise.cv**2 - noise.pair_cv**2, 0.0)
            found[point.series.key] = math.sqrt(moods + noise.pair_cv**2 / point.reps)
    return found


def _seconds(at: str) -> float:
    """Seconds since 1970 of a time as runs keep it."""
    return calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))


def _words(series: Series) -> list[str]:
    """What a user may call a series by."""
    return [series.key, series.scenario, series.target, series.cell, *series.measure.split(), series.measure]


def _read(root: Path, index: sqlite3.Connection) -> History:
    facts = {
        (run, cell, target): msgspec.json.decode(text, type=dict[str, str])
        for run, cell, target, text in index.execute("SELECT run, cell, target, facts FROM facts")
    }
    points: dict[str, list[Point]] = {}
    rows = index.execute("SELECT points.* FROM points JOIN runs USING (run) ORDER BY runs.night, points.place")
    for key, run, scenario, cell, target, measure, at, state, y, reps, primary, _ in rows:
        series = Series(key=key, scenario=scenario, cell=cell, target=target, measure=measure)
        point = Point(
            series=series, run=run, at=at, state=state, y=y, reps=reps, primary=bool(primary),
            facts=facts[run, cell, target],
        )  # fmt: skip
        points.setdefault(key, []).append(point)
    lines = b"\n".join(bytes(line) for (line,) in index.execute("SELECT line FROM events ORDER BY at"))
    folders = dict(index.execute("SELECT run, folder FROM runs"))
    return History(root, points, [event for event, _ in decoded(lines)], folders)
