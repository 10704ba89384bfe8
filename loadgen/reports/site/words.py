"""What the pages of nights say, before the templates set it: `Index` for the first page, `Sheet` for one series.

In: a `History`, and what is known of the latest runs. Out: text and places. Links are relative to the page that has
them; ``runs`` gives the link of a run's report by its id, '' for a run that has no page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from loadgen.nights.baseline import SOUND, Entry, failing, last_good
from loadgen.nights.blame import changes
from loadgen.nights.events import Accepted, Night, Pinned
from loadgen.nights.history import History
from loadgen.nights.verdicts import SeriesVerdict, State, line, percent, small
from loadgen.reports.history import epoch_reason
from loadgen.reports.site.drawing import Plot, drawn
from loadgen.shown import brief

NIGHTS = 60
"""The last nights of a series that its page shows."""

PLOTTED = 30
"""Those that a plot on the first page shows."""

LINES = 20
"""The most lines of one night."""

DECISIONS = 20

_ORDER = (State.REGRESSION, State.INVALID, State.SUSPECT, State.IMPROVEMENT, State.LEARNING, State.OK)
_KINDS = {
    State.REGRESSION: "worse",
    State.INVALID: "worse",
    State.SUSPECT: "unsure",
    State.LEARNING: "unsure",
    State.IMPROVEMENT: "better",
    State.OK: "better",
}


class Said(msgspec.Struct, frozen=True):
    """A line and how it is meant: better, worse, unsure."""

    kind: str
    text: str


class Row(msgspec.Struct, frozen=True):
    """How one series stands."""

    href: str
    name: str
    state: str
    value: str
    normal: str
    change: str
    expected: str
    failing: str
    last_good: str
    plot: Plot | None


class Ran(msgspec.Struct, frozen=True):
    """A run of the store; ``what`` says whether it was a night, and what came of it."""

    id: str
    scenario: str
    status: str
    began: str
    took: str
    what: str


class Told(msgspec.Struct, frozen=True):
    """The last night of one scenario, and how its series stand."""

    name: str
    nights: str
    last: str
    confirms: Sequence[str]
    lines: Sequence[Said]
    primary: Sequence[Row]
    secondary: Sequence[Row]


class Index(msgspec.Struct, frozen=True):
    """The first page."""

    standing: str
    written: str
    scenarios: Sequence[Told]
    latest: Sequence[Ran]
    decisions: Sequence[str]
    ended: Sequence[Row]
    runs: Mapping[str, str]


class NightRow(msgspec.Struct, frozen=True):
    """One night of a series. ``notes`` says what was not the same as in the night before."""

    at: str
    state: str
    value: str
    normal: str
    change: str
    expected: str
    p: str
    again: str
    repeats: str
    run: str
    notes: str


class Sheet(msgspec.Struct, frozen=True):
    """The page of one series."""

    name: str
    key: str
    kind: str
    row: Row
    last: Said
    nights: Sequence[NightRow]
    left_out: str
    runs: Mapping[str, str]


def index(history: History, latest: Sequence[Ran], runs: Mapping[str, str], written: str) -> Index:
    """The first page: every scenario that has nights, the latest runs, what people decided."""
    live = history.live()
    last = {night.scenario: night for night in history.nights}
    return Index(
        standing=_standing([history.entries[key][-1] for key in live if history.entries[key][-1].point.primary]),
        written=written,
        scenarios=[_told(history, night, live) for night in last.values()],
        latest=latest,
        decisions=list(_decisions(history))[-DECISIONS:][::-1],
        ended=[_row(history, key, 0) for key in history.entries if key not in live],
        runs=runs,
    )


def sheet(history: History, key: str, runs: Mapping[str, str]) -> Sheet:
    """The page of one series."""
    series, entries = history.series[key], history.entries[key]
    better = "higher" if series.higher_is_better else "lower"
    primary = entries[-1].point.primary
    first = max(0, len(entries) - NIGHTS)
    return Sheet(
        name=series.name,
        key=key,
        kind=f"{better} is better; {'primary' if primary else 'secondary, raises no alarm'}",
        row=_row(history, key, NIGHTS),
        last=_said(history, entries[-1]),
        nights=[_night(history, entries, i) for i in reversed(range(first, len(entries)))],
        left_out=f"{first} older nights: `loadgen history --series {key} --csv` has them all." if first else "",
        runs=runs,
    )


def shown_runs(history: History) -> list[str]:
    """The runs of the nights that the pages show, and those that measured them again."""
    found = {entry.point.run for entries in history.entries.values() for entry in entries[-NIGHTS:]}
    return [run for night in history.nights if night.run in found for run in (night.run, *night.confirms)]


def _standing(entries: Sequence[Entry]) -> str:
    counts = Counter(entry.state for entry in entries)
    return ", ".join(f"{counts[state]} {state.value}" for state in _ORDER if counts[state]) or "none yet"


def _told(history: History, night: Night, live: Sequence[str]) -> Told:
    keys = [one.series.key for one in night.verdicts if one.series.key in live]  # the order of the scenario's cells
    keys.sort(key=lambda key: _ORDER.index(history.entries[key][-1].state))
    primary = [key for key in keys if history.entries[key][-1].point.primary]
    count = sum(one.scenario == night.scenario for one in history.nights)
    return Told(
        name=night.scenario,
        nights=f"{count} night{'' if count == 1 else 's'}",
        last=night.run,
        confirms=night.confirms,
        lines=list(_lines(history, night, keys)),
        primary=[_row(history, key, PLOTTED) for key in primary],
        secondary=[_row(history, key, 0) for key in keys if key not in primary],
    )


def _lines(history: History, night: Night, keys: Sequence[str]) -> Iterator[Said]:
    """What the night said that a person should read, the worst first; how many series had nothing said against them."""
    entries = [history.entries[key][-1] for key in keys]
    loud = [entry for entry in entries if entry.state not in (State.OK, State.LEARNING)]
    loud.sort(key=lambda entry: (not entry.point.primary, _ORDER.index(entry.state)))
    for entry in loud[:LINES]:
        yield _said(history, entry)
    if len(loud) > LINES:
        yield Said("unsure", f"and {len(loud) - LINES} more series, in the tables")
    quiet = Counter(entry.state for entry in entries if entry not in loud and entry.point.primary)
    for state, n in quiet.items():
        yield Said(_KINDS[state], f"{state.value}: {n} primary series")
    if night.exit_code:
        yield Said("unsure", f"The night ended with exit code {night.exit_code}.")


def _said(history: History, entry: Entry) -> Said:
    kind = _KINDS[entry.state]
    if entry.verdict is None:
        return Said(kind, f"{entry.point.series.name}: nothing was said of it")
    changed: list[str] = []
    if entry.state is State.REGRESSION and entry is history.entries[entry.point.series.key][-1]:
        changed = [str(change) for change in history.changes(entry.point.series.key)]
    return Said(kind, line(entry.verdict, changed))


def _row(history: History, key: str, plotted: int) -> Row:
    series, entries = history.series[key], history.entries[key]
    last, count, good = entries[-1], failing(entries), last_good(entries, SOUND)
    return Row(
        href=f"series/{key}.html",
        name=f"{series.target} {series.cell} {series.measure}",
        state=last.state.value,
        **_figures(last.point.value, last.verdict),
        failing=str(count) if count else "",
        last_good=good.point.at[:10] if good is not None else "never",
        plot=drawn(entries[-plotted:]) if plotted else None,
    )


def _figures(value: float | None, verdict: SeriesVerdict | None) -> dict[str, str]:
    normal = verdict.normal if verdict is not None else None
    band = verdict.expected if verdict is not None else None
    return {
        "value": "none" if value is None else brief(value),
        "normal": "" if normal is None else brief(normal),
        "change": "" if value is None or normal is None else percent(value / normal - 1),
        "expected": "" if band is None else f"{brief(band[0])}..{brief(band[1])}",
    }


def _night(history: History, entries: Sequence[Entry], i: int) -> NightRow:
    entry, verdict = entries[i], entries[i].verdict
    again = verdict.again if verdict is not None else None
    return NightRow(
        at=f"{entry.point.at[:10]} {entry.point.at[11:16]}",
        state=entry.state.value,
        **_figures(entry.point.value, verdict),
        p="" if verdict is None or verdict.p is None else small(verdict.p),
        again="" if again is None else f"{again[0]}/{again[1]}",
        repeats=str(entry.point.reps),
        run=entry.point.run,
        notes="; ".join(_notes(history, entries, i)),
    )


def _notes(history: History, entries: Sequence[Entry], i: int) -> Iterator[str]:
    if not i:
        return
    if entries[i].epoch != entries[i - 1].epoch:
        yield f"new epoch: {epoch_reason(history, entries, i)}"
    yield from map(str, changes(entries[i - 1].point.facts, entries[i].point.facts))


def _decisions(history: History) -> Iterator[str]:
    for event in history.events:
        if not isinstance(event, Accepted | Pinned):
            continue
        names = [history.series[key].name for key in event.series if key in history.series]
        named = "; ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        note = f": {event.note}" if event.note else ""
        if isinstance(event, Accepted):
            yield f"{event.at[:10]} accepted from {event.run} on, {named}{note}"
        else:
            yield f"{event.at[:10]} pinned {len(event.runs)} nights, {named}{note}"
