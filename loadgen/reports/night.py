"""A night for a terminal or cron's mail, and as Markdown for the page of a CI job. In: a `NightReport`. Out: text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from loadgen.nights.night import NightReport, head, lines, remarks
from loadgen.nights.verdicts import SeriesVerdict, State, line, percent
from loadgen.reports.rows import plain
from loadgen.reports.text import aligned, section, wrapped
from loadgen.shown import brief

if TYPE_CHECKING:
    from loadgen.reports.junit import Case, Outcome

_COLUMNS = ("target", "cell", "measure", "tonight", "normal", "change", "expected", "state")
_YIELDS = ("normal", "expected")
_LEFT = 3


def render(night: NightReport, width: int = 100, unicode: bool = True) -> str:
    """What a person reads in the morning: what is wrong, every primary series, what weakens it, where to look."""
    parts = [*wrapped(f"nightly {night.name}: {head(night)}", width), ""]
    parts += section("", lines(night), width)
    parts += _table(night, width)
    parts += section("Remarks", remarks(night), width)
    parts += [f"run: {night.path}"]
    parts += [f"measured again: {night.confirmed_by}"] if night.confirmed_by else []
    text = "\n".join(parts) + "\n"
    return text if unicode else text.encode("ascii", "replace").decode()


def render_markdown(night: NightReport, report: str = "") -> str:
    """The same for a page; ``report`` is the Markdown of its run's report, which follows."""
    rows = [_COLUMNS, *_rows(night, _COLUMNS)]
    table = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    table.insert(1, f"|{' --- |' * len(_COLUMNS)}")
    parts = [f"## Nightly {_cell(night.name)}: {head(night)}", ""]
    parts += [*(f"- **{_cell(one)}**" for one in lines(night)), ""] if lines(night) else []
    parts += [*table, ""] if len(rows) > 1 else []
    parts += [*(f"- {_cell(one)}" for one in remarks(night)), ""] if remarks(night) else []
    return "\n".join([*parts, *([report] if report else [])]) + "\n"


def render_json(night: NightReport) -> str:
    """All of it for programs."""
    return msgspec.json.format(msgspec.json.encode(night), indent=1).decode() + "\n"


def cases(night: NightReport) -> Iterator[Case]:
    """Every primary series as a test case, for JUnit: a regression fails, what could not be judged is skipped or an
    error."""
    from loadgen.reports.junit import Case

    outcomes: dict[State, Outcome] = {
        State.REGRESSION: "failure",
        State.INVALID: "error",
        State.SUSPECT: "skipped",
        State.LEARNING: "skipped",
    }
    for one in night.verdicts:
        if one.primary:
            text = line(one, night.changed.get(one.series.key, ()))
            group = f"{one.series.cell}.{one.series.target}"
            outcome = outcomes.get(one.state, "passed")
            yield Case(group, f"{one.series.measure} against earlier nights", outcome, one.state.value, text)


def _table(night: NightReport, width: int) -> list[str]:
    """The primary series, with as many columns as fit."""
    columns = list(_COLUMNS)
    rows = list(_rows(night, columns))
    if not rows:
        return []
    for name in (*_YIELDS, None):
        found = aligned([columns, *_rows(night, columns)], _LEFT)
        if name is None or max(map(len, found)) <= width:
            break
        columns.remove(name)
    return [*found, ""]


def _rows(night: NightReport, columns: Sequence[str]) -> Iterator[list[str]]:
    for one in night.verdicts:
        if one.primary:
            words = _words(one)
            yield [plain(words[column]) for column in columns]


def _words(one: SeriesVerdict) -> dict[str, str]:
    apart = one.value is not None and one.normal is not None
    return {
        "target": one.series.target,
        "cell": one.series.cell,
        "measure": one.series.measure,
        "tonight": "none" if one.value is None else brief(one.value),
        "normal": "" if one.normal is None else brief(one.normal),
        "change": percent((one.value or 0) / (one.normal or 1) - 1) if apart else "",
        "expected": "" if one.expected is None else f"{brief(one.expected[0])}..{brief(one.expected[1])}",
        "state": one.state.value.upper() if one.state is State.REGRESSION else one.state.value,
    }


def _cell(text: str) -> str:
    """Text in which Markdown sees no markup: names and errors come from outside."""
    safe = plain(text).replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|")
    return safe.replace("`", "\\`").replace("[", "\\[").replace("*", "\\*").replace("_", "\\_")
