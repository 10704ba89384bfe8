"""Tonight's points and the pasts of their series -> a `SeriesVerdict` each, and the line that people read.

In: `Point` and `Past`. Out: verdicts, first by `judge`, then by `confirm` when the candidates were measured again in
the same night. Pure functions; the arithmetic is in ``regression.py``, what makes a past is in ``baseline.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from loadgen.arrays import np
from loadgen.nights.regression import (
    FLOOR,
    LEAST,
    RECENT,
    SANITY_LEAST,
    WINDOW,
    against,
    candidates,
    discoveries,
    still_worse,
)
from loadgen.nights.series import Point, Series, gate
from loadgen.statistics import LEVEL, ratio_welch


class State(StrEnum):
    """How a series stands tonight."""

    OK = "ok"
    LEARNING = "learning"
    SUSPECT = "suspect"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    INVALID = "invalid"


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a series before tonight; logarithms of its measure, as in `Point.y`.

    ``nights`` are the last good ones of the epoch, `WINDOW` at most; ``reference`` the pinned ones, else the epoch's
    first; ``recent`` the last `RECENT`, none of them in the reference. ``floor`` is the spread of nights that noise
    alone makes, None where nobody has calibrated. ``epoch`` is the run that began the epoch. ``alert`` is the run that
    raised the alert which is open, None if none is.
    """

    nights: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    recent: tuple[float, ...] = ()
    floor: float | None = None
    epoch: str = ""
    alert: str | None = None


class SeriesVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a night says of one series. Values are in the measure's own unit.

    ``expected`` is where 95 % of nights lie if nothing changed, ``normal`` the geometric mean of the ``n`` nights of
    the baseline, ``lowest`` and ``highest`` the least and most of them. ``worse`` is the effect: 0.06 for 6 % worse,
    negative for better. ``t`` is positive where tonight is worse; ``p`` is that of "not worse", one-sided, of an
    improvement that of "not better". ``candidate`` asks for a second measurement in the same night; ``again`` is how
    many measurements of this night were worse, of how many. ``alert`` is the run that raised the alert which is open
    after tonight. None: not known, or nothing to hold it against.
    """

    series: Series
    run: str
    state: State
    primary: bool
    value: float | None = None
    normal: float | None = None
    expected: tuple[float, float] | None = None
    lowest: float | None = None
    highest: float | None = None
    n: int = 0
    worse: float | None = None
    t: float | None = None
    p: float | None = None
    candidate: bool = False
    again: tuple[int, int] | None = None
    epoch: str = ""
    alert: str | None = None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of the last nights against the reference: what a window that moves along cannot see. ``worse`` is the
    effect, ``p`` one-sided, by Welch; ``found`` if it passes the false discovery rate and the gate."""

    series: Series
    worse: float
    p: float
    found: bool
    reference: float
    recent: float


def judge(
    tonight: Sequence[Point], pasts: Mapping[str, Past], gates: Mapping[str, float] | None = None
) -> list[SeriesVerdict]:
    """A verdict for each point, by the pasts of their series (by key; none is an empty one). ``gates`` are the
    scenario's, by measure. A primary series that is a candidate comes back as suspect, to be measured again and given
    to `confirm`; one whose alert is open needs no second measurement. Secondary series are a family of their own."""
    found: dict[str, SeriesVerdict] = {}
    for primary in (True, False):
        family = [point for point in tonight if point.primary is primary]
        measured = _Measured(family, pasts, gates)
        worse, better = candidates(measured.tested, measured.nights, measured.gates)
        still = still_worse(measured.tested, measured.nights, measured.gates)
        for i, point in enumerate(family):
            plain = measured.verdict(i, point)
            p_better = float(measured.tested.p_better[i]) if better[i] else None
            found[point.series.key] = _first(plain, bool(worse[i]), p_better, bool(still[i]))
    return [found[point.series.key] for point in tonight]


def confirm(
    verdicts: Sequence[SeriesVerdict],
    again: Sequence[Point],
    pasts: Mapping[str, Past],
    gates: Mapping[str, float] | None = None,
) -> list[SeriesVerdict]:
    """The verdicts of the night after its candidates were measured again: a regression where ``again`` (points of the
    same series, of another run) is worse as well, else suspect; the rest stays as it is, and so does a candidate of
    which ``again`` has no good repeat."""
    wanted = {verdict.series.key for verdict in verdicts if verdict.candidate}
    points = [point for point in again if point.series.key in wanted and point.y is not None]
    measured = _Measured(points, pasts, gates)
    still = still_worse(measured.tested, measured.nights, measured.gates)
    second = {point.series.key: bool(still[i]) for i, point in enumerate(points)}
    return [_second(one, second[one.series.key]) if one.series.key in second else one for one in verdicts]


def drift(
    series: Mapping[str, Series], pasts: Mapping[str, Past], gates: Mapping[str, float] | None = None
) -> list[Drift]:
    """Slow drift of these primary series, once a week: those with a whole reference and as many recent nights."""
    found = []
    for key, one in series.items():
        past = pasts.get(key, Past())
        if len(past.reference) < LEAST or len(past.recent) < RECENT:
            continue
        ratio = ratio_welch([math.exp(y) for y in past.reference], [math.exp(y) for y in past.recent])
        worse = math.expm1(_sign(one) * math.log(ratio.value))
        p = ratio.p if ratio.p is not None else 1.0
        reference = math.exp(math.fsum(past.reference) / len(past.reference))
        recent = reference * ratio.value
        one_sided = p / 2 if worse > 0 else 1 - p / 2
        found.append(Drift(series=one, worse=worse, p=one_sided, found=False, reference=reference, recent=recent))
    passed = discoveries([one.p for one in found])
    return [
        msgspec.structs.replace(one, found=bool(passed[i]) and one.worse >= gate(one.series.measure, gates))
        for i, one in enumerate(found)
    ]


def gates_of(scenario: Mapping[str, Any]) -> dict[str, float]:
    """The gates that a scenario (as run.json keeps it) sets itself, by measure."""
    return dict((scenario.get("nightly") or {}).get("gate") or {})


class _Measured:
    """Points against their pasts: the arithmetic for all of them at once, and each point's share of it."""

    def __init__(self, points: Sequence[Point], pasts: Mapping[str, Past], gates: Mapping[str, float] | None) -> None:
        self._pasts = [pasts.get(point.series.key, Past()) for point in points]
        self._signs = [_sign(point.series) for point in points]
        baseline = np.full((len(points), WINDOW), np.nan)
        for i, past in enumerate(self._pasts):
            nights = past.nights[-WINDOW:]
            baseline[i, : len(nights)] = [self._signs[i] * y for y in nights]
        tonight = [
            math.nan if point.y is None else sign * point.y for point, sign in zip(points, self._signs, strict=True)
        ]
        floors = [FLOOR if past.floor is None else past.floor for past in self._pasts]
        self.nights = np.sum(~np.isnan(baseline), axis=-1)
        self.gates = np.array([gate(point.series.measure, gates) for point in points])
        self.tested = against(baseline, tonight, np.array(floors))

    def verdict(self, i: int, point: Point) -> SeriesVerdict:
        """What is known of a point before anything is decided: ok, learning or invalid."""
        past, learning = self._pasts[i], int(self.nights[i]) < LEAST
        state = State.INVALID if point.y is None else State.LEARNING if learning else State.OK
        plain = SeriesVerdict(
            series=point.series, run=point.run, state=state, primary=point.primary, value=point.value,
            epoch=past.epoch or point.run, alert=past.alert,
        )  # fmt: skip
        if not self.nights[i]:
            return plain
        kept = [math.exp(self._signs[i] * float(y)) for y in self.tested.kept[i] if not math.isnan(y)]
        normal = math.exp(self._signs[i] * float(self.tested.mean[i]))
        told = point.y is not None and not learning
        return msgspec.structs.replace(
            plain, normal=normal, lowest=min(kept), highest=max(kept), n=len(kept), expected=self._expected(i),
            worse=None if point.y is None else float(self.tested.effect[i]),
            t=float(self.tested.t[i]) if told else None, p=float(self.tested.p[i]) if told else None,
        )  # fmt: skip

    def _expected(self, i: int) -> tuple[float, float] | None:
        """exp(m -+ t_(.975, n - 1) s sqrt(1 + 1/n)); None under three nights."""
        from scipy.special import stdtrit

        n = int(self.tested.n[i])
        if n < SANITY_LEAST:
            return None
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * float(self.tested.spread[i]) * math.sqrt(1 + 1 / n)
        middle = self._signs[i] * float(self.tested.mean[i])
        return math.exp(middle - half), math.exp(middle + half)


def _sign(series: Series) -> int:
    """What turns a logarithm so that larger is worse."""
    return -1 if series.higher_is_better else 1


def _first(plain: SeriesVerdict, worse: bool, p_better: float | None, still: bool) -> SeriesVerdict:
    """The verdict after the first measurement. An open alert is a regression for as long as it looks like one.
    ``p_better`` is set for what is better."""
    if plain.state is State.INVALID:
        return plain
    if plain.alert is not None and still:
        return msgspec.structs.replace(plain, state=State.REGRESSION)
    closed = msgspec.structs.replace(plain, alert=None)
    if worse and plain.primary:
        return msgspec.structs.replace(closed, state=State.SUSPECT, candidate=True, again=(1, 1))
    if worse:
        return msgspec.structs.replace(closed, state=State.SUSPECT)
    if p_better is not None:
        return msgspec.structs.replace(closed, state=State.IMPROVEMENT, p=p_better)
    return closed


def _second(first: SeriesVerdict, worse: bool) -> SeriesVerdict:
    if worse:
        return msgspec.structs.replace(first, state=State.REGRESSION, candidate=False, again=(2, 2), alert=first.run)
    return msgspec.structs.replace(first, candidate=False, again=(1, 2))


# Words ----------------------------------------------------------------------------------------------------------------


def line(verdict: SeriesVerdict, changed: Sequence[str] = ()) -> str:
    """The line that is printed and sent: value, expected band, ratio, p, confirmed n/n, what changed around it."""
    head = f"{verdict.state.value.upper()} {verdict.series.name}"
    if verdict.value is None:
        return f"{head}: no good repeat"
    parts = [f"{head} {number(verdict.value)}"]
    if verdict.normal is not None and verdict.lowest is not None and verdict.highest is not None:
        parts[0] += f" vs {number(verdict.normal)} ({percent(verdict.value / verdict.normal - 1)})"
        parts.append(f"{verdict.n}-night range {number(verdict.lowest)}..{number(verdict.highest)}")
    if verdict.expected is not None:
        parts.append(f"expected {number(verdict.expected[0])}..{number(verdict.expected[1])}")
    parts += [f"p={small(verdict.p)}"] if verdict.p is not None else []
    if verdict.again is not None and verdict.again != (1, 1):
        parts.append(f"{'confirmed' if verdict.again == (2, 2) else 'worse in'} {verdict.again[0]}/{verdict.again[1]}")
    if verdict.alert is not None and verdict.alert != verdict.run:
        parts.append(f"failing since {verdict.alert}")
    return ", ".join(parts) + (f"; changed: {'; '.join(changed)}" if changed else "")


def number(value: float) -> str:
    """Four digits, and no powers of ten where a person would write none; plain, since programs read the line."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def percent(change: float) -> str:
    """``-6.1 %``, with its sign."""
    return f"{round(change * 100, 1) + 0.0:+.1f} %"


def small(p: float) -> str:
    """A probability: 0.013, 1e-6."""
    if p >= 0.001:
        return f"{p:.2g}"
    mantissa, _, exponent = f"{p:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if p > 0 else "0"
