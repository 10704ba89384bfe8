"""What a store knows of its nights: every series with its past, read through the index.

In: a store. Out: series with their entries, pasts for `verdicts.judge`, the runs that must be kept.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from loadgen.assemble import RunReport
from loadgen.baseline import entries_of, kept_runs, past_of
from loadgen.errors import UsageError
from loadgen.events import Event, Night, decoded
from loadgen.index import look
from loadgen.noise import noise_of, remembered
from loadgen.series import Point, Series
from loadgen.verdicts import Past, SeriesVerdict


class History:
    """The nights of a store as they are known at one moment: by key, every series and its nights in order; and all that
    was decided."""

    def __init__(self, points: Mapping[str, Sequence[Point]], events: Sequence[Event]) -> None:
        self.events = tuple(events)
        self.nights = [event for event in events if isinstance(event, Night)]
        said: dict[str, dict[str, SeriesVerdict]] = {}
        for night in self.nights:
            for verdict in night.verdicts:
                said.setdefault(verdict.series.key, {})[night.run] = verdict
        self.series = {key: of_series[-1].series for key, of_series in points.items()}
        self.entries = {key: entries_of(own, said.get(key, {}), events) for key, own in points.items()}

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
        """The runs whose requests must not be deleted: of a baseline window, of a reference, and pinned ones. The runs
        that confirmed a night go with it."""
        found = {run for entries in self.entries.values() for run in kept_runs(entries, self.events)}
        return found | {run for night in self.nights if night.run in found for run in night.confirms}

    def live(self) -> list[str]:
        """The keys of series that the last night of their scenario has; others ended when the scenario changed."""
        last = {night.scenario: night.run for night in self.nights}
        return [key for key, own in self.entries.items() if own[-1].point.run == last.get(self.series[key].scenario)]

    def find(self, words: str) -> list[str]:
        """The keys of the series that a user means: a key or its beginning, or words that all stand in its name. Series
        that live go before those that ended. Raises UsageError if there is none."""
        by_key = [key for key in self.series if key.startswith(words)]
        wanted = words.split()
        found = by_key or [key for key, one in self.series.items() if all(word in _words(one) for word in wanted)]
        if not found:
            named = "; ".join(one.name for one in list(self.series.values())[:5])
            raise UsageError(f"no series {words!r} here; there are {len(self.series)}{': ' + named if named else ''}.")
        live = [key for key in self.live() if key in found]
        return live or found


def read_history(root: Path, say: Callable[[str], None] = lambda _: None) -> History:
    """The history of a store; its index is brought up to date first, and ``say`` is told if it is made anew.

    Raises StoreError, UsageError where there is no such store.
    """
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}; name one with --store.")
    return look(root, _read, say)


def noise_floors(root: Path, report: RunReport, points: Sequence[Point]) -> dict[str, float]:
    """By key: the spread of nights that noise alone makes in the series of these points of a run, where a calibration
    is known. A night is a mean over repeats, so that the calibrated coefficient of variation counts by its root."""
    loads, found = remembered(report.run).loads, {}
    for point in points:
        load = loads.get(point.series.cell)
        if load is None or not point.reps:
            continue
        noise = noise_of(root, report.run.get("machine") or {}, report.plan.scope, load, point.series.measure)
        if noise is not None:
            found[point.series.key] = noise.cv / math.sqrt(point.reps)
    return found


def _words(series: Series) -> list[str]:
    """What a user may call a series by."""
    return [series.key, series.scenario, series.target, series.cell, *series.measure.split(), series.measure]


def _read(index: sqlite3.Connection) -> History:
    facts = {
        (run, cell, target): msgspec.json.decode(text, type=dict[str, str])
        for run, cell, target, text in index.execute("SELECT run, cell, target, facts FROM facts")
    }
    points: dict[str, list[Point]] = {}
    rows = index.execute("SELECT points.* FROM points JOIN runs USING (run) ORDER BY runs.night")
    for key, run, scenario, cell, target, measure, at, state, y, reps, primary in rows:
        series = Series(key=key, scenario=scenario, cell=cell, target=target, measure=measure)
        point = Point(
            series=series, run=run, at=at, state=state, y=y, reps=reps, primary=bool(primary),
            facts=facts[run, cell, target],
        )  # fmt: skip
        points.setdefault(key, []).append(point)
    lines = b"\n".join(bytes(line) for (line,) in index.execute("SELECT line FROM events ORDER BY at"))
    return History(points, [event for event, _ in decoded(lines)])
