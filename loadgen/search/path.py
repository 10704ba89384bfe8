"""The path of a search: which load is tried next. Double while it holds, then bisect, then make sure of the ends.

In: what is searched for, and the trials so far. Out: the next load, or the reason to stop; and the answer as a bracket
[met, missed].

A load that leans to missed, misses, or cannot be measured blocks the way up. Below the lowest that blocks lies the
highest that does not: between these two is the answer, and their geometric middle is tried until they are within
``within`` of each other. Then the ends are made sure of: an end that is undecided is given more windows, with fresh
prompts, and one that blocks is never believed after a single window (a hiccup of the machine would else be the
answer). More windows may turn an end over; then the search goes on from there.

A load that the client could not send in time answers nothing of the server. It is tried again, and then the search
stops and names the client as the limit. Only where a higher load is known to miss does it go on below. Where no
connection could be made at all the server is gone, and the search is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal

import msgspec

from loadgen.search.verdict import Blind, Trial, Verdict

Word = Literal["rate_rps", "concurrency"]
"""The words of a scenario's load that a search sets."""

MOST_WINDOWS = 4
"""Windows of one load, at most: what they cannot decide lies too near the limit to be decided."""

SURE_WINDOWS = 2
"""Windows of a load that blocks, at least, before it is believed."""


CLIENT_WINDOWS = 3
"""Windows of a load in which the client was late, before the client is taken for the limit and not the moment."""


class Stop(StrEnum):
    """Why a search tries no other load."""

    NARROW = "narrow"
    PROBES = "probes"
    MOST = "most"
    LEAST = "least"
    UNDECIDED = "undecided"
    CLIENT = "client"
    GONE = "gone"
    WINDOW = "window"
    SWEPT = "swept"


class Goal(msgspec.Struct, frozen=True, kw_only=True, tag="goal"):
    """What is searched for. ``start`` is the first load, ``least`` and ``most`` the smallest and largest (requests a
    second, or in flight); the bracket is narrow at ``missed / met <= 1 + within``; ``probes`` is the number of windows
    that may be measured."""

    find: Literal["max_rate", "max_concurrency"]
    start: float
    least: float
    most: float | None
    within: float
    probes: int

    @property
    def word(self) -> Word:
        """The word of a scenario's load that is searched for."""
        return "rate_rps" if self.find == "max_rate" else "concurrency"

    @property
    def whole(self) -> bool:
        """True where loads are whole numbers."""
        return self.find == "max_concurrency"


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. ``met`` is the highest load that is certified to meet the objectives, below every one that misses;
    ``missed`` the lowest that is certified to miss them. ``holds`` and ``blocks`` are the same by what undecided loads
    lean to: they lie within [met, missed], and closer. None where there is no such load. ``blind`` is why ``blocks``
    says nothing of the server, None where it does."""

    met: float | None
    missed: float | None
    holds: float | None
    blocks: float | None
    blind: Blind | None = None


def bracket(trials: Sequence[Trial]) -> Bracket:
    """The answer by now."""
    top = _blocking(trials)
    below = [one for one in trials if top is None or one.load < top.load]
    met = [one.load for one in below if one.verdict is Verdict.MET]
    holds = max((one.load for one in below), default=None)
    missed = [one.load for one in trials if one.verdict is Verdict.MISSED and one.load > (holds or 0.0)]
    return Bracket(
        met=max(met, default=None),
        missed=min(missed, default=None),
        holds=holds,
        blocks=None if top is None else top.load,
        blind=None if top is None else top.blind,
    )


def next_load(goal: Goal, trials: Sequence[Trial]) -> float | Stop:
    """The load to be tried next; a load that was tried asks for another window of it."""
    wanted = _wanted(goal, trials)
    if isinstance(wanted, Stop) or sum(one.windows for one in trials) < goal.probes:
        return wanted
    return Stop.PROBES


def _wanted(goal: Goal, trials: Sequence[Trial]) -> float | Stop:
    if not trials:
        return goal.start if goal.most is None else min(goal.start, goal.most)
    top = _blocking(trials)
    if top is None:
        highest = max(one.load for one in trials)
        return Stop.MOST if highest == goal.most else rounded(goal, min(highest * 2, goal.most or math.inf))
    if top.verdict is Verdict.INVALID:
        if top.windows < CLIENT_WINDOWS:
            return top.load
        if top.blind == "gone":
            return Stop.GONE
        if not any(one.verdict is Verdict.MISSED for one in trials if one.load > top.load):
            return Stop(str(top.blind))
    below = [one for one in trials if one.load < top.load]
    if not below:
        return _lower(goal, trials, top)
    base = max(below, key=lambda one: one.load)
    middle = between(goal, base.load, top.load)
    return middle if middle is not None else _settled(goal, trials, base, top)


def _blocking(trials: Sequence[Trial]) -> Trial | None:
    """The lowest load that the way up does not lead past."""
    return min((one for one in trials if not one.leans), key=lambda one: one.load, default=None)


def _lower(goal: Goal, trials: Sequence[Trial], top: Trial) -> float | Stop:
    if len(trials) == 1 and top.windows < SURE_WINDOWS:
        return top.load  # before a search goes down it makes sure that it has to
    return Stop.LEAST if top.load <= goal.least else rounded(goal, max(top.load / 2, goal.least))


def _settled(goal: Goal, trials: Sequence[Trial], base: Trial, top: Trial) -> float | Stop:
    """The ends are close: are they sure?"""
    if top.verdict is Verdict.INVALID:
        return Stop(str(top.blind))
    for end in (base, top):
        if end.verdict is Verdict.UNDECIDED and end.valid < MOST_WINDOWS:
            return end.load
    if top.valid < SURE_WINDOWS:
        return top.load
    for low, high in _unsure(trials, base, top):
        middle = between(goal, low, high)
        if middle is not None:
            return middle
    return Stop.NARROW if base.verdict is Verdict.MET and top.verdict is Verdict.MISSED else Stop.UNDECIDED


def _unsure(trials: Sequence[Trial], base: Trial, top: Trial) -> Iterator[tuple[float, float]]:
    """Where an end stays undecided: the gaps beside the nearest loads that are sure, towards that end."""
    found, loads = bracket(trials), [one.load for one in trials]
    if found.met is not None and found.met < base.load:
        yield found.met, min(load for load in loads if load > found.met)
    if found.missed is not None and found.missed > top.load:
        yield max(load for load in loads if load < found.missed), found.missed


def between(goal: Goal, low: float, high: float) -> float | None:
    """The geometric middle of two loads; None where they are close enough."""
    if high <= low * (1 + goal.within) or (goal.whole and high - low <= 1):
        return None
    middle = rounded(goal, math.sqrt(low * high))
    return middle if low < middle < high else None


def rounded(goal: Goal, load: float) -> float:
    """A load that people can read: whole, or of three digits."""
    return float(round(load)) if goal.whole else float(f"{load:.3g}")
