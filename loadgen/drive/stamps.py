"""The kernel's stamps of many pieces become arrivals on the monotonic clock: once a token, in C where that is built.

In: stamps (struct timespec of the realtime clock, b'' where there was none), when each piece was read, and by how much
the clocks differ. Out: the arrivals, or None where one of the stamps cannot be true and each has to be looked at.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import sub

from loadgen.drive import fast


def arrivals_of(stamps: list[bytes], reads: list[int], offset_ns: int, sent_ns: int) -> tuple[list[int], int] | None:
    """When pieces arrived (monotonic ns), and the longest that one waited to be read (ns). ``offset_ns`` is realtime
    less monotonic; no stamp is earlier than ``sent_ns`` or later than its read."""
    if hasattr(fast.native, "arrivals"):
        known: tuple[list[int], int] | None = fast.native.arrivals(stamps, reads, offset_ns, sent_ns)
        return known
    try:
        raw = _timespecs(len(stamps)).unpack(b"".join(stamps))
    except struct.error:  # a piece without a stamp
        return None
    found = [second * 1_000_000_000 + rest - offset_ns for second, rest in zip(raw[::2], raw[1::2], strict=True)]
    lags = list(map(sub, reads, found))
    if not found or min(lags) < 0 or min(found) < sent_ns:
        return None
    return found, max(lags)


@lru_cache(maxsize=256)
def _timespecs(count: int) -> struct.Struct:
    """The layout of ``count`` struct timespec, one after the other."""
    return struct.Struct(f"@{2 * count}q")
