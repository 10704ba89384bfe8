"""Tonight's points and the pasts of their series -> a `SeriesVerdict` each, and the line that people read.

In: `Point` and `Past`. Out: verdicts, first by `judge`, then by `confirm` when the candidates were measured again in
the same night. Pure functions; the arithmetic is in ``regression.py``, what makes a past is in ``baseline.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from loadgen.series import Point, Series


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
    negative for better. ``t`` is positive where tonight is worse and ``p`` one-sided. ``candidate`` asks for a second
    measurement in the same night; ``again`` is how many measurements of this night were worse, of how many. ``alert``
    is the run that raised the alert which is open after tonight. None: not known, or nothing to hold it against.
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
    to `confirm`; one whose alert is open needs no second measurement."""
    raise NotImplementedError


def confirm(
    verdicts: Sequence[SeriesVerdict],
    again: Sequence[Point],
    pasts: Mapping[str, Past],
    gates: Mapping[str, float] | None = None,
) -> list[SeriesVerdict]:
    """The verdicts of the night after its candidates were measured again: a regression where ``again`` (points of the
    same series, of another run) is worse as well; the rest stays as it is. To be called once for each further run."""
    raise NotImplementedError


def drift(
    series: Mapping[str, Series], pasts: Mapping[str, Past], gates: Mapping[str, float] | None = None
) -> list[Drift]:
    """Slow drift of these primary series, once a week: those with a whole reference and as many recent nights."""
    raise NotImplementedError


def line(verdict: SeriesVerdict, changed: Sequence[str] = ()) -> str:
    """The line that is printed and sent: value, expected band, ratio, p, confirmed n/n, what changed around it."""
    raise NotImplementedError
