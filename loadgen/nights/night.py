"""A night as one value: what was measured, what it means, what else has to be said. Every report of it renders this.

In: verdicts and what was told before. Out: lines for people and the exit code. Pure functions; the story is in
``nightly.py``, the statistics are in ``verdicts.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from loadgen.doctor.finding import Finding
from loadgen.errors import (
    EXIT_FAILED,
    EXIT_INVALID,
    EXIT_OBJECTIVE_MISSED,
    EXIT_OK,
    EXIT_REGRESSION,
    EXIT_SIGINT,
    EXIT_SIGTERM,
)
from loadgen.nights.verdicts import Drift, SeriesVerdict, State, line, number

VERSION = 1

GRAVEST_FIRST = (EXIT_SIGINT, EXIT_SIGTERM, EXIT_FAILED, EXIT_INVALID, EXIT_REGRESSION, EXIT_OBJECTIVE_MISSED)

_ENDS: Mapping[int, str] = MappingProxyType(
    {
        EXIT_OBJECTIVE_MISSED: "an objective was missed",
        EXIT_INVALID: "not all of it is to be trusted",
        EXIT_FAILED: "something failed",
    }
)

GOOD, REGRESSION, INVALID = "good", "regression", "invalid"
"""How a series stands for those who are told of changes."""


class NightReport(msgspec.Struct, frozen=True, kw_only=True):
    """A night. ``path`` is its run's folder, ``confirmed_by`` that of the run that measured its candidates again (None:
    there were none), ``went_on`` says that it resumed a run. ``verdicts`` are empty where the night was interrupted.

    ``changed`` has by series' key what changed around it since its last good night, for those that are not well.
    ``left_out`` are cells that the budget had no time for, ``unconfirmed`` candidates that it left unconfirmed.
    ``drifts`` are what the weekly look found, None where it was not looked for. ``notes`` are what went wrong beside
    the measurement: a webhook that did not answer.
    """

    schema: int = VERSION
    name: str
    run: str
    path: str
    started: str
    confirmed_by: str | None = None
    went_on: bool = False
    verdicts: tuple[SeriesVerdict, ...] = ()
    changed: dict[str, tuple[str, ...]] = {}
    left_out: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    drifts: tuple[Drift, ...] | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int

    @property
    def interrupted(self) -> bool:
        """True if a signal ended it: nothing is said of any series."""
        return self.exit_code in (EXIT_SIGINT, EXIT_SIGTERM)

    def of(self, state: State) -> list[SeriesVerdict]:
        """The verdicts of a state, primary series first."""
        found = [one for one in self.verdicts if one.state is state]
        return sorted(found, key=lambda one: not one.primary)


def exit_code_of(codes: Sequence[int]) -> int:
    """The one that the contract names where several hold."""
    return next((code for code in GRAVEST_FIRST if code in codes), max(codes, default=EXIT_OK))


def head(night: NightReport) -> str:
    """The night in a sentence: ``12 primary series: 11 ok, 1 regression``."""
    if night.interrupted:
        return "interrupted; nothing is said of any series, and --resume goes on"
    primary = Counter(one.state.value for one in night.verdicts if one.primary)
    counts = ", ".join(f"{primary[state.value]} {state.value}" for state in State if primary[state.value])
    total = sum(primary.values())
    said = f"{total} primary series: {counts}" if total else "no primary series"
    return "; ".join(filter(None, [said, _ENDS.get(night.exit_code)]))


def lines(night: NightReport) -> list[str]:
    """A line for each series that is not as it should be, the gravest first, and for each that drifts."""
    states = (State.REGRESSION, State.SUSPECT, State.INVALID, State.IMPROVEMENT)
    found = [line(one, night.changed.get(one.series.key, ())) for state in states for one in night.of(state)]
    return found + [drift_line(one) for one in night.drifts or () if one.found]


def drift_line(one: Drift) -> str:
    """What the last nights came to against the first ones of the epoch, or the pinned ones."""
    change = (one.recent / one.reference - 1) * 100
    return (
        f"DRIFT {one.series.name}: the last nights' mean {number(one.recent)} vs {number(one.reference)} of the "
        f"reference ({change:+.1f} %)"
    )


def remarks(night: NightReport) -> list[str]:
    """What weakens the night, in sentences."""
    found = [sentence(one) for one in night.findings]
    if night.left_out:
        found.append(f"The budget had no time for {len(night.left_out)} cells: {', '.join(night.left_out)}.")
    if night.unconfirmed:
        found.append(f"The budget had no time to measure again: {', '.join(night.unconfirmed)}.")
    return [*found, *night.failures, *night.notes]


def sentence(one: Finding) -> str:
    """A finding with what to do about it."""
    advice = f"; {one.advice}" if one.advice else ""
    return f"{one.name}: {one.text.rstrip('.')}{advice}".rstrip(".") + "."


def standing(verdicts: Sequence[SeriesVerdict]) -> dict[str, str]:
    """By key: how the primary series stand after a night."""
    return {one.series.key: _standing(one) for one in verdicts if one.primary}


def news(before: Mapping[str, str], night: NightReport) -> list[str]:
    """A line for each primary series that stands otherwise than was told before: a regression that began or ended, a
    night without a good repeat, or with one again. A series of which nothing was told was good."""
    found = []
    for one in night.verdicts:
        was, now = before.get(one.series.key, GOOD), _standing(one)
        if not one.primary or was == now:
            continue
        if now == GOOD:
            found.append(line(one).replace(one.state.value.upper(), _over(was, one), 1))
        else:
            found.append(line(one, night.changed.get(one.series.key, ())))
    return found


def _standing(one: SeriesVerdict) -> str:
    return {State.REGRESSION: REGRESSION, State.INVALID: INVALID}.get(one.state, GOOD)


def _over(was: str, one: SeriesVerdict) -> str:
    """A series is good again: by itself, or because an epoch began (somebody accepted it, or the driver changed)."""
    if was == INVALID:
        return f"MEASURED AGAIN ({one.state.value})"
    return "NEW EPOCH (learning)" if one.state is State.LEARNING else f"RECOVERED ({one.state.value})"
