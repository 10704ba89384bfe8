"""The statistics of repeats and of samples: pure functions, each chosen by simulation (tests/test_simulation.py).

Two questions, never mixed:

* *How good is a percentile of one repeat?* A sample of requests in time order: nearest rank, a floor under which the
  percentile is blank, an interval from order statistics that allows for correlation between neighbours, and a certified
  upper limit. These speak of that repeat only.
* *Does B differ from A?* **The repeat is the unit.** Requests are never pooled: they share the server's warm-up, clocks
  and memory layout, so that a bootstrap over the requests of one run covers the truth half as often as it says. The
  difference of a pair of repeats is taken on the logarithm, d = ln(B / A), and Student's t over the pairs gives an
  interval; a ratio and its inverse then get inverse intervals. Pairs in the order ABBA cancel a linear drift of the
  machine.

scipy is imported inside the functions that need it: importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Sample: TypeAlias = "Sequence[float] | NDArray[np.float64]"
"""The values of one repeat."""

LEVEL = 0.95
"""Confidence of every interval, each by itself, not jointly."""

CERTAINTY = 0.99
"""Confidence of a certified tail."""

MIN_REPEATS = 3
"""Fewest pairs (or repeats of each side) for which an interval is given."""

UNTIL_LEAST, UNTIL_MOST = 6, 30
"""Fewest and most pairs where whole ABBA blocks are added until the interval is narrow enough."""

_Z = 1.96


class Verdict(StrEnum):
    """Every way in which a comparison ends."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    SMALL_DIFFERENCE = "small difference"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not comparable"
    INVALID = "invalid"


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """B / A as a ratio of geometric means, with its 95 % t interval [low, high] and the p value of "no difference".

    ``n`` is the number of pairs, or of the repeats of the smaller side. Where there is no interval, ``low``, ``high``
    and ``p`` are None and ``why`` is the reason.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int
    paired: bool
    why: str | None = None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval on the logarithmic scale (0.01 is about 1 %); None without an interval."""
        return None if self.low is None or self.high is None else math.log(self.high / self.low) / 2

    @property
    def spread(self) -> float | None:
        """The half-width as a share of the ratio: 0.01 where the interval ends 1 % above it; None without one."""
        return None if self.half_width is None else math.expm1(self.half_width)


# Samples of one repeat ------------------------------------------------------------------------------------------------


def rank(n: int, p: float) -> int:
    """The 1-based nearest rank ceil(p n), between 1 and n. A p given in decimals counts as that decimal: 0.99 of 100 is
    99, although the product of the nearest floats is not."""
    return min(max(math.ceil(round(p * n, 9)), 1), n)


def nearest_rank(ordered: Sample, p: float) -> float:
    """The value x_(ceil(p n)) of an ordered, non-empty sample."""
    return float(ordered[rank(len(ordered), p) - 1])


def floor_of(p: float) -> int:
    """The smallest sample for which the percentile p >= 0.5 is given: 6, 35, 73, 381, 3838 for p50, 90, 95, 99, 99.9.

    From n p + 1.96 sqrt(n p (1 - p)) <= n, which is where the upper order statistic of a two-sided 95 % interval still
    lies inside the sample. For the median that is too kind (4): from 6 on, [min, max] covers it with 95 %.
    """
    return max(6, math.ceil(_Z**2 * p / (1 - p)))


def tally(values: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct values of an array in ascending order, and how often each occurs.

    What numpy.unique gives; that loads numpy.ma at its first call, which takes as long as a third of numpy itself.
    """
    from loadgen.arrays import np

    ordered = np.sort(values)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)])
    return ordered[starts], np.diff(starts, append=len(ordered))


def autocorrelation_time(exceeds: Any) -> float:
    """tau >= 1: how many neighbours of a series (in time order) are worth one independent sample.

    tau = 1 + 2 sum of the autocorrelations rho_k, summed until k >= 5 tau (Sokal's window: longer sums add noise).
    ``exceeds`` is a sequence of 0 and 1, whether each value lies above the percentile; a constant one gives 1.
    """
    from loadgen.arrays import np
    from loadgen.correlation import correlation_time

    return correlation_time(np.asarray(exceeds))


def order_interval(ordered: Sample, p: float, n_eff: float) -> tuple[float, float] | None:
    """The 95 % interval of a percentile: the order statistics at ceil(n (p -+ 1.96 sqrt(p (1 - p) / n_eff))).

    None where a rank falls outside the sample.
    """
    n = len(ordered)
    if n == 0:
        return None
    spread = _Z * math.sqrt(p * (1 - p) / n_eff)
    low, high = math.ceil(n * (p - spread)), math.ceil(n * (p + spread))
    if low < 1 or high > n:
        return None
    return float(ordered[low - 1]), float(ordered[high - 1])


def certified_rank(n: int, p: float, certainty: float = CERTAINTY) -> int | None:
    """t, such that the t-th largest of n independent values is an upper limit of the percentile; None if n is short.

    MLPerf's early stopping: with h values under the limit and t over it, I_p(h, t + 1) < 1 - certainty. h = n - t, and
    the largest such t is the tightest limit. From n = 64, 130, 662, 6636 on for p90, 95, 99, 99.9 at 99 %.

    I_p(n - t, t + 1) is the chance of at most t successes in n tries of 1 - p each (DLMF 8.17.5): its terms follow from
    each other, and are summed here for all t at once.
    """
    from loadgen.arrays import np

    k = np.arange(1, min(n, math.ceil(n * (1 - p)) + 1) + 1)  # at the mean of the count the sum is near a half
    steps = np.log((n - k + 1) / k) + math.log((1 - p) / p)
    chances = np.cumsum(np.exp(n * math.log(p) + np.concatenate(([0.0], np.cumsum(steps)))))
    t = int(np.searchsorted(chances, 1 - certainty)) - 1
    return t if t >= 1 else None


def certified_tail(ordered: Sample, p: float, n_eff: float, certainty: float = CERTAINTY) -> float | None:
    """X of "the percentile is at most X with 99 % confidence"; None where the sample is too small for one.

    Correlated requests are worth only ``n_eff``: the rank is taken for that many, which makes X larger.
    """
    t = certified_rank(math.floor(min(n_eff, len(ordered))), p, certainty)
    return None if t is None else float(ordered[len(ordered) - t])


# Repeats of two systems -----------------------------------------------------------------------------------------------


def ratio_paired(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """B / A over pairs of repeats: exp(mean d +- t sqrt(s_d^2 / R)), d = ln(b_i / a_i), R - 1 degrees of freedom.

    Raises ValueError for sides of different or no length, and for values that are not above zero.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need both sides: {len(a)} repeats against {len(b)}")
    _check(a, b)
    d = [math.log(after) - math.log(before) for before, after in zip(a, b, strict=True)]
    n, mean = len(d), math.fsum(d) / len(d)
    if n < MIN_REPEATS:
        return Ratio(value=math.exp(mean), n=n, paired=True, why=f"no interval: fewer than {MIN_REPEATS} repeats")
    return _student(mean, math.sqrt(_variance(d) / n), n - 1, n=n, paired=True)


def ratio_welch(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """B / A of repeats that were not interleaved: Welch's t on the logarithms.

    Wider than the paired interval, and blind to what changed between the sets. Raises ValueError as `ratio_paired`
    does, lengths apart.
    """
    _check(a, b)
    log_a, log_b = [math.log(value) for value in a], [math.log(value) for value in b]
    mean, n = math.fsum(log_b) / len(b) - math.fsum(log_a) / len(a), min(len(a), len(b))
    if n < MIN_REPEATS:
        return Ratio(value=math.exp(mean), n=n, paired=False, why=f"no interval: fewer than {MIN_REPEATS} repeats")
    va, vb = _variance(log_a) / len(a), _variance(log_b) / len(b)
    spread = va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)
    df = (va + vb) ** 2 / spread if spread > 0 else n - 1
    return _student(mean, math.sqrt(va + vb), df, n=n, paired=False)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of a mean; None under three values."""
    n = len(values)
    if n < MIN_REPEATS:
        return None
    from scipy.special import stdtrit  # not before: a run of one repeat would pay for loading it, and not use it

    mean, half = math.fsum(values) / n, float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(_variance(values) / n)
    return mean - half, mean + half


def holm(p_values: Sequence[float], alpha: float = 1 - LEVEL) -> list[bool]:
    """Which of a family of hypotheses are rejected, so that any false rejection has a chance of at most alpha.

    Holm: in ascending order, the k-th of m (from 0) is rejected while p <= alpha / (m - k).
    """
    rejected = [False] * len(p_values)
    for k, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] > alpha / (len(p_values) - k):
            break
        rejected[i] = True
    return rejected


def verdict(ratio: Ratio, margin: float, rejected: bool, more_is_better: bool) -> Verdict:
    """What the interval of B / A says, with the band [1 / (1 + margin), 1 + margin] counted as equal.

    ``rejected`` is Holm's word on "no difference" within the family of cells. Without an interval: inconclusive.
    """
    if ratio.low is None or ratio.high is None:
        return Verdict.INCONCLUSIVE
    bottom, top = 1 / (1 + margin), 1 + margin
    if rejected and (ratio.low > top or ratio.high < bottom):
        return Verdict.FASTER if (ratio.value > 1) == more_is_better else Verdict.SLOWER
    if bottom < ratio.low and ratio.high < top:
        return Verdict.EQUIVALENT
    if rejected and (ratio.low > 1 or ratio.high < 1):
        return Verdict.SMALL_DIFFERENCE
    return Verdict.INCONCLUSIVE


def repeats_needed(ratio: Ratio, margin: float) -> int | None:
    """How many repeats would bring the interval down to the margin: R (half-width / ln(1 + margin))^2, at most 4 R.

    At least one more ABBA block (two pairs) than there are: an interval that is narrow enough and still does not
    settle the matter lies across the margin's edge. None without an interval.
    """
    if ratio.half_width is None:
        return None
    wanted = math.ceil(ratio.n * (ratio.half_width / math.log1p(margin)) ** 2)
    return min(max(wanted, ratio.n + 2), 4 * ratio.n)


def narrow(ratio: Ratio, until: float, least: int = UNTIL_LEAST) -> bool:
    """True if no more pairs are needed: there are ``least``, and the interval is within ``until`` (0.01 is 1 %).

    Looking after every block and stopping at the first narrow interval covers less than 95 %: an interval that is
    narrow by chance is believed. Simulated, stopping at 1 % with blocks of two pairs from 6 to 30: 94.8 % where the
    repeats differ by 0.4 %, 93.4 % at 1 %, 92.7 % at 1.5 % (the worst), 93.5 % at 2 %.
    """
    return ratio.n >= least and ratio.spread is not None and ratio.spread <= until


def _check(a: Sequence[float], b: Sequence[float]) -> None:
    if not a or not b:
        raise ValueError("a ratio needs at least one repeat of each side")
    for value in (*a, *b):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"a ratio needs values above zero, not {value!r}")


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _student(mean: float, error: float, df: float, *, n: int, paired: bool) -> Ratio:
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    # Repeats that are equal to the last bit have no error: they are surely the same or surely not.
    t = abs(mean) / error if error > 0 else (math.inf if mean else 0.0)
    p = float(2 * stdtr(df, -t))
    return Ratio(value=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half), p=p, n=n, paired=paired)
