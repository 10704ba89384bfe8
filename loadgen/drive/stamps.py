"""When pieces arrived: marks become arrivals on the monotonic clock, once a token, in C where that is built.

A mark is the kernel's stamp of a piece (realtime ns, 0 without one) and the time of its read (monotonic ns). The marks
of a stream lie one after the other in a bytearray, since for every token an object less counts.

In: marks, and by how much the clocks differ. Out: the arrivals, or None where one of the stamps cannot be true and each
has to be looked at.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import sub

from loadgen.drive import fast
from loadgen.drive.clock import realtime_ns_of

_MARK = struct.Struct("@2q")
MARK = _MARK.size
"""Bytes of a mark."""


def mark_of(stamp: bytes, read_at: int) -> bytes:
    """The mark of a piece with this stamp of the kernel (struct timespec, b'' without one)."""
    return _MARK.pack(realtime_ns_of(stamp), read_at)


def pairs_of(marks: bytearray) -> list[tuple[int, int]]:
    """The marks as numbers: stamp and time of the read of each."""
    return list(_MARK.iter_unpack(marks))


def last_read_of(marks: bytearray) -> int:
    """When the last of the pieces was read (monotonic ns); 0 without one."""
    return int(_MARK.unpack_from(marks, len(marks) - MARK)[1]) if marks else 0


def arrivals_of(marks: bytearray, offset_ns: int, sent_ns: int) -> tuple[list[int], int] | None:
    """When pieces arrived (monotonic ns), and the longest that one waited to be read (ns). ``offset_ns`` is realtime
    less monotonic; no stamp is earlier than ``sent_ns`` or later than its read."""
    if hasattr(fast.native, "arrivals"):
        known: tuple[list[int], int] | None = fast.native.arrivals(marks, offset_ns, sent_ns)
        return known
    raw = _layout(len(marks) // MARK).unpack(marks)
    found, reads = [stamp - offset_ns for stamp in raw[::2]], raw[1::2]
    lags = list(map(sub, reads, found))
    if not found or min(lags) < 0 or min(found) < sent_ns:
        return None
    return found, max(lags)


@lru_cache(maxsize=256)
def _layout(count: int) -> struct.Struct:
    """The layout of ``count`` marks, one after the other."""
    return struct.Struct(f"@{2 * count}q")
