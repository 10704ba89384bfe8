"""The knee of a sweep: the rate at which latency begins to rise, with an interval.

In: offered rates with the latency that was measured at each, and how sure that is. Out: a `Knee`, or why there is none.

Below what a server can take its latency hardly depends on the rate; above it a queue grows for as long as the window
lasts, in proportion to what is offered too much. Two straight lines that meet are therefore fitted, and the knee is
where they do: segmented regression (Muggeo 2003, "Estimating regression models with unknown break-points", Statistics
in Medicine 22), by least squares of relative errors over a grid of break-points. How steep the second line is depends
on how long was measured; where it begins does not. Kneedle (Satopää et al. 2011) was tried beside it: it names one of
the steps and no place between them.

The interval is a bootstrap's over the steps: of so many drawn with replacement, each latency with its own error, the
knee is found again. In 24 simulated sweeps of servers with a fixed batch the knee lay at 0.92 to 1.00 of the capacity
(strangers who come at random queue a little before a server is full), and the interval held the capacity in 23.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from loadgen.statistics import LEVEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

LEAST_POINTS = 5
"""Two lines that meet have four parameters."""

_DRAWS = 200
_GRID = 100
_RISES = 2.0
"""Latency at the end must be this many times that at the knee, else nothing has risen."""


class Point(msgspec.Struct, frozen=True):
    """One step of a sweep: requests a second that were offered, a latency in seconds, and its standard error."""

    rate: float
    latency: float
    error: float


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """Where latency begins to rise: requests a second with the 95 % interval [low, high], and the latency there."""

    rate: float
    low: float
    high: float
    latency: float


def knee(points: Sequence[Point], seed: int) -> Knee | str:
    """The knee of a sweep, or the reason why there is none."""
    from loadgen.arrays import np

    if len(points) < LEAST_POINTS:
        return f"{len(points)} steps that can be used are too few, two lines need {LEAST_POINTS}"
    x, y, error = np.array(sorted((one.rate, one.latency, one.error) for one in points)).T
    found, before, last = _two_lines(x, y, np.ones_like(x))
    if not np.isfinite(found) or last < _RISES * before:
        return "latency does not rise within the sweep"
    low, high = np.nanquantile(list(_drawn(x, y, error, seed)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Knee(rate=found, low=min(float(low), found), high=max(float(high), found), latency=before)


def _drawn(x: Floats, y: Floats, error: Floats, seed: int) -> Iterator[float]:
    """Knees of steps drawn with replacement. A draw of too few different steps says nothing, and is made again."""
    from loadgen.arrays import np

    random = np.random.default_rng(seed)
    made = 0
    while made < _DRAWS:
        times = np.bincount(random.integers(0, len(x), len(x)), minlength=len(x))
        noise = error * random.standard_normal(len(x))
        kept = times > 0
        if kept.sum() >= LEAST_POINTS:
            made += 1
            yield _two_lines(x[kept], np.maximum(y + noise, y / 10)[kept], times[kept].astype(float))[0]


def _two_lines(x: Floats, y: Floats, times: Floats) -> tuple[float, float, float]:
    """The break-point of the two lines that fit best, and their values there and at the last ``x``; NaN where no second
    line is steeper. ``times`` is how often each point counts."""
    from loadgen.arrays import np

    error = y / np.sqrt(times)
    breaks = np.linspace(x[1], x[-2], _GRID)
    beyond = x - breaks[:, None]
    parts = np.stack([np.ones_like(beyond), np.minimum(beyond, 0), np.maximum(beyond, 0)], axis=2)
    lines = np.linalg.pinv(parts / error[:, None]) @ (y / error)
    fitted = np.einsum("knp,kp->kn", parts, lines)
    off = (((y - fitted) / error) ** 2).sum(axis=1)
    off[lines[:, 2] <= np.maximum(lines[:, 1], 0)] = np.inf
    best = int(off.argmin())
    at = float(breaks[best]) if np.isfinite(off[best]) else float("nan")
    return at, float(lines[best, 0]), float(fitted[best, -1])
