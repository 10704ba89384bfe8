"""Clocks of other machines: by how much they differ from ours, and how well that is known.

In: a way of asking another machine for its CLOCK_MONOTONIC. Out: its offset, with a bound of its error. A reading that
comes back within a round trip was taken somewhere inside it, so the middle of the trip is right to half its length,
whatever the two ways cost (D. L. Mills, RFC 5905, section 8); of many trips the shortest therefore says most.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

import msgspec

TRIPS = 50
_UNSYNCHRONISED = 5  # TIME_ERROR of <sys/timex.h>


class Offset(msgspec.Struct, frozen=True):
    """Another clock minus ours (``ns``), right to ``error_ns`` on either side."""

    ns: int
    error_ns: int


class WorkerClock(msgspec.Struct, frozen=True, kw_only=True):
    """How the clock of a worker on another machine stood to ours, both CLOCK_MONOTONIC.

    ``offset_ns`` is its reading minus ours before the start, right to ``error_us``; ``drift_us`` by how much the offset
    had changed after the repeat, None if nobody was there to ask. ``late_us`` is how long after the common start the
    worker was told of it, 0 for one that knew before. Records count from the start by their own worker's clock, so
    those of two workers lie right to each other within the errors and drifts of both.

    A worker that starts by the time of day has no offset, and for an error what its kernel says of that clock: None
    where nobody sets it.
    """

    worker: int
    host: str
    offset_ns: int
    error_us: float | None
    drift_us: float | None = None
    late_us: float = 0.0


def measured(ask: Callable[[], int], now: Callable[[], int] = time.monotonic_ns, trips: int = TRIPS) -> Offset:
    """The offset by the shortest of ``trips`` round trips. ``ask()`` is the other clock's reading in ns."""
    best: Offset | None = None
    for _ in range(trips):
        before = now()
        theirs = ask()
        after = now()
        error = -(-(after - before) // 2)
        if best is None or error < best.error_ns:
            best = Offset(theirs - (before + after) // 2, error)
    assert best is not None
    return best


def day_error_us() -> float | None:
    """By how many microseconds the time of day here may be wrong, as the kernel has it from whoever sets the clock
    (adjtimex(2), maxerror); None where nobody does, or where there is no such call."""
    if not sys.platform.startswith("linux"):
        return None
    timex = (ctypes.c_long * 32)()  # struct timex begins: modes, offset, freq, maxerror (us), esterror; 26 longs
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    return None if state in (-1, _UNSYNCHRONISED) else float(timex[3])
