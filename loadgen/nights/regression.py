"""Is tonight worse than the last nights? The test of the specification's section 3.3, for one series and for thousands.

In: logarithms of what was measured, in whole arrays, so that the simulation that says how often this is wrong
(tests/test_nights.py) runs the very same lines as a night does. Out: t, p, effects, and which series are candidates.
The words for it are in ``verdicts.py``.

Everything is a natural logarithm, turned so that **larger is worse**. A night is held against the last 14 good nights
of its epoch by a prediction interval: how far one more night lies from their mean, in units of their own spread (or of
the noise floor, whichever is larger). What is far and also large enough to matter is a candidate; all primary series of
a night are held to a false discovery rate together, because a dozen series have a dozen chances to be unlucky. A
candidate is measured again in the same night, and only what is worse twice is a regression.

Rejected, by simulation: rank and permutation tests on one night against 14 (their smallest p is 1/15), |x - median| /
MAD > 3 (wrong in 3.3 % of nights, a series), the night before, and fixed percentages alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loadgen.arrays import NDArray, np

WINDOW, LEAST = 14, 8
"""Nights of the baseline, and the fewest with which there are alarms."""

Q = 0.02
"""False discovery rate over the primary series of a night."""

AGAIN = 0.05
"""The p that a second measurement has to be under; and an open alert, to stay open."""

FLOOR = 0.005
"""The least spread of nights that is believed where nobody has calibrated."""

OUTLIER, MOST_DROPPED = 5 * 1.4826, 2
"""Nights further from the median than so many MADs are no part of the baseline; so many at most."""

SANITY, SANITY_LEAST = 0.20, 3
"""While a series is learning, only a difference this large is a candidate, against so many nights at least."""

RECENT = 7
"""Nights that slow drift is looked for in."""


class Tested(msgspec.Struct, frozen=True):
    """Tonight against the baselines, all arrays of one shape: nights that count, their mean and spread, t, the p of
    "not worse" and of "not better", one-sided, and the effect exp(y - mean) - 1. NaN where fewer than two nights are
    left. ``kept`` are the baselines with NaN in place of nights that were dropped."""

    kept: NDArray[Any]
    n: NDArray[Any]
    mean: NDArray[Any]
    spread: NDArray[Any]
    t: NDArray[Any]
    p: NDArray[Any]
    p_better: NDArray[Any]
    effect: NDArray[Any]


def against(baseline: Any, tonight: Any, floor: Any = FLOOR) -> Tested:
    """Points 2 and 3 of section 3.3. ``baseline`` has one more axis than ``tonight``, its last: nights, NaN for none.

    T = (y - m) / (s sqrt(1 + 1/n)), s = max(sd, floor), p = P(t_(n-1) >= T).
    """
    from scipy.special import stdtr

    kept = _without_outliers(np.asarray(baseline, dtype=float))
    n = np.sum(~np.isnan(kept), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(kept, axis=-1) / n
        sd = np.sqrt(np.nansum((kept - mean[..., None]) ** 2, axis=-1) / (n - 1))
        spread = np.where(n >= 2, np.maximum(sd, floor), np.nan)
        away = np.asarray(tonight, dtype=float) - mean
        t = away / (spread * np.sqrt(1 + 1 / n))
        return Tested(kept, n, mean, spread, t, stdtr(n - 1.0, -t), stdtr(n - 1.0, t), np.expm1(away))


def _without_outliers(nights: NDArray[Any]) -> NDArray[Any]:
    """The nights, NaN in place of the two furthest of those that lie too far from the median."""
    away = np.abs(nights - _median(nights)[..., None])
    limit = OUTLIER * _median(away)[..., None]
    with np.errstate(invalid="ignore"):
        far = away > limit
    ranks = np.argsort(np.argsort(np.where(far, -away, 0.0), axis=-1, kind="stable"), axis=-1, kind="stable")
    return np.where(far & (ranks < MOST_DROPPED), np.nan, nights)


def _median(values: NDArray[Any]) -> NDArray[Any]:
    """The median along the last axis, NaN left out. (numpy's own walks row by row.)"""
    ordered = np.sort(values, axis=-1)  # NaN last
    n = np.sum(~np.isnan(values), axis=-1)
    low, high = (np.clip(np.stack(((n - 1) // 2, n // 2)), 0, None))[..., None]
    below, above = (np.take_along_axis(ordered, rank, -1)[..., 0] for rank in (low, high))
    return np.asarray((below + above) / 2)


def discoveries(p: Any, q: float = Q) -> NDArray[Any]:
    """Benjamini-Hochberg along the last axis: which are rejected, so that of these a share of q is wrong on average.
    NaN is no test and counts in no family."""
    values = np.asarray(p, dtype=float)
    m = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    ordered = np.sort(values, axis=-1)
    ranks = np.arange(1, values.shape[-1] + 1)
    with np.errstate(invalid="ignore"):
        passing = ordered * m <= ranks * q
        limit = np.max(np.where(passing, ordered, -1.0), axis=-1, keepdims=True, initial=-1.0)
        found: NDArray[Any] = values <= limit
        return found


def candidates(tested: Tested, nights: Any, gates: Any, q: float = Q) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points 1, 4 and 5: which series of a family (the last axis) are worse and which better. ``nights`` is the number
    of nights before any was dropped, ``gates`` the least effect that counts."""
    learned = np.asarray(nights) >= LEAST
    with np.errstate(invalid="ignore"):
        worse = discoveries(np.where(learned, tested.p, np.nan), q) & (tested.effect >= gates)
        better = discoveries(np.where(learned, tested.p_better, np.nan), q) & (
            np.expm1(-np.log1p(tested.effect)) >= gates
        )
        shocking = ~learned & (np.asarray(nights) >= SANITY_LEAST) & (tested.effect >= SANITY)
    return worse | shocking, better


def still_worse(tested: Tested, nights: Any, gates: Any) -> NDArray[Any]:
    """Point 6: whether a second measurement says so too, against the same baseline."""
    with np.errstate(invalid="ignore"):
        learned = np.asarray(nights) >= LEAST
        again: NDArray[Any] = np.where(learned, (tested.p < AGAIN) & (tested.effect >= gates), tested.effect >= SANITY)
        return again
