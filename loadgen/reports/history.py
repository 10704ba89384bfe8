"""Nights for a terminal and for other programs. In: a `History`. Out: text, or CSV with one row a night and series."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from loadgen.nights.baseline import Entry, failing, last_good, past_of
from loadgen.nights.blame import Change, changes
from loadgen.nights.events import Accepted, Pinned
from loadgen.nights.history import History
from loadgen.nights.regression import LEAST, RECENT
from loadgen.nights.series import EPOCH, Series
from loadgen.nights.verdicts import SeriesVerdict, State, drift, judge, line, percent, small
from loadgen.reports.rows import plain
from loadgen.reports.text import aligned, wrapped
from loadgen.shown import brief

CSV = (
    "time", "run", "scenario", "target", "cell", "measure", "series", "state", "value", "normal", "expected_low",
    "expected_high", "worse", "p", "repeats", "epoch",
)  # fmt: skip
"""Columns of `render_csv`."""

_OVERVIEW = ("series", "state", "value", "expected", "change", "nights", "failing", "last good")
_YIELDS = ("last good", "nights", "expected", "change")
_NIGHTS = ("night", "state", "value", "expected", "change", "run")


def overview(history: History, keys: Sequence[str], width: int) -> str:
    """How every one of these series stands: a line each, under the name of its scenario."""
    lines: list[str] = []
    for scenario in dict.fromkeys(history.series[key].scenario for key in keys):
        of_scenario = [key for key in keys if history.series[key].scenario == scenario]
        nights = [night for night in history.nights if night.scenario == scenario]
        lines += [*wrapped(f"{scenario}: {_counted(len(nights), 'night')}, the last one {nights[-1].run}", width), ""]
        rows = [_overview(history.entries[key]) for key in of_scenario]
        lines += [*_fitting(rows, width), ""]
    return "\n".join(lines) if lines else "no nights yet: `loadgen nightly SCENARIO` makes one.\n"


def nights(history: History, key: str, width: int) -> str:
    """The nights of one series: values, the band that was expected, and where an epoch begins."""
    series, entries = history.series[key], history.entries[key]
    better = "higher" if series.higher_is_better else "lower"
    kind = "primary" if entries[-1].point.primary else "secondary"
    lines = aligned([list(_NIGHTS), *(_night(entry) for entry in entries)], 2)
    out = [*wrapped(f"{series.name} ({key}): {better} is better, {kind}", width), "", *lines[:2]]
    for i, entry in enumerate(entries):
        if i and entry.epoch == entry.point.run and entries[i - 1].epoch != entry.epoch:
            out += wrapped(f"-- new epoch: {epoch_reason(history, entries, i)}", width)
        out.append(lines[i + 2])
    count = failing(entries)
    return "\n".join([*out, *([f"failing for {_counted(count, 'night')}"] if count else []), ""])


def render_csv(history: History, keys: Iterable[str]) -> str:
    """All nights of these series, as programs read them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV)
    for key in keys:
        for entry in history.entries[key]:
            writer.writerow(_csv_row(entry))
    return text.getvalue()


def baseline(history: History, key: str, width: int) -> str:
    """What the next night of a series will be held against."""
    series, entries = history.series[key], history.entries[key]
    past = past_of(entries, history.events)
    band = _band(history, key)
    lines = [f"{band.n} nights: {_around(band)}" if band.normal is not None else "no good night in this epoch yet"]
    if len(past.nights) < LEAST:
        lines.append(f"learning: {len(past.nights)} of the {LEAST} nights that an alarm needs")
    begin = next(i for i, entry in enumerate(entries) if entry.epoch == entries[-1].epoch)
    why = epoch_reason(history, entries, begin) if begin else "its first night"
    lines.append(f"epoch since {entries[begin].point.at[:10]}, {entries[begin].point.run}: {why}")
    pinned = any(isinstance(event, Pinned) and key in event.series for event in history.events)
    which = f"the {len(past.reference)} pinned" if pinned else f"the first {len(past.reference)}"
    lines += [f"slow drift is measured against {which} nights"] if past.reference else []
    for one in drift({key: series}, {key: past}):
        change = percent(one.recent / one.reference - 1)
        lines.append(
            f"the last {RECENT}: {brief(one.recent)} against {brief(one.reference)} ({change}), p={small(one.p)}"
        )
    if past.alert is not None:
        lines.append(f"alert open since {past.alert}: failing for {_counted(failing(entries), 'night')}")
    return "\n".join([*wrapped(f"{series.name} ({key})", width), *(p for x in lines for p in wrapped(x, width, "  "))])


def blame(history: History, key: str, found: Sequence[Change], width: int) -> str:
    """What changed between the last good night of a series and its last night."""
    entries = history.entries[key]
    tonight, before = entries[-1], history.before(key)
    verdict = tonight.verdict
    parts = [line(verdict) if verdict is not None else f"{history.series[key].name}: nothing was said of it"]
    if before is None:
        parts.append(f"There is no good night before {tonight.point.run}.")
    else:
        if before.point.series.key != key:
            parts.append("The series began with this night; another of the same name ended: the scenario is another.")
        parts.append(f"last good night: {before.point.run} ({_value(before)}); last night: {tonight.point.run}")
        parts.append(_changed(found))
    body = [piece for part in parts for piece in wrapped(part, width)]
    rows = [f"  {plain(str(change))}" for change in found]
    return "\n".join([*body, *rows, ""])


def _changed(found: Sequence[Change]) -> str:
    if found:
        return "What changed between them:"
    return "Nothing that is known changed between them: look at the machine, and at what else runs there."


def _overview(entries: Sequence[Entry]) -> dict[str, str]:
    last, count, good = entries[-1], failing(entries), last_good(entries)
    series = last.point.series
    return {
        "series": f"{series.target} {series.cell} {series.measure}",
        **_said(last),
        "nights": str(len(entries)),
        "failing": str(count) if count else "",
        "last good": good.point.at[:10] if good is not None else "never",
    }


def _said(entry: Entry) -> dict[str, str]:
    loud = entry.state is State.REGRESSION
    verdict, value = entry.verdict, entry.point.value
    band = verdict.expected if verdict is not None else None
    normal = verdict.normal if verdict is not None else None
    return {
        "state": entry.state.value.upper() if loud else entry.state.value,
        "value": _value(entry),
        "expected": f"{brief(band[0])}..{brief(band[1])}" if band is not None else "",
        "change": percent(value / normal - 1) if value is not None and normal is not None else "",
    }


def _value(entry: Entry) -> str:
    return "none" if entry.point.value is None else brief(entry.point.value)


def _night(entry: Entry) -> list[str]:
    said = _said(entry)
    point = entry.point
    return [f"{point.at[:10]} {point.at[11:16]}", *(said[name] for name in _NIGHTS[1:5]), point.run[-6:]]


def _fitting(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The table with as many of its columns as fit."""
    columns = list(_OVERVIEW)
    for name in (*_YIELDS, None):
        lines = aligned([columns, *([plain(row[column]) for column in columns] for row in rows)], 2)
        if name is None or max(map(len, lines)) <= width:
            break
        columns.remove(name)
    return lines


def epoch_reason(history: History, entries: Sequence[Entry], i: int) -> str:
    """What began the epoch of night ``i``."""
    key, point = entries[i].point.series.key, entries[i].point
    for event in history.events:
        if isinstance(event, Accepted) and key in event.series and event.run == point.run:
            return "accepted" + (f": {event.note}" if event.note else "")
    earlier = entries[i - 1].point.facts
    marks = {name: point.facts[name] for name in EPOCH if name in point.facts}
    return "; ".join(map(str, changes({name: earlier[name] for name in marks if name in earlier}, marks))) or "a change"


def _band(history: History, key: str) -> SeriesVerdict:
    """What would be expected of the next night."""
    import msgspec

    point = msgspec.structs.replace(history.entries[key][-1].point, y=None)
    return judge([point], history.by_now([key]))[0]


def _around(band: SeriesVerdict) -> str:
    text = brief(band.normal or 0.0)
    return text + (f", expected {brief(band.expected[0])}..{brief(band.expected[1])}" if band.expected else "")


def _csv_row(entry: Entry) -> Iterator[object]:
    point, verdict = entry.point, entry.verdict
    series: Series = point.series
    yield from (point.at, point.run, series.scenario, series.target, series.cell, series.measure, series.key)
    yield from (entry.state.value, point.value)
    low, high = verdict.expected if verdict is not None and verdict.expected is not None else (None, None)
    yield from (verdict.normal if verdict else None, low, high, verdict.worse if verdict else None)
    yield from (verdict.p if verdict else None, point.reps, entry.epoch)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
