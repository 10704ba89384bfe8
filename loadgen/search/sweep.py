"""The steps of a sweep, from idle to saturation, and its knee.

In: the steps so far. Out: the next one, or that it is over; then what it came to.

1. **Idle**: a closed loop with one request in flight.
2. **The maximum**: closed loops with four times as many each, until requests/s grow by less than a tenth. The largest
   rate of all is the measured maximum; no queue of the client's making distorts it, because a closed loop waits.
3. **Even steps** of that maximum in an open loop, and two steps beyond it: without them nothing says where saturation
   begins.
4. **Two more steps** beside the knee that these show.

A step that the client was late in is measured once more, three of them at most.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import msgspec

from loadgen.metrics import measure
from loadgen.search.knee import Knee, Point, knee
from loadgen.search.path import Stop, Word
from loadgen.search.verdict import answers
from loadgen.summary import Summary

BEYOND = 2
"""Even steps beyond the measured maximum."""

BESIDE = 2
"""Steps that are added beside the knee."""

AGAIN = 3
"""Steps that may be measured once more, because the client was late in them."""

_TIMES = 4
_GROWS = 1.1
_MOST_CONCURRENCY = 4096
_Z = 1.96


class Course(msgspec.Struct, frozen=True, kw_only=True, tag="sweep"):
    """What a sweep does: ``steps`` even ones to the maximum, and never more than ``most`` in flight in a closed loop.
    ``latency`` is the measure whose knee is looked for."""

    steps: int
    most: int | None
    latency: str
    seed: int

    @property
    def probes(self) -> int:
        """How many steps there are at most."""
        closed = 1 + math.ceil(math.log(self.most or _MOST_CONCURRENCY, _TIMES))
        return closed + self.steps + BEYOND + BESIDE + AGAIN


class Leg(msgspec.Struct, frozen=True):
    """A step: requests in flight (closed loop), or requests a second (open loop), and what was measured there; None
    where nothing was."""

    word: Word
    load: float
    summary: Summary | None


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep came to: the measured maximum in requests a second, and the knee, or why there is none."""

    maximum: float | None
    knee: Knee | None
    why: str


def next_leg(course: Course, legs: Sequence[Leg]) -> tuple[Word, float] | Stop:
    """The word and the load of the next step."""
    if legs and _late(legs):
        return legs[-1].word, legs[-1].load
    closed = [leg for leg in legs if leg.word == "concurrency"]
    more = _more_in_flight(course, closed)
    if more is not None:
        return "concurrency", more
    maximum = maximum_of(legs)
    if maximum is None:
        return Stop.LEAST
    tried = {leg.load for leg in legs if leg.word == "rate_rps"}
    even = [_three(maximum * step / course.steps) for step in range(1, course.steps + BEYOND + 1)]
    for rate in even:
        if rate not in tried:
            return "rate_rps", rate
    beside = _beside(course, even, legs) if len(tried) < len(even) + BESIDE else None
    return Stop.SWEPT if beside is None else ("rate_rps", beside)


def swept(course: Course, legs: Sequence[Leg]) -> Swept:
    """What the steps so far come to."""
    found = knee(list(points(course, legs)), course.seed)
    why = found if isinstance(found, str) else ""
    return Swept(maximum=maximum_of(legs), knee=None if isinstance(found, str) else found, why=why)


def _late(legs: Sequence[Leg]) -> bool:
    """Whether the client was late in the last step, and that step may be measured again."""
    *before, last = legs
    again = len(legs) - len({(leg.word, leg.load) for leg in legs})
    alone = all((leg.word, leg.load) != (last.word, last.load) for leg in before)
    return alone and again < AGAIN and last.summary is not None and not answers(last.summary)


def maximum_of(legs: Sequence[Leg]) -> float | None:
    """The measured maximum: requests a second of the fastest closed loop that may be trusted."""
    rates = [leg.summary.request_rps for leg in legs if leg.word == "concurrency" and _valid(leg) and leg.summary]
    return max((rate for rate in rates if rate is not None), default=None)


def points(course: Course, legs: Sequence[Leg]) -> Iterator[Point]:
    """The latency of every step of the open loop that may be trusted, with its standard error inside the window."""
    what = measure(course.latency)
    for leg in legs:
        value = latency_at(course, leg.summary) if leg.word == "rate_rps" and leg.summary and _valid(leg) else None
        if value:
            one = getattr(leg.summary, what.metric)
            interval = one.intervals.get(what.statistic)
            spread = (interval[1] - interval[0]) / 2 / _Z if interval else (one.sd or value) / math.sqrt(one.n)
            yield Point(leg.load, value, spread)


def latency_at(course: Course, summary: Summary) -> float | None:
    """The latency of a step in seconds; None where it has too few requests."""
    return summary.get(measure(course.latency))


def _more_in_flight(course: Course, closed: Sequence[Leg]) -> float | None:
    """The concurrency of the next closed loop; None where requests/s no longer grow, or the client is at its end."""
    if not closed:
        return 1.0
    if not _valid(closed[-1]):
        return None
    rates = [leg.summary.request_rps or 0.0 for leg in closed if leg.summary and _valid(leg)]
    if len(rates) > 1 and rates[-1] < _GROWS * max(rates[:-1]):
        return None
    most = course.most or _MOST_CONCURRENCY
    last = closed[-1].load
    return None if last >= most else min(last * _TIMES, most)


def _beside(course: Course, even: Sequence[float], legs: Sequence[Leg]) -> float | None:
    """The middle between two even steps that lies nearest to the knee and was not tried; None without a knee."""
    found = swept(course, legs).knee
    if found is None:
        return None
    tried = {leg.load for leg in legs}
    middles = [_three((low + high) / 2) for low, high in itertools.pairwise(even)]
    free = [middle for middle in middles if middle not in tried]
    return min(free, key=lambda middle: abs(middle - found.rate), default=None)


def _valid(leg: Leg) -> bool:
    return leg.summary is not None and leg.summary.ok > 0 and answers(leg.summary)


def _three(rate: float) -> float:
    return float(f"{rate:.3g}")
