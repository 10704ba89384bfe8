"""Many values -> a `Distribution`. Exact: percentiles are nearest rank of raw values, never of a histogram's buckets.

Two forms of a sample: one float per request in the order of time (so that correlation between neighbours can be told),
and counts of whole microseconds for the gaps between chunks, of which a run has more than fit as floats. A count per
microsecond is no bucket: stamps are whole microseconds, so nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from loadgen.arrays import NDArray, np
from loadgen.metrics import PERCENTILES
from loadgen.statistics import autocorrelation_time, certified_tail, floor_of, nearest_rank, order_interval, rank, tally
from loadgen.summary import Distribution

Floats = NDArray[np.float64]


def distribution(values: Floats) -> Distribution:
    """The distribution of a sample without its order in time; NaN stands for "no value" and is left out."""
    ordered = np.sort(values[~np.isnan(values)])
    return _of_ordered(ordered, {})


def distribution_in_time(values: Floats) -> Distribution:
    """The distribution of a sample in the order of time: with intervals and certified tails. NaN is left out."""
    nothing = np.isnan(values)
    series = values[~nothing] if nothing.any() else values
    ordered = np.sort(series)
    intervals: dict[str, tuple[float, float]] = {}
    certified: dict[str, float] = {}
    n_eff: dict[str, float] = {}
    for name, p in PERCENTILES.items():
        if len(ordered) < floor_of(p):
            continue
        n_eff[name] = len(ordered) / autocorrelation_time(series > nearest_rank(ordered, p))
        interval = order_interval(ordered, p, n_eff[name])
        if interval is not None:
            intervals[name] = interval
        tail = certified_tail(ordered, p, n_eff[name]) if name != "p50" else None
        if tail is not None:
            certified[name] = tail
    return _of_ordered(ordered, {"intervals": intervals, "certified": certified, "n_eff": n_eff})


def _of_ordered(ordered: Floats, more: dict[str, Any]) -> Distribution:
    n = len(ordered)
    if n == 0:
        return Distribution(n=0)
    percentiles: dict[str, Any] = {
        name.replace(".", "_"): nearest_rank(ordered, p) for name, p in PERCENTILES.items() if n >= floor_of(p)
    }
    return Distribution(
        n=n,
        mean=float(ordered.mean()),
        sd=float(ordered.std(ddof=1)) if n > 1 else None,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        **percentiles,
        **more,
    )


class Microseconds:
    """Counts of whole microseconds, exact. Values above a second are rare, and wait to be counted until they are many:
    then 16 bytes are kept for each different one."""

    _DIRECT = 1 << 20

    def __init__(self) -> None:
        self._counts = np.zeros(self._DIRECT, dtype=np.int64)
        self._above = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._waiting: list[NDArray[np.int64]] = []

    def add(self, values: NDArray[np.int64]) -> None:
        """Count non-negative values."""
        direct = values < self._DIRECT
        counts = np.bincount(values[direct])
        self._counts[: len(counts)] += counts
        if not direct.all():
            self._waiting.append(values[~direct])
            if sum(map(len, self._waiting)) > self._DIRECT:
                self._count()

    def _count(self) -> None:
        values, counts = self._above
        every = np.concatenate([values, *self._waiting])
        weights = np.concatenate([counts, np.ones(len(every) - len(values), np.int64)])
        order = np.argsort(every, kind="stable")
        distinct, held = tally(every)
        starts = np.cumsum(held) - held
        self._above = (distinct, np.add.reduceat(weights[order], starts) if len(starts) else counts)
        self._waiting = []

    def distribution(self) -> Distribution:
        """The distribution in seconds."""
        small = np.flatnonzero(self._counts)
        self._count()
        large, large_counts = self._above
        values, counts = np.concatenate([small, large]), np.concatenate([self._counts[small], large_counts])
        n = int(counts.sum())
        if n == 0:
            return Distribution(n=0)
        mean = float((values * counts).sum()) / n
        squares = float((counts * (values - mean) ** 2).sum())
        reached = np.cumsum(counts)
        percentiles: dict[str, Any] = {
            name.replace(".", "_"): float(values[np.searchsorted(reached, rank(n, p))]) / 1e6
            for name, p in PERCENTILES.items()
            if n >= floor_of(p)
        }
        return Distribution(
            n=n,
            mean=mean / 1e6,
            sd=math.sqrt(squares / (n - 1)) / 1e6 if n > 1 else None,
            min=float(values[0]) / 1e6,
            max=float(values[-1]) / 1e6,
            **percentiles,
        )


def too_few(n: int, length_s: float | None) -> str | None:
    """Which percentiles up to p99 are blank for want of replies, of which there are ``n`` > 0, and what would hold
    enough of them; None where there are enough. ``length_s`` is that of the window, None for a burst."""
    floors = {name: floor for name in ("p50", "p90", "p95", "p99") if n < (floor := floor_of(PERCENTILES[name]))}
    if not floors:
        return None
    need = "is blank: it needs" if len(floors) == 1 else "are blank: they need"
    said = f"{_listed(floors)} {need} {_listed(floors.values())} replies, and there {'was' if n == 1 else 'were'} {n}."
    if length_s is None:
        return f"{said} Raise load.burst."
    windows = _listed(math.ceil(length_s * floor / n) for floor in floors.values())
    return f"{said} At this rate a load.window_s of {windows} s holds so many."


def _listed(parts: Iterable[object]) -> str:
    """``a, b and c``."""
    *most, last = map(str, parts)
    return f"{', '.join(most)} and {last}" if most else last
