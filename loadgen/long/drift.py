"""Does a series drift? Two tests of equally spaced values that neighbours may share noise in. Pure functions.

In: one value an interval (throughput, median TTFT, resident memory). Out: a `Drift`: the change with its interval, and
p of "no drift". Both work on the logarithm, so that a change is relative.

An ordinary regression calls half of all steady series drifting when neighbours are alike (AR(1) at 0.8), because it
takes every value for a new fact. Both tests here divide by what the series itself does over long stretches:

* `level` is for what varies about a line. The series is projected on discrete Legendre polynomials: degree 1 is the
  trend, degrees 2 to 6 are slow movements that a steady series would show just as well, and trend / their root mean
  square has Student's t distribution with 5 degrees of freedom (Sun 2011, "Robust trend inference with series variance
  estimator", J. Econometrics 164; Lazarus et al. 2018, "HAR inference", JBES 36). Before, the series is whitened by its
  lag-1 correlation about the line, corrected for its bias of -(2 + 4 phi) / n (Andrews and Monahan 1992).
* `growth` is for what keeps its level until something changes it, as memory does: a trend test would call every random
  walk a leak. Here the steps between neighbours are tested: degree 0 is their mean, degrees 1 to 5 the measure. Memory
  that was taken once, however much, is no growth that goes on; it is as large in every degree.

Simulated (tests/test_drift.py), 60 values, 5 %: `level` raises 5.0 to 6.5 % false alarms for a correlation of 0 to 0.7
(8 % at 0.8), `growth` 5 % on random walks. With noise of 1 % and correlation 0.3, a change of 2.5 % over the whole
series is found in 80 % of tries, of 1.5 % in 43 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from loadgen.arrays import NDArray, np
from loadgen.statistics import LEVEL

DEGREES = 5
"""Polynomials that measure the noise: more would find smaller drifts, and mistake more slow noise for one."""

LEAST = 40
"""Fewest values for a test: below, correlation cannot be told well enough."""

MOST_MISSING = 0.1
_MOST_PHI = 0.97
_MOST_LOG = 700.0
"""Above it an exponential is no number any more: the pace of a series of seconds, for an hour."""

Kind = Literal["level", "growth"]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How a series moved. ``total`` is its relative change from the first value to the last (-0.041 is 4.1 % less) at
    its mean pace, [``low``, ``high``] the 95 % interval of that; ``per_hour`` the same pace for an hour, which of a
    short series is an extrapolation; ``p`` that of "no drift"; ``n`` counts the values and ``level`` is their mean.
    Where no test can be made, ``why`` says so and the numbers are None."""

    what: str
    n: int
    level: float | None = None
    total: float | None = None
    low: float | None = None
    high: float | None = None
    per_hour: float | None = None
    p: float | None = None
    why: str | None = None


def drift(what: str, values: Sequence[float | None], length_s: float, kind: Kind = "level") -> Drift:
    """The drift of a series of values ``length_s`` apart, in the order of time; None is a value that is missing.

    Of few missing values each is taken from its neighbours (a straight line on the logarithm). What is not above zero
    counts as missing: nothing served is no slow drift.
    """
    n = len(values)
    known = [value is not None and value > 0 for value in values]
    if n < LEAST:
        return Drift(what=what, n=n, why=f"{n} intervals are too few, a test needs {LEAST}")
    if n - sum(known) > MOST_MISSING * n:
        return Drift(what=what, n=n, why=f"{n - sum(known)} of {n} intervals have no value")
    at = np.flatnonzero(known)
    logs = np.interp(np.arange(n), at, np.log([value for value in values if value is not None and value > 0]))
    pace, error, p = (_level if kind == "level" else _growth)(logs)
    half = _half_width(error)
    return Drift(
        what=what,
        n=n,
        level=float(np.exp(logs).mean()),
        total=math.expm1(pace * (n - 1)),
        low=math.expm1((pace - half) * (n - 1)),
        high=math.expm1((pace + half) * (n - 1)),
        per_hour=math.expm1(min(pace * 3600 / length_s, _MOST_LOG)),
        p=p,
    )


def _level(series: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope a step, its standard error, and p, of values about a line."""
    phi = _correlation(series)
    white = series[1:] - phi * series[:-1]
    basis, step = _polynomials(len(white), DEGREES + 1)
    found = white @ basis
    return _student(found[1] * step / (1 - phi), found[2:] * step / (1 - phi))


def _growth(series: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean step, its standard error, and p, of values that keep their level."""
    steps = np.diff(series)
    found = steps @ _polynomials(len(steps), DEGREES)[0]
    return _student(found[0] / math.sqrt(len(steps)), found[1:] / math.sqrt(len(steps)))


def _student(pace: float, noise: NDArray[np.float64]) -> tuple[float, float, float]:
    from scipy.special import stdtr

    error = math.sqrt(float((noise**2).mean()))
    # A series without any noise surely drifts or surely does not; what is left of a level one is rounding.
    if error < 1e-15:
        return (float(pace), 0.0, 0.0) if abs(pace) > 1e-12 else (0.0, 0.0, 1.0)
    return float(pace), error, float(2 * stdtr(len(noise), -abs(pace) / error))


def _half_width(error: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(DEGREES, (1 + LEVEL) / 2)) * error


def _correlation(series: NDArray[np.float64]) -> float:
    """Lag-1 correlation about the line, its bias taken out, between 0 (nothing to whiten) and just under 1."""
    n = len(series)
    line = _polynomials(n, 1)[0]
    rest = series - line @ (series @ line)
    power = float(rest @ rest)
    if power <= 1e-24 * n:
        return 0.0
    raw = float(rest[1:] @ rest[:-1]) / power
    return min(max((n * raw + 2) / (n - 4), 0.0), _MOST_PHI)


def _polynomials(n: int, degree: int) -> tuple[NDArray[np.float64], float]:
    """Orthonormal polynomials of 0 to ``degree`` over n points, as columns, rising at their end; and what the one of
    degree 1 rises by from point to point, which turns a coefficient into a slope."""
    x = np.linspace(-1.0, 1.0, n)
    columns: list[NDArray[np.float64]] = []
    for power in range(degree + 1):
        column = np.polynomial.legendre.legval(x, [0.0] * power + [1.0])
        for _ in range(2):  # twice is enough: what rounding left of the others goes with the second
            for other in columns:
                column = column - other * (other @ column)
        columns.append(np.asarray(column / math.sqrt(float(column @ column)), np.float64))
    return np.stack(columns, axis=1), float(columns[1][1] - columns[1][0]) if degree else 0.0
